"""The pod in which the agent runs: plain Python, no privileges, allowed to watch and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pytest_pgo_eks.kube.hardening import SCRATCH, pod_spec
from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.shell import Shell

Object = dict[str, Any]
DEFAULT_NAME = "pgo-probe"
HOME = f"{SCRATCH}/pgo-probe"
# An agent ends within a second of being told; a reader asks for more ten times a second.
_AGENTS_END_S = 6.0
_READERS_END_S = 1.0
_GRACE_S = 10


class Cluster(Shell, Protocol):
    """What making the pod needs of :class:`pytest_pgo_eks.kube.Kube`, beside exec."""

    def apply(self, manifest: Mapping[str, Any], *, force: bool = False) -> Object: ...
    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None: ...
    def delete(
        self, kind: str, name: str, namespace: str, *, grace_s: int | None = None
    ) -> Any: ...


# PID 1 of its own: it reaps, or a dead agent would look alive. Told to end (an eviction, a drained
# node), it lets agents write their last line and readers fetch it: a history then has an end, no hole.
_FIRST = f"""
import glob, os, signal, time

signals = {{signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)

def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

def tell(number):
    heard = 0
    for path in glob.glob("{HOME}/*/pid"):
        try:
            os.kill(int(open(path).read()), number)
            heard += 1
        except (OSError, ValueError):
            pass
    return heard

while signal.sigwait(signals) == signal.SIGCHLD:
    reap()
tell(signal.SIGTERM)
ends = time.monotonic() + {_AGENTS_END_S}
while tell(0) and time.monotonic() < ends:
    reap()
    time.sleep(0.05)
time.sleep({_READERS_END_S})
"""


def manifests(
    namespace: str,
    *,
    name: str = DEFAULT_NAME,
    image: str = "stand-in/python:3",
    node_selector: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Sequence[Object]:
    """Return service account, role, binding and pod.

    The role lets the agent list and watch pods, Endpoints and EndpointSlices of its namespace.
    """
    meta = {"name": name, "namespace": namespace, "labels": {"app": name, **(labels or {})}}
    stay = {
        # Moved by an autoscaler in the middle of a scenario, it would take the evidence along.
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    spec = pod_spec(
        "probe",
        image,
        ["python3", "-c", _FIRST],
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        node_selector=node_selector,
        service_account=name,
        grace_s=_GRACE_S,
    )
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
            "metadata": {**meta, "annotations": stay},
            "spec": spec,
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

    A pod that has ended, or is about to (evicted, its node drained), is replaced.

    :raises WaitTimeout: the pod did not run in time; the message has the reason it gave.
    :raises Inconclusive: its image cannot run the agent.
    """
    found = cluster.find("Pod", name, namespace)
    if found is not None and _over(found):
        _replace(cluster, namespace, name, found, within_s)
        found = None
    if found is None:
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
    installed = Installed(cluster, namespace, name, home=HOME)
    installed.install()
    return installed


class Keeper:
    """Hands out the agent in its pod, and makes the pod again when it is gone.

    A pod of its own accord lives as long as the run; an eviction or a lost node ends one scenario's
    history, and must not end every later scenario as well.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, make: Callable[[], Installed]
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._make = make
        self._installed: Installed | None = None
        self._life = ""

    def installed(self) -> Installed:
        """Return the agent, installed in a pod that runs.

        :raises Inconclusive: no pod can be made to run it.
        """
        found = self._cluster.find("Pod", self._name, self._namespace)
        if self._installed is None or found is None or _over(found) or _life(found) != self._life:
            self.close()
            self.close()
            self._installed = self._make()
            self._life = _life(self._cluster.find("Pod", self._name, self._namespace) or {})
        return self._installed

    def close(self) -> None:
        """Let go of the agent; the pod stays."""
        if self._installed is not None:
            self._installed.close()
        self._installed = None


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
    if not state.startswith(bad):
        return None
    return f"the probe's pod cannot run: {state}; name an image it can pull with --pgo-probe-image"


def _over(pod: Object) -> bool:
    """Whether a pod has ended for good or is told to end."""
    phase = pod.get("status", {}).get("phase")
    return bool(pod["metadata"].get("deletionTimestamp")) or phase in ("Failed", "Succeeded")


def _life(pod: Object) -> str:
    """Return what changes when a pod, or the container in it, is another one."""
    containers = [
        one.get("containerID") for one in pod.get("status", {}).get("containerStatuses", ())
    ]
    return f"{pod.get('metadata', {}).get('uid')} {containers}"


def _replace(cluster: Cluster, namespace: str, name: str, pod: Object, within_s: float) -> None:
    if not pod["metadata"].get("deletionTimestamp"):
        cluster.delete("Pod", name, namespace, grace_s=0)
    eventually(
        lambda: cluster.find("Pod", name, namespace),
        accept=lambda now: now is None or now["metadata"]["uid"] != pod["metadata"]["uid"],
        within_s=within_s,
        what=f"the probe's old pod {namespace}/{name} to be gone",
        successes=1,
    )
