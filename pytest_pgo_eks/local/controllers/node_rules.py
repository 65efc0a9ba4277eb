"""Which taints a node's conditions call for, and when a pod must leave: decided without I/O."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_pgo_eks.local.controllers.clock import epoch
from pytest_pgo_eks.local.controllers.merging import condition_of
from pytest_pgo_eks.local.controllers.node_matching import toleration_covers
from pytest_pgo_eks.local.objects import Obj

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_KUBELETS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_MANAGED = {NOT_READY, UNREACHABLE, _UNSCHEDULABLE, *_PRESSURES.values()}


def ready_status(node: Obj) -> str:
    """Return the status of the node's Ready condition; Unknown when it has none."""
    condition = condition_of(node, "Ready")
    return condition["status"] if condition else "Unknown"


def wanted_taints(node: Obj, *, evict: bool, now: str) -> list[Obj]:
    """Return the node's taints as its conditions want them; others' taints are kept.

    ``evict`` False leaves out NoExecute taints: when no node is reachable, it is rather this
    controller that is cut off, and nobody should be evicted.
    """
    present = node["spec"].get("taints") or []
    kept = [taint for taint in present if taint["key"] not in _MANAGED]
    wanted: list[tuple[str, str]] = []
    ready = ready_status(node)
    if ready != "True":
        name = UNREACHABLE if ready == "Unknown" and condition_of(node, "Ready") else NOT_READY
        wanted.append((name, "NoSchedule"))
        if evict:
            wanted.append((name, "NoExecute"))
    if node["spec"].get("unschedulable"):
        wanted.append((_UNSCHEDULABLE, "NoSchedule"))
    for kind, name in _PRESSURES.items():
        condition = condition_of(node, kind)
        if condition and condition["status"] == "True":
            wanted.append((name, "NoSchedule"))
    taints = list(kept)
    for name, effect in wanted:
        known = [t for t in present if (t["key"], t["effect"]) == (name, effect)]
        taint: Obj = {"key": name, "effect": effect}
        if effect == "NoExecute" or name == _UNSCHEDULABLE:
            taint["timeAdded"] = now
        taints.append(known[0] if known else taint)
    return taints


def same_taints(one: Iterable[Obj], other: Iterable[Obj]) -> bool:
    def facts(taints: Iterable[Obj]) -> set[tuple[str, str, str]]:
        return {(t["key"], t.get("value") or "", t["effect"]) for t in taints}

    return facts(one) == facts(other)


def silent_conditions(node: Obj, now: str) -> list[Obj]:
    """Return the conditions of a node whose kubelet has fallen silent."""
    conditions = []
    for known in (node.get("status") or {}).get("conditions") or []:
        if known["type"] in _KUBELETS and known["status"] != "Unknown":
            silent = {
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastTransitionTime": now,
            }
            conditions.append(known | silent)
        else:
            conditions.append(known)
    return conditions


def leave_at(pod: Obj, node: Obj, default_s: float) -> float | None:
    """Return when (epoch seconds) a NoExecute taint of its node evicts the pod; None for never.

    A pod without any toleration for an unready node stays ``default_s``: what the API server's
    admission would have written into it.
    """
    times: list[float] = []
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] != "NoExecute":
            continue
        since = epoch(taint.get("timeAdded"))
        tolerations = pod["spec"].get("tolerations") or []
        # The first that covers the taint counts, whatever others say: so the real one has it.
        covering = next((t for t in tolerations if toleration_covers(t, taint)), None)
        if covering is None:
            ours = taint["key"] in (NOT_READY, UNREACHABLE)
            times.append(since + default_s if ours else 0.0)
        elif covering.get("tolerationSeconds") is not None:
            times.append(since + max(0, covering["tolerationSeconds"]))
    return min(times, default=None)
