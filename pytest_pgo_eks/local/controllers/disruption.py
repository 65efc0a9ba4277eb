"""The disruption controller: how many pods each PodDisruptionBudget lets go."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pytest_pgo_eks.local.controllers.clock import epoch, stamp
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.merging import set_condition
from pytest_pgo_eks.local.controllers.pods import is_ready, is_terminal, is_terminating
from pytest_pgo_eks.local.controllers.quantities import int_or_percent
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    POD,
    REPLICA_SET,
    STATEFUL_SET,
    Obj,
    key,
    labels_of,
    matches,
)

# An eviction that removed no pod within this time is forgotten (the real controller's 2 minutes).
_FORGOTTEN_S = 120.0


class DisruptionBudgets:
    """Keeps the status that the eviction subresource of the API server goes by."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._budgets = context.of(DISRUPTION_BUDGET)
        self._pods = context.of(POD)
        self._scaled = {
            "StatefulSet": context.of(STATEFUL_SET),
            "ReplicaSet": context.of(REPLICA_SET),
            "Deployment": context.of(DEPLOYMENT),
        }
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("disruption", self._sync)
        self._budgets.listen(lambda change: self._queue.add(key(change.obj)))
        self._pods.listen(self._pod_changed)
        for informer in self._scaled.values():
            informer.listen(self._scale_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _pod_changed(self, change: Change) -> None:
        if change.old and change.new and _facts(change.old) == _facts(change.new):
            return
        states = [pod for pod in (change.old, change.new) if pod]
        for budget in self._budgets.within(key(change.obj)[0]):
            if any(matches(budget["spec"].get("selector"), labels_of(pod)) for pod in states):
                self._queue.add(key(budget))

    def _scale_changed(self, change: Change) -> None:
        sizes = [o["spec"].get("replicas") for o in (change.old, change.new) if o]
        if len(sizes) == 1 or sizes[0] != sizes[1]:
            for budget in self._budgets.within(key(change.obj)[0]):
                self._queue.add(key(budget))

    async def _sync(self, where: tuple[str, str]) -> float | None:
        budget = self._budgets.get(where[1], where[0])
        if budget is None or is_terminating(budget):
            return None
        pods = [
            pod
            for pod in self._pods.within(where[0])
            if matches(budget["spec"].get("selector"), labels_of(pod)) and not is_terminal(pod)
        ]
        if not pods:
            what = "No matching pods found"
            self._context.recorder.event(budget, "NoPods", what, source="controllermanager")
        status, wait_s = status_of(budget, pods, self._expected(pods))
        # The eviction subresource writes here too: whoever comes second looks again.
        await self._context.set_status(DISRUPTION_BUDGET, budget, status, strict=True)
        return wait_s

    def _expected(self, pods: Sequence[Obj]) -> int:
        """Return how many pods the pods' controllers want, each controller counted once."""
        sizes: dict[str, int] = {}
        for pod in pods:
            namespace = pod["metadata"]["namespace"]
            owner = _controller(pod)
            found = self._look_up(owner, namespace)
            if found is not None and owner is not None and owner["kind"] == "ReplicaSet":
                above = _controller(found)
                deployment = self._look_up(above, namespace)
                found = deployment or found
            if found is None:
                sizes[pod["metadata"]["uid"]] = 1
            else:
                size = found["spec"].get("replicas")
                sizes[found["metadata"]["uid"]] = 1 if size is None else size
        return sum(sizes.values())

    def _look_up(self, reference: Obj | None, namespace: str) -> Obj | None:
        if reference is None or reference["kind"] not in self._scaled:
            return None
        found = self._scaled[reference["kind"]].get(reference["name"], namespace)
        return found if found and found["metadata"]["uid"] == reference["uid"] else None


def status_of(budget: Obj, pods: Sequence[Obj], scale: int) -> tuple[Obj, float | None]:
    """Return the budget's status for its pods, and when an eviction under way is forgotten.

    ``scale`` is how many pods their controllers want: percentages and maxUnavailable count from it.
    """
    spec = budget["spec"]
    known = budget.get("status") or {}
    disrupted, wait_s = _still_disrupted(known.get("disruptedPods") or {}, pods)
    expected, desired = len(pods), 0
    if spec.get("maxUnavailable") is not None:
        expected = scale
        unavailable = int_or_percent(spec["maxUnavailable"], scale, round_up=True)
        desired = max(0, scale - unavailable)
    elif spec.get("minAvailable") is not None:
        if isinstance(spec["minAvailable"], str):
            expected = scale
        desired = int_or_percent(spec["minAvailable"], scale, round_up=True)
    healthy = sum(
        is_ready(pod) and not is_terminating(pod) and pod["metadata"]["name"] not in disrupted
        for pod in pods
    )
    allowed = max(0, healthy - desired) if expected > 0 else 0
    generation = budget["metadata"].get("generation", 1)
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
        "observedGeneration": generation,
    }
    status: Obj = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "observedGeneration": generation,
        "conditions": set_condition(known.get("conditions") or [], condition, stamp()),
    }
    if disrupted:
        status["disruptedPods"] = disrupted
    return status, wait_s


def _still_disrupted(
    disrupted: dict[str, str], pods: Sequence[Obj]
) -> tuple[dict[str, str], float | None]:
    """Return the evictions granted whose pods are still there and not yet being deleted."""
    present = {p["metadata"]["name"] for p in pods if not is_terminating(p)}
    left = {
        name: epoch(since) + _FORGOTTEN_S - time.time()
        for name, since in disrupted.items()
        if name in present
    }
    kept = {name: disrupted[name] for name, left_s in left.items() if left_s > 0}
    return kept, min((left[name] for name in kept), default=None)


def _controller(obj: Obj) -> Obj | None:
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            found: Obj = reference
            return found
    return None


def _facts(pod: Obj) -> tuple[object, ...]:
    return labels_of(pod), is_ready(pod), is_terminal(pod), is_terminating(pod)
