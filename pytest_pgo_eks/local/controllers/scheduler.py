"""The scheduler: binds pods to nodes."""

from __future__ import annotations

import logging

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.clock import stamp
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.merging import condition_of
from pytest_pgo_eks.local.controllers.node_matching import NodeState
from pytest_pgo_eks.local.controllers.pods import claims_of, is_terminal, is_terminating, node_of
from pytest_pgo_eks.local.controllers.scheduling_rules import Decision, decide
from pytest_pgo_eks.local.controllers.scheduling_volumes import (
    SELECTED_NODE,
    PodVolumes,
    volume_fits,
)
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import (
    CLAIM,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    POD,
    STORAGE_CLASS,
    Obj,
    annotations_of,
    key,
    labels_of,
)

log = logging.getLogger(__name__)
_SOURCE = "default-scheduler"
Key = tuple[str, str]


class Scheduler:
    """Decides one pod at a time; a decision counts at once, before the API shows it.

    A pod that fits nowhere is looked at again when a node, a volume or another pod changes in a
    way that could matter, never by a timer.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pods = context.of(POD)
        self._nodes = context.of(NODE)
        self._claims = context.of(CLAIM)
        self._volumes = context.of(PERSISTENT_VOLUME)
        self._classes = context.of(STORAGE_CLASS)
        self._namespaces = context.of(NAMESPACE)
        self._queue: WorkQueue[Key] = WorkQueue("scheduler", self._schedule)
        self._assumed: dict[str, str] = {}  # pod UID -> node chosen, not yet seen in the cache
        self._refused: dict[Key, str] = {}  # pods that fit nowhere -> what was said about it
        self._pods.listen(self._pod_changed)
        self._nodes.listen(self._node_changed)
        self._claims.listen(self._claim_changed)
        self._volumes.listen(lambda _: self._try_again())
        self._classes.listen(lambda _: self._try_again())

    async def run(self) -> None:
        await self._queue.run()

    def _pod_changed(self, change: Change) -> None:
        pod = change.obj
        if change.new is None or node_of(pod):
            self._assumed.pop(pod["metadata"]["uid"], None)
            self._refused.pop(key(pod), None)
        if change.new is None or is_terminal(pod) or (node_of(pod) and not _bound(change.old)):
            self._try_again()  # it left room, or it is there for others to be near
        elif not node_of(pod) and (change.old is None or _asks_anew(change.old, pod)):
            self._queue.add(key(pod))

    def _node_changed(self, change: Change) -> None:
        if change.old is None or change.new is None or _facts(change.old) != _facts(change.new):
            self._try_again()

    def _claim_changed(self, change: Change) -> None:
        namespace, name = key(change.obj)
        for pod in self._pods.within(namespace):
            if not node_of(pod) and name in claims_of(pod):
                self._queue.add(key(pod))

    def _try_again(self) -> None:
        for waiting in self._refused:
            self._queue.add(waiting)

    async def _schedule(self, where: Key) -> None:
        namespace, name = where
        pod = self._pods.get(name, namespace)
        if pod is None or node_of(pod) or is_terminating(pod) or is_terminal(pod):
            self._refused.pop(where, None)
            return
        if pod["spec"].get("schedulerName", _SOURCE) != _SOURCE:
            return
        uid = pod["metadata"]["uid"]
        if pod["spec"].get("schedulingGates"):
            await self._say(
                pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"
            )
            return
        volumes = PodVolumes.of(
            pod,
            lambda claim: self._claims.get(claim, namespace),
            self._volumes.get,
            self._classes.get,
        )
        node = self._assumed.get(uid)
        if node is None or volumes.problem:
            decision = self._decide(pod, volumes)
            if decision.node is None:
                self._assumed.pop(uid, None)
                await self._refuse(pod, decision.message)
                return
            node = self._assumed[uid] = decision.node
        if volumes.waiting:
            await self._select_node(volumes, node)
            return  # each claim's change brings the pod back
        state = self._nodes.get(node)
        if state is None or not all(volume_fits(v, state) for _, v in volumes.bound):
            self._assumed.pop(uid, None)
            self._queue.add(where)
            return
        await self._bind(pod, node)

    def _decide(self, pod: Obj, volumes: PodVolumes) -> Decision:
        nodes = {node["metadata"]["name"]: NodeState(node) for node in self._nodes}
        if volumes.problem:
            return Decision(None, f"0/{len(nodes)} nodes are available: {volumes.problem}")
        for other in self._pods:
            there = node_of(other) or self._assumed.get(other["metadata"]["uid"], "")
            if there in nodes and not is_terminal(other):
                nodes[there].pods.append(other)
        namespaces = {n["metadata"]["name"]: labels_of(n) for n in self._namespaces}
        return decide(pod, list(nodes.values()), volumes.refuse, namespaces)

    async def _select_node(self, volumes: PodVolumes, node: str) -> None:
        for claim, _ in volumes.waiting:
            if annotations_of(claim).get(SELECTED_NODE) != node:
                patch = {"metadata": {"annotations": {SELECTED_NODE: node}}}
                await self._context.patch(CLAIM, claim, patch)

    async def _bind(self, pod: Obj, node: str) -> None:
        namespace, name = key(pod)
        uid = pod["metadata"]["uid"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._context.client.create(POD, binding, namespace, sub="binding")
        except ApiError:
            # Gone, bound by another scheduler, or the API is away: decide anew when it is back.
            self._assumed.pop(uid, None)
            raise
        self._refused.pop((namespace, name), None)
        message = f"Successfully assigned {namespace}/{name} to {node}"
        self._context.recorder.event(pod, "Scheduled", message, source=_SOURCE)

    async def _refuse(self, pod: Obj, message: str) -> None:
        if self._refused.get(key(pod)) != message:
            self._refused[key(pod)] = message
            self._context.recorder.event(
                pod, "FailedScheduling", message, source=_SOURCE, warning=True
            )
            await self._say(pod, "Unschedulable", message)

    async def _say(self, pod: Obj, reason: str, message: str) -> None:
        known = condition_of(pod, "PodScheduled")
        if known and (known.get("reason"), known.get("message")) == (reason, message):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": known["lastTransitionTime"] if known else stamp(),
        }
        namespace, name = key(pod)
        answer = await self._context.client.patch(
            POD,
            name,
            namespace,
            {"status": {"conditions": [condition]}},
            type="strategic",
            sub="status",
        )
        self._pods.learn(answer)


def _bound(pod: Obj | None) -> bool:
    return pod is not None and bool(node_of(pod))


def _asks_anew(old: Obj, new: Obj) -> bool:
    """Say whether the change is one that the decision depends on, not our own status write."""
    return old["spec"] != new["spec"] or labels_of(old) != labels_of(new) or is_terminating(new)


def _facts(node: Obj) -> tuple[object, ...]:
    """Return what decides about a node: a heartbeat changes none of it."""
    ready = condition_of(node, "Ready")
    return (
        node["spec"],
        labels_of(node),
        (node.get("status") or {}).get("allocatable"),
        ready and ready["status"],
    )
