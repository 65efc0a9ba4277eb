"""Faults of containers: the main process killed, seen by the kubelet that starts another."""

from __future__ import annotations

from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.faults.processes import Process, Processes
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.wait import eventually

# The kubelet notices an exit within a second or two; its own back-off comes after the count.
_PROVE_S = 30.0


class ContainerKilled:
    """SIGKILL to a container's main process; proven by the kubelet's own restart count.

    Everything else of the container dies with it, as containers end with their main process. In
    PGO's ``database`` container that is Patroni, and PostgreSQL dies with it.
    """

    kind = "container-killed"

    def __init__(self, kube: Kube, namespace: str, pod: str, container: str) -> None:
        self.target = f"container {container} of {pod}"
        self._kube = kube
        self._namespace = namespace
        self._pod = pod
        self._container = container
        self._processes = Processes(kube, namespace, pod, container=container)
        self._before: tuple[str, int] = ("", 0)
        self._killed: Process | None = None

    def inject(self) -> None:
        self._before = self._count()
        self._killed = self._processes.signal("main", "KILL")

    def prove(self) -> Proof:
        assert self._killed is not None
        uid, before = self._before
        now = eventually(
            self._count,
            accept=lambda seen: seen[0] == uid and seen[1] > before,
            within_s=_PROVE_S,
            what=f"{self.target} to be started again by the kubelet",
            successes=1,
            show=lambda seen: f"pod {seen[0]} with restart count {seen[1]}",
        )
        return Proof(
            f"{self.target} lost its main process (pid {self._killed.pid}); its restart count went "
            f"from {before} to {now[1]}",
            {"pid": self._killed.pid, "restarts_before": before, "restarts": now[1]},
        )

    def undo(self) -> None:
        """Nothing to take back: the kubelet starts it again."""

    def _count(self) -> tuple[str, int]:
        """Return the pod's UID and how often the kubelet has restarted the container."""
        pod = self._kube.get("Pod", self._pod, self._namespace)
        statuses = (pod.get("status") or {}).get("containerStatuses") or []
        counts = [
            int(one.get("restartCount", 0)) for one in statuses if one["name"] == self._container
        ]
        return str(pod["metadata"]["uid"]), max(counts, default=0)
