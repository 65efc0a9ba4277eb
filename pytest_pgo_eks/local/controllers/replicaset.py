"""The ReplicaSet controller."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.adoption import controller_of, orphan_owners, owned
from pytest_pgo_eks.local.controllers.clock import epoch
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.merging import condition_of, without_empty
from pytest_pgo_eks.local.controllers.pods import (
    available_in,
    is_ready,
    is_terminal,
    is_terminating,
    node_of,
    phase,
    pod_from_template,
)
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import POD, REPLICA_SET, Obj, annotations_of, key, labels_of

_SOURCE = "replicaset-controller"
_MOST_AT_ONCE = 500


class ReplicaSets:
    """Keeps as many pods of each ReplicaSet as it asks for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sets = context.of(REPLICA_SET)
        self._pods = context.of(POD)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("replicaset", self._sync)
        self._sets.listen(lambda change: self._queue.add(key(change.obj)))
        self._pods.listen(self._pod_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _pod_changed(self, change: Change) -> None:
        name = controller_of(change.obj, "ReplicaSet")
        if name:
            self._queue.add((key(change.obj)[0], name))
        else:
            for owner in orphan_owners(self._context, REPLICA_SET, change.obj):
                self._queue.add(key(owner))

    async def _sync(self, where: tuple[str, str]) -> float | None:
        owner = self._sets.get(where[1], where[0])
        if owner is None:
            return None
        failure = ""
        if not is_terminating(owner):
            active = [p for p in await owned(self._context, POD, owner) if _is_active(p)]
            try:
                await self._scale(owner, active)
            except ApiError as error:
                failure = error.message
                if error.code in (0, 409):
                    raise
        pods = [p for p in self._pods.controlled_by(owner["metadata"]["uid"]) if _is_active(p)]
        status, wait_s = status_of(owner, pods, failure)
        await self._context.set_status(REPLICA_SET, owner, status)
        # What quota or policy refused may be allowed a little later; nothing tells us when.
        return 5.0 if failure else wait_s

    async def _scale(self, owner: Obj, active: Sequence[Obj]) -> None:
        wanted = owner["spec"].get("replicas", 1)
        recorder = self._context.recorder
        for _ in range(min(wanted - len(active), _MOST_AT_ONCE)):
            try:
                made = await self._context.create(
                    POD, pod_from_template(owner, owner["spec"]["template"])
                )
            except ApiError as error:
                what = f"Error creating: {error.message}"
                recorder.event(owner, "FailedCreate", what, source=_SOURCE, warning=True)
                raise
            what = f"Created pod: {made['metadata']['name']}"
            recorder.event(owner, "SuccessfulCreate", what, source=_SOURCE)
        for pod in to_remove(active, len(active) - wanted):
            if await self._context.delete(POD, pod):
                what = f"Deleted pod: {pod['metadata']['name']}"
                recorder.event(owner, "SuccessfulDelete", what, source=_SOURCE)


def to_remove(pods: Sequence[Obj], surplus: int) -> list[Obj]:
    """Return the pods that a smaller ReplicaSet gives up first: the least useful ones."""
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}
    crowd: dict[str, int] = {}
    for pod in pods:
        crowd[node_of(pod)] = crowd.get(node_of(pod), 0) + 1

    def rank(pod: Obj) -> tuple[object, ...]:
        ready = condition_of(pod, "Ready")
        since = epoch(ready.get("lastTransitionTime")) if ready and is_ready(pod) else 0.0
        cost = annotations_of(pod).get("controller.kubernetes.io/pod-deletion-cost", "0")
        return (
            bool(node_of(pod)),
            phases.get(phase(pod), 1),
            is_ready(pod),
            int(cost) if cost.lstrip("-").isdecimal() else 0,
            -crowd[node_of(pod)],
            -since,  # ready for the shortest time first
            -epoch(pod["metadata"].get("creationTimestamp")),
            pod["metadata"]["name"],
        )

    return sorted(pods, key=rank)[: max(0, surplus)]


def status_of(owner: Obj, pods: Sequence[Obj], failure: str = "") -> tuple[Obj, float | None]:
    """Return the ReplicaSet's status, and in how many seconds it changes by itself."""
    min_ready_s = owner["spec"].get("minReadySeconds", 0)
    waits = [available_in(p, min_ready_s) for p in pods]
    template = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    status = without_empty(
        {
            "fullyLabeledReplicas": sum(template.items() <= labels_of(p).items() for p in pods),
            "readyReplicas": sum(is_ready(p) for p in pods),
            "availableReplicas": sum(wait == 0 for wait in waits),
            "observedGeneration": owner["metadata"].get("generation", 1),
        }
    )
    status["replicas"] = len(pods)
    if failure:
        known = condition_of(owner, "ReplicaFailure") or {}
        condition = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": failure,
        }
        status["conditions"] = [known | condition]
    return status, min((w for w in waits if w), default=None)


def _is_active(pod: Obj) -> bool:
    return not is_terminal(pod) and not is_terminating(pod)
