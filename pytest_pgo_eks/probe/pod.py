"""The pod in which the agent runs: plain Python, no privileges, allowed to watch and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.shell import Shell

Object = dict[str, Any]
DEFAULT_NAME = "pgo-probe"


class Cluster(Shell, Protocol):
    """What making the pod needs of :class:`pytest_pgo_eks.kube.Kube`, beside exec."""

    def apply(self, manifest: Mapping[str, Any], *, force: bool = False) -> Object: ...
    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None: ...
    def delete(
        self, kind: str, name: str, namespace: str, *, grace_s: int | None = None
    ) -> Any: ...


def manifests(
    namespace: str,
    *,
    name: str = DEFAULT_NAME,
    image: str = "stand-in/python:3",
    node_selector: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Sequence[Object]:
    """Return service account, role, binding and pod.

    The role lets the agent list and watch pods, Endpoints and EndpointSlices of its namespace. The
    resource limits keep a probe that went wrong from being the fault that it looks for.
    """
    meta = {"name": name, "namespace": namespace, "labels": {"app": name, **(labels or {})}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": meta,
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["pods", "endpoints"],
                    "verbs": ["get", "list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["get", "list", "watch"],
                },
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {
                "serviceAccountName": name,
                "terminationGracePeriodSeconds": 1,
                "restartPolicy": "Always",
                "nodeSelector": dict(node_selector or {}),
                # What the "restricted" Pod Security Standard asks for.
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "probe",
                        "image": image,
                        # PID 1 of its own: it must reap, or a dead agent would look alive.
                        "command": [
                            "sh",
                            "-c",
                            "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done",
                        ],
                        "resources": {
                            "requests": {"cpu": "100m", "memory": "64Mi"},
                            "limits": {"memory": "1Gi"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }
                ],
            },
        },
    ]


def ensure(
    cluster: Cluster,
    namespace: str,
    *,
    within_s: float,
    name: str = DEFAULT_NAME,
    image: str = "stand-in/python:3",
    node_selector: Mapping[str, str] | None = None,
) -> Installed:
    """Make the pod if it is not there, wait until it runs, copy the agent in.

    :raises WaitTimeout: the pod did not run in time; the message has the reason it gave.
    :raises Inconclusive: its image cannot run the agent.
    """
    if cluster.find("Pod", name, namespace) is None:
        for manifest in manifests(namespace, name=name, image=image, node_selector=node_selector):
            cluster.apply(manifest)
    eventually(
        lambda: cluster.find("Pod", name, namespace) or {},
        accept=lambda pod: _state(pod) == "",
        within_s=within_s,
        what=f"the probe's pod {namespace}/{name} runs",
        fail=_hopeless,
        successes=1,
    )
    installed = Installed(cluster, namespace, name)
    installed.install()
    return installed


def remove(cluster: Cluster, namespace: str, *, name: str = DEFAULT_NAME) -> None:
    """Delete the pod and what it was allowed; what is gone already is fine."""
    for kind in ("Pod", "RoleBinding", "Role", "ServiceAccount"):
        if cluster.find(kind, name, namespace) is not None:
            cluster.delete(kind, name, namespace, grace_s=0 if kind == "Pod" else None)


def _state(pod: Object) -> str:
    """Return why the pod does not run yet; empty if it does."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        if waiting := container.get("state", {}).get("waiting"):
            return f"{waiting.get('reason')}: {waiting.get('message', '')}"
    return "" if status.get("phase") == "Running" else f"phase {status.get('phase')}"


def _hopeless(pod: Object) -> str | None:
    state = _state(pod)
    bad = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")
    return f"the probe's pod cannot run: {state}" if state.startswith(bad) else None
