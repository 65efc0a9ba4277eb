"""Node lifecycle: a node whose kubelet falls silent is marked, and with it its pods."""

from __future__ import annotations

import asyncio

from pytest_pgo_eks.local.controllers.clock import stamp
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.merging import condition_of
from pytest_pgo_eks.local.controllers.node_rules import (
    ready_status,
    same_taints,
    silent_conditions,
    wanted_taints,
)
from pytest_pgo_eks.local.controllers.pods import is_ready, is_terminal, node_of
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import LEASE, NODE, POD, Obj, key

_SOURCE = "node-controller"
_LEASES = "kube-node-lease"


class NodeLifecycle:
    """Goes by the Lease each kubelet renews (and by its status writes), not by their times.

    A node is silent when neither changed for the grace period of our own clock: clocks of nodes
    may be wrong, and a suspended machine must not wake up to find all its nodes lost.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._grace_s = context.config.node_grace_s
        self._nodes = context.of(NODE)
        self._leases = context.of(LEASE)
        self._pods = context.of(POD)
        self._heard: dict[str, float] = {}  # node -> when it last showed life (loop time)
        self._queue: WorkQueue[str] = WorkQueue("node", self._sync)
        self._nodes.listen(self._node_changed)
        self._leases.listen(self._lease_changed)
        self._pods.listen(self._pod_changed)

    async def run(self) -> None:
        now = asyncio.get_running_loop().time()
        self._heard = {node["metadata"]["name"]: now for node in self._nodes}
        await self._queue.run()

    def _node_changed(self, change: Change) -> None:
        name = change.obj["metadata"]["name"]
        if change.new is None:
            self._heard.pop(name, None)
            return
        if change.old is None or _heartbeats(change.old) != _heartbeats(change.new):
            self._heard[name] = asyncio.get_running_loop().time()
        if change.old is None:
            what = f"Node {name} event: Registered Node {name} in Controller"
            self._context.recorder.event(change.new, "RegisteredNode", what, source=_SOURCE)
        if change.old is None or _facts(change.old) != _facts(change.new):
            self._queue.add(name)
            if change.old is None or ready_status(change.old) != ready_status(change.new):
                for node in self._nodes:  # whether anybody is evicted depends on all of them
                    self._queue.add(node["metadata"]["name"])

    def _lease_changed(self, change: Change) -> None:
        namespace, name = key(change.obj)
        if namespace != _LEASES or change.new is None:
            return
        if change.old is None or change.old.get("spec") != change.new.get("spec"):
            self._heard[name] = asyncio.get_running_loop().time()

    def _pod_changed(self, change: Change) -> None:
        """A pod that turns up on a lost node is not ready either."""
        node = self._nodes.get(node_of(change.obj))
        if change.new and node and ready_status(node) == "Unknown" and is_ready(change.new):
            self._queue.add(node["metadata"]["name"])

    async def _sync(self, name: str) -> float | None:
        node = self._nodes.get(name)
        if node is None:
            return None
        now = asyncio.get_running_loop().time()
        # A kubelet renews its Lease every 10 s: one timer per grace period is all this costs.
        left_s = self._heard.setdefault(name, now) + self._grace_s - now
        if left_s <= 0 and ready_status(node) != "Unknown":
            node = await self._mark_silent(node)
        await self._taint(node)
        if ready_status(node) != "True":
            await self._mark_pods(node)
        return left_s + 0.01 if left_s > 0 else None

    async def _mark_silent(self, node: Obj) -> Obj:
        name = node["metadata"]["name"]
        patch = {"status": {"conditions": silent_conditions(node, stamp())}}
        node = await self._context.patch(NODE, node, patch, sub="status")
        what = f"Node {name} status is now: NodeNotReady"
        self._context.recorder.event(node, "NodeNotReady", what, source=_SOURCE)
        return node

    async def _taint(self, node: Obj) -> None:
        alone = not any(ready_status(other) == "True" for other in self._nodes)
        taints = wanted_taints(node, evict=not alone, now=stamp())
        if not same_taints(taints, node["spec"].get("taints") or []):
            patch = {
                "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
                "spec": {"taints": taints or None},
            }
            await self._context.patch(NODE, node, patch)

    async def _mark_pods(self, node: Obj) -> None:
        """Take the node's pods out of their Services: nobody else can say that they are not ready."""
        if ready_status(node) != "Unknown":
            return  # a kubelet that speaks looks after its pods itself
        name = node["metadata"]["name"]
        for pod in self._pods:
            if node_of(pod) != name or is_terminal(pod) or not is_ready(pod):
                continue
            known = condition_of(pod, "Ready") or {}
            condition = known | {"status": "False", "lastTransitionTime": stamp()}
            namespace, pod_name = key(pod)
            answer = await self._context.client.patch(
                POD,
                pod_name,
                namespace,
                {"status": {"conditions": [condition]}},
                type="strategic",
                sub="status",
            )
            self._pods.learn(answer)
            what = "Node is not ready"
            self._context.recorder.event(pod, "NodeNotReady", what, source=_SOURCE, warning=True)


def _heartbeats(node: Obj) -> list[object]:
    conditions = (node.get("status") or {}).get("conditions") or []
    return [(c["type"], c.get("lastHeartbeatTime"), c["status"]) for c in conditions]


def _facts(node: Obj) -> tuple[object, ...]:
    conditions = (node.get("status") or {}).get("conditions") or []
    return node["spec"], [(c["type"], c["status"]) for c in conditions]
