"""Status of a PostgresCluster: conditions, instances, and the patch that brings it up to date."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.local.operator.desired import Cluster
from pytest_pgo_eks.local.operator.observe import Instance, Observed

# What PGO shows of an exporter that is not enabled; it is always there.
EXPORTER_REVISION = "559c4c97d6"


def set_condition(cluster: Cluster, kind: str, status: str, reason: str, message: str) -> None:
    """Set a condition; its transition time moves only with its status."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions: list[Obj] = cluster.status.setdefault("conditions", [])
    fresh = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": cluster.generation,
    }
    for condition in conditions:
        if condition["type"] == kind:
            if condition.get("status") != status:
                condition["lastTransitionTime"] = now
            condition.update(fresh)
            return
    conditions.append(fresh | {"lastTransitionTime": now})


def remove_condition(cluster: Cluster, kind: str) -> None:
    if "conditions" in cluster.status:
        cluster.status["conditions"] = [
            c for c in cluster.status["conditions"] if c["type"] != kind
        ]


def condition_is(cluster: Cluster, kind: str, status: str) -> bool:
    found = cluster.status.get("conditions") or []
    return any(c["type"] == kind and c["status"] == status for c in found)


def instance_statuses(cluster: Cluster, observed: Observed) -> list[Obj]:
    """Return the counts of each declared set; a zero is left out, as PGO leaves it out."""
    found = []
    for each in cluster.instance_sets:
        instances = observed.of_set(each["name"])
        counts = {
            "replicas": sum(len(i.pods) for i in instances),
            "readyReplicas": sum(1 for i in instances if i.ready),
            "updatedReplicas": sum(1 for i in instances if _is_updated(i)),
        }
        found.append({"name": each["name"]} | {k: v for k, v in counts.items() if v})
    return found


def _is_updated(instance: Instance) -> bool:
    return bool(instance.current)


def difference(before: Any, after: Any) -> Any:
    """Return the JSON merge patch from one status to the other, None where they are equal."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return None if before == after else after
    patch: Obj = {name: None for name in before if name not in after}
    for name, value in after.items():
        if name not in before:
            patch[name] = value
        elif before[name] != value:
            patch[name] = difference(before[name], value)
    return patch or None
