"""Taint eviction: pods that do not tolerate a node's NoExecute taint have to go, in time."""

from __future__ import annotations

import time

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.clock import stamp
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.node_rules import leave_at
from pytest_pgo_eks.local.controllers.pods import is_terminal, is_terminating, node_of
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import NODE, POD, Obj, key

_SOURCE = "taint-eviction-controller"


class TaintEviction:
    """Deletes pods from tainted nodes when the time they tolerate the taint is over."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._nodes = context.of(NODE)
        self._pods = context.of(POD)
        self._marked: set[str] = set()  # UIDs of pods with an eviction ahead
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("taint-eviction", self._sync)
        self._nodes.listen(self._node_changed)
        self._pods.listen(self._pod_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _node_changed(self, change: Change) -> None:
        if change.old and change.new and _taints(change.old) == _taints(change.new):
            return
        name = change.obj["metadata"]["name"]
        for pod in self._pods:
            if node_of(pod) == name:
                self._queue.add(key(pod))

    def _pod_changed(self, change: Change) -> None:
        pod = change.obj
        if change.new is None:
            self._marked.discard(pod["metadata"]["uid"])
        elif node_of(pod) and (
            change.old is None
            or not node_of(change.old)
            or change.old["spec"].get("tolerations") != pod["spec"].get("tolerations")
        ):
            self._queue.add(key(pod))

    async def _sync(self, where: tuple[str, str]) -> float | None:
        pod = self._pods.get(where[1], where[0])
        node = self._nodes.get(node_of(pod)) if pod else None
        if pod is None or node is None or is_terminating(pod):
            return None
        uid, name = pod["metadata"]["uid"], f"{where[0]}/{where[1]}"
        moment = leave_at(pod, node, self._context.config.eviction_s)
        if moment is None:
            if uid in self._marked:
                self._marked.discard(uid)
                self._say(pod, f"Cancelling deletion of Pod {name}")
            return None
        left_s = moment - time.time()
        if left_s > 0:
            self._marked.add(uid)
            return left_s
        self._marked.discard(uid)
        self._say(pod, f"Marking for deletion Pod {name}")
        if not is_terminal(pod):
            message = "Taint manager: deleting due to NoExecute taint"
            await mark_disrupted(self._context, pod, "DeletionByTaintManager", message)
        await self._context.delete(POD, pod)
        return None

    def _say(self, pod: Obj, message: str) -> None:
        self._context.recorder.event(pod, "TaintManagerEviction", message, source=_SOURCE)


async def mark_disrupted(
    context: Context, pod: Obj, reason: str, message: str, *, phase: str | None = None
) -> None:
    """Write down, before a pod is removed by force, that it did not end by itself."""
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": stamp(),
    }
    status: Obj = {"conditions": [condition]}
    if phase:
        status["phase"] = phase
    namespace, name = key(pod)
    try:
        answer = await context.client.patch(
            POD, name, namespace, {"status": status}, type="strategic", sub="status"
        )
    except ApiError as error:
        if error.code != 404:
            raise
    else:
        context.of(POD).learn(answer)


def _taints(node: Obj) -> object:
    return node["spec"].get("taints") or []
