"""A privileged pod on one node, where the user allows it: what no Kubernetes API offers.

It runs plain Python, the image of the load agent, and needs nothing of the node: programs go to it
as text and speak to the kernel themselves. It is made for one fault and removed with it; should
nobody come, it ends after an hour.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from pytest_pgo_eks.errors import ExecProblem, NotFound
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.wait import eventually

Object = dict[str, Any]
_READY_S = 180.0
_RUN_S = 30.0
_ENDS_S = 3600
_NAME = "pgo-helper"
_STAY = f"import signal; signal.alarm({_ENDS_S}); signal.pause()"


def manifest(namespace: str, node: str, image: str) -> Object:
    """Return the pod: privileged, with the node's processes in sight, bound to the node by name.

    Bound so, it needs no scheduler, and tolerates whatever keeps others from the node.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{_NAME}-{re.sub('[^a-z0-9]', '-', node.lower())}"[:63].rstrip("-"),
            "namespace": namespace,
            "labels": {"app": _NAME},
        },
        "spec": {
            "nodeName": node,
            "hostPID": True,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _ENDS_S,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "helper",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-c", _STAY],
                    "securityContext": {"privileged": True, "runAsUser": 0},
                    "resources": {"limits": {"memory": "128Mi"}},
                }
            ],
        },
    }


class Helper:
    """One privileged pod, made when it is first asked to run something."""

    def __init__(self, kube: Kube, namespace: str, node: str, image: str) -> None:
        self.node = node
        self._kube = kube
        self._namespace = namespace
        self._manifest = manifest(namespace, node, image)
        self._made = False

    @property
    def name(self) -> str:
        return str(self._manifest["metadata"]["name"])

    def run(self, program: str, **told: Any) -> dict[str, Any]:
        """Run a Python program on the node, give it ``told`` as JSON, return the JSON it prints.

        :raises ExecProblem: it failed; the message has its last line.
        """
        if not self._made:
            self._make()
        done = self._kube.exec(
            self._namespace,
            self.name,
            ["python3", "-c", program, json.dumps(told)],
            container="helper",
            deadline_s=_RUN_S,
        )
        if done.exit_status:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise ExecProblem(f"{self.name} on {self.node}: {' '.join(last) or done.exit_status}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def remove(self) -> None:
        """Delete the pod; one that is gone is fine."""
        if self._made:
            with contextlib.suppress(NotFound):
                self._kube.delete("Pod", self.name, self._namespace, grace_s=0)
            self._made = False

    def _make(self) -> None:
        self._made = True
        with contextlib.suppress(NotFound):  # an earlier run's, killed before it could tidy up
            self._kube.delete("Pod", self.name, self._namespace, grace_s=0)
            eventually(
                lambda: self._kube.find("Pod", self.name, self._namespace),
                accept=lambda found: found is None,
                within_s=_READY_S,
                what=f"an old {self.name} to be gone",
                successes=1,
            )
        self._kube.create(self._manifest)
        eventually(
            lambda: self._kube.get("Pod", self.name, self._namespace).get("status") or {},
            accept=lambda status: status.get("phase") == "Running",
            within_s=_READY_S,
            what=f"privileged pod {self.name} to run on {self.node}",
            successes=1,
            show=lambda status: str(status.get("containerStatuses") or status.get("phase")),
        )
