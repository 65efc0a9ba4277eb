"""A node that is drained: cordoned, and every pod of ours on it evicted."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, NotFound
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.wait import eventually

# A disruption budget may hold an eviction up until a replica is ready again.
_EVICT_S = 90.0
_BUDGET = 429


class NodeDrained:
    """A node cordoned and its pods in one namespace evicted; proven by their UIDs being gone.

    ``labels`` limits which pods are evicted. Undo uncordons, and what could be placed nowhere
    else comes back.
    """

    kind = "node-drained"

    def __init__(self, kube: Kube, node: str, namespace: str, labels: Mapping[str, str]) -> None:
        self.target = node
        self._kube = kube
        self._namespace = namespace
        self._labels = dict(labels)
        self._evicted: dict[str, str] = {}
        self._held = 0
        self._cordoned = False

    def inject(self) -> None:
        self._cordoned = True
        self._kube.patch("Node", self.target, None, {"spec": {"unschedulable": True}})
        self._evicted = self._here()
        left = dict(self._evicted)

        def evict() -> dict[str, str]:
            for uid, name in list(left.items()):
                if self._evict(name, uid):
                    del left[uid]
            return left

        eventually(
            evict,
            accept=lambda waiting: not waiting,
            within_s=_EVICT_S,
            what=f"the disruption budgets to let every pod of {self.target} go",
            successes=1,
            show=lambda waiting: ", ".join(waiting.values()),
        )

    def prove(self) -> Proof:
        eventually(
            lambda: self._evicted.keys() & self._here().keys(),
            accept=lambda still: not still,
            within_s=_EVICT_S,
            what=f"the evicted pods of {self.target} to be gone",
            successes=1,
            show=lambda still: ", ".join(self._evicted[uid] for uid in still),
        )
        if not self._evicted:
            raise TimeoutError(f"no pod was on {self.target}")
        return Proof(
            f"{self.target} is cordoned and {', '.join(sorted(self._evicted.values()))} left it",
            {"evicted": len(self._evicted), "held_by_budget": self._held},
        )

    def undo(self) -> None:
        if self._cordoned:
            self._kube.patch("Node", self.target, None, {"spec": {"unschedulable": None}})

    def _here(self) -> dict[str, str]:
        """Return the pods that run on the node, name by UID."""
        pods = self._kube.list("Pod", self._namespace, labels=self._labels)
        return {
            pod["metadata"]["uid"]: pod["metadata"]["name"]
            for pod in pods
            if pod["spec"].get("nodeName") == self.target
            and pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
        }

    def _evict(self, name: str, uid: str) -> bool:
        """Ask for one eviction; say whether it was granted."""
        eviction: dict[str, Any] = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": self._namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        path = f"/api/v1/namespaces/{self._namespace}/pods/{name}/eviction"
        try:
            with contextlib.suppress(NotFound):
                self._kube.raw("POST", path, eviction)
        except ApiProblem as problem:
            if problem.status != _BUDGET:
                raise
            self._held += 1
            return False
        return True
