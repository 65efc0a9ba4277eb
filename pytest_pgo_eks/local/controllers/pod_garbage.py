"""Pods that no kubelet will ever remove: their node is gone, or they never had one."""

from __future__ import annotations

import asyncio

from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.node_rules import OUT_OF_SERVICE, ready_status
from pytest_pgo_eks.local.controllers.pods import is_terminal, is_terminating, node_of
from pytest_pgo_eks.local.controllers.taint_eviction import mark_disrupted
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import NODE, POD, Obj, key


class PodGarbage:
    """Removes by force the pods of nodes that do not exist and deleted pods without a node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._nodes = context.of(NODE)
        self._pods = context.of(POD)
        self._missing_since: dict[str, float] = {}  # node name -> loop time
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("pod-garbage", self._sync)
        self._nodes.listen(self._node_changed)
        self._pods.listen(self._pod_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _node_changed(self, change: Change) -> None:
        name = change.obj["metadata"]["name"]
        if change.new is not None:
            self._missing_since.pop(name, None)
        if change.new is None or _out_of_service(change.new):
            for pod in self._pods:
                if node_of(pod) == name:
                    self._queue.add(key(pod))

    def _pod_changed(self, change: Change) -> None:
        pod = change.new
        if pod is None:
            return
        if not node_of(pod):
            if is_terminating(pod):
                self._queue.add(key(pod))
        elif self._nodes.get(node_of(pod)) is None or is_terminating(pod):
            self._queue.add(key(pod))

    async def _sync(self, where: tuple[str, str]) -> float | None:
        pod = self._pods.get(where[1], where[0])
        if pod is None:
            return None
        if not node_of(pod):
            if is_terminating(pod):
                await self._remove(pod, "DeletionOfUnscheduledPod", "PodGC: unscheduled pod")
            return None
        node = self._nodes.get(node_of(pod))
        if node is not None:
            if is_terminating(pod) and _out_of_service(node) and ready_status(node) != "True":
                message = "PodGC: node is out of service"
                await self._remove(pod, "DeletionByPodGC", message)
            return None
        now = asyncio.get_running_loop().time()
        since = self._missing_since.setdefault(node_of(pod), now)
        left_s = since + self._context.config.orphan_grace_s - now
        if left_s > 0:
            return left_s
        # The cache may be behind: only the API server's word removes a pod.
        if await self._context.client.find(NODE, node_of(pod)) is None:
            await self._remove(pod, "DeletionByPodGC", "PodGC: node no longer exists")
        return None

    async def _remove(self, pod: Obj, reason: str, message: str) -> None:
        if not is_terminal(pod):
            await mark_disrupted(self._context, pod, reason, message, phase="Failed")
        await self._context.delete(POD, pod, grace_s=0)


def _out_of_service(node: Obj) -> bool:
    return any(taint["key"] == OUT_OF_SERVICE for taint in node["spec"].get("taints") or [])
