"""What a StatefulSet needs next, decided without I/O.

The order of the steps is that of the real controller: make or wait for the wanted ordinals from
the lowest, then remove the surplus from the highest, then update from the highest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_pgo_eks.local.controllers.pods import (
    available_in,
    is_running_and_ready,
    is_terminal,
    is_terminating,
)
from pytest_pgo_eks.local.objects import Obj, labels_of

REVISION_LABEL = "controller-revision-hash"
NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"


@dataclass(frozen=True)
class Plan:
    """The next steps. ``create`` maps an ordinal to the revision its pod gets."""

    create: Mapping[int, str] = field(default_factory=dict)
    delete: tuple[Obj, ...] = ()
    recreate: tuple[Obj, ...] = ()  # ended by themselves: removed, to be made again
    look_again_s: float | None = None


def ordinal_of(name: str, set_name: str) -> int | None:
    """Return the ordinal of a pod of this set by its name; None for any other name."""
    parent, _, number = name.rpartition("-")
    return int(number) if parent == set_name and number.isdecimal() else None


def revision_of(pod: Obj) -> str:
    return labels_of(pod).get(REVISION_LABEL, "")


def wanted_ordinals(owner: Obj) -> range:
    start = (owner["spec"].get("ordinals") or {}).get("start", 0)
    return range(start, start + owner["spec"].get("replicas", 1))


def plan(owner: Obj, pods: Sequence[Obj], current: str, update: str) -> Plan:
    """Return the next steps for the set's pods; ``current`` and ``update`` are revision names."""
    name = owner["metadata"]["name"]
    by_ordinal = {ordinal_of(p["metadata"]["name"], name): p for p in pods}
    ordinals = wanted_ordinals(owner)
    in_order = owner["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady"
    min_ready_s = owner["spec"].get("minReadySeconds", 0)
    create: dict[int, str] = {}
    recreate: list[Obj] = []
    look_again: list[float] = []
    for ordinal in ordinals:
        pod = by_ordinal.get(ordinal)
        if pod is None:
            create[ordinal] = _revision_for(owner, ordinal, current, update)
            if in_order:
                return Plan(create=create)
            continue
        if is_terminal(pod) and not is_terminating(pod):
            recreate.append(pod)
            if in_order:
                return Plan(recreate=tuple(recreate))
            continue
        if not in_order:
            continue
        if is_terminating(pod) or not is_running_and_ready(pod):
            return Plan()
        wait_s = available_in(pod, min_ready_s)
        if wait_s:
            return Plan(look_again_s=wait_s)
    surplus = [
        by_ordinal[o]
        for o in sorted(
            (o for o in by_ordinal if o is not None and o not in ordinals), reverse=True
        )
    ]
    if surplus:
        delete = _surplus_step(surplus, in_order=in_order)
        return Plan(create, tuple(delete), tuple(recreate))
    if create or recreate:
        return Plan(create=create, recreate=tuple(recreate))
    outdated, wait_s = _outdated(owner, by_ordinal, ordinals, update, min_ready_s)
    look_again += [wait_s] if wait_s else []
    return Plan(delete=tuple(outdated), look_again_s=min(look_again, default=None))


def _surplus_step(surplus: Sequence[Obj], *, in_order: bool) -> list[Obj]:
    if not in_order:
        return [pod for pod in surplus if not is_terminating(pod)]
    # Of several unhealthy pods only the one of the lowest ordinal may go: the rest waits for it.
    unhealthy = [pod for pod in surplus if not is_running_and_ready(pod)]
    highest = surplus[0]
    if is_terminating(highest):
        return []
    if not is_running_and_ready(highest) and highest is not unhealthy[-1]:
        return []
    return [highest]


def _outdated(
    owner: Obj,
    by_ordinal: Mapping[int | None, Obj],
    ordinals: range,
    update: str,
    min_ready_s: float,
) -> tuple[list[Obj], float | None]:
    """Return the pods a rolling update removes now, and when to look again."""
    strategy = owner["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return [], None
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    for ordinal in reversed(ordinals):
        if ordinal < ordinals.start + partition:
            break
        pod = by_ordinal[ordinal]
        if revision_of(pod) != update and not is_terminating(pod):
            return [pod], None
        if is_terminating(pod) or not is_running_and_ready(pod):
            return [], None
        wait_s = available_in(pod, min_ready_s)
        if wait_s:
            return [], wait_s
    return [], None


def _revision_for(owner: Obj, ordinal: int, current: str, update: str) -> str:
    strategy = owner["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return update
    start = wanted_ordinals(owner).start
    rolling = strategy.get("rollingUpdate")
    status = owner.get("status") or {}
    kept = status.get("currentReplicas", 0) if rolling is None else rolling.get("partition") or 0
    return current if ordinal < start + kept else update


def status_of(
    owner: Obj, pods: Sequence[Obj], current: str, update: str, collisions: int
) -> tuple[Obj, float | None]:
    """Return the set's status for its pods, and in how many seconds it changes by itself."""
    min_ready_s = owner["spec"].get("minReadySeconds", 0)
    ready = [p for p in pods if is_running_and_ready(p)]
    waits = [available_in(p, min_ready_s) for p in ready]
    kept = [p for p in pods if not is_terminating(p)]
    counts = {
        "replicas": len(pods),
        "readyReplicas": len(ready),
        "currentReplicas": sum(revision_of(p) == current for p in kept),
        "updatedReplicas": sum(revision_of(p) == update for p in kept),
    }
    strategy = owner["spec"].get("updateStrategy") or {}
    if (
        strategy.get("type", "RollingUpdate") == "RollingUpdate"
        and counts["updatedReplicas"] == counts["replicas"] == counts["readyReplicas"]
        and counts["replicas"] == len(wanted_ordinals(owner))
    ):
        current = update
        counts["currentReplicas"] = counts["updatedReplicas"]
    status: Obj = {name: n for name, n in counts.items() if n or name == "replicas"}
    status |= {
        "observedGeneration": owner["metadata"].get("generation", 1),
        "availableReplicas": sum(wait == 0 for wait in waits),
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": collisions,
    }
    return status, min((w for w in waits if w), default=None)
