"""Faults of pods: deleted gracefully or by force, and a Deployment taken away."""

from __future__ import annotations

from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.wait import eventually

_GRACE_S = 30.0


class PodDeleted:
    """A pod is deleted; proven when no pod carries its UID any more.

    With ``force`` the object vanishes at once and the kubelet kills the processes without their
    grace period; its StatefulSet then makes a pod of the same name within a second, so a name
    proves nothing.
    """

    def __init__(self, kube: Kube, namespace: str, pod: str, *, force: bool) -> None:
        self.kind = "pod-force-deleted" if force else "pod-deleted"
        self.target = pod
        self._kube = kube
        self._namespace = namespace
        self._force = force
        self._uid = ""

    def inject(self) -> None:
        self._uid = self._kube.get("Pod", self.target, self._namespace)["metadata"]["uid"]
        grace_s = 0 if self._force else None
        self._kube.delete("Pod", self.target, self._namespace, grace_s=grace_s, uid=self._uid)

    def prove(self) -> Proof:
        def uid() -> str:
            found = self._kube.find("Pod", self.target, self._namespace)
            return str(found["metadata"]["uid"]) if found else "none"

        now = eventually(
            uid,
            accept=lambda seen: seen != self._uid,
            within_s=_GRACE_S + 15.0,
            what=f"pod {self.target} with UID {self._uid} to be gone",
            successes=1,
        )
        return Proof(f"pod {self.target} with UID {self._uid} is gone; UID under its name: {now}")

    def undo(self) -> None:
        """Nothing to take back: its controller makes a new one."""


class DeploymentDown:
    """A Deployment scaled to nothing (the operator, say); undo restores its replicas."""

    kind = "deployment-down"

    def __init__(self, kube: Kube, namespace: str, name: str, pod_labels: str) -> None:
        self.target = name
        self._kube = kube
        self._namespace = namespace
        self._pod_labels = pod_labels
        self._replicas = 0

    def inject(self) -> None:
        found = self._kube.get("apps/v1/Deployment", self.target, self._namespace)
        self._replicas = int(found["spec"].get("replicas", 1))
        self._scale(0)

    def prove(self) -> Proof:
        eventually(
            lambda: [
                pod["metadata"]["name"]
                for pod in self._kube.list("Pod", self._namespace, labels=self._pod_labels)
            ],
            accept=lambda pods: not pods,
            within_s=_GRACE_S + 15.0,
            what=f"no pod of Deployment {self.target}",
            successes=1,
        )
        return Proof(f"Deployment {self.target} has no pod", {"replicas_before": self._replicas})

    def undo(self) -> None:
        """Bring it back and wait until it is available again: the next scenario needs it."""
        if self._replicas:
            self._scale(self._replicas)
            eventually(
                lambda: self._kube.get("apps/v1/Deployment", self.target, self._namespace)[
                    "status"
                ],
                accept=lambda status: status.get("availableReplicas", 0) >= self._replicas,
                within_s=120.0,
                what=f"Deployment {self.target} to be available again",
                successes=1,
            )

    def _scale(self, replicas: int) -> None:
        patch = {"spec": {"replicas": replicas}}
        self._kube.patch("apps/v1/Deployment", self.target, self._namespace, patch)
