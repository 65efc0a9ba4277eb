"""How a Deployment moves from its old ReplicaSets to the new one: decided without I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_pgo_eks.local.controllers.clock import epoch, stamp
from pytest_pgo_eks.local.controllers.merging import condition_of, set_condition, without_empty
from pytest_pgo_eks.local.controllers.quantities import int_or_percent
from pytest_pgo_eks.local.objects import Obj, annotations_of

REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"


@dataclass(frozen=True)
class Limits:
    """How many pods beyond, and how many fewer than wanted, an update may make."""

    surge: int
    unavailable: int

    @classmethod
    def of(cls, deployment: Obj) -> Limits:
        strategy = deployment["spec"].get("strategy") or {}
        if strategy.get("type") == "Recreate":
            return cls(0, 0)
        rolling = strategy.get("rollingUpdate") or {}
        wanted = wanted_replicas(deployment)
        surge = int_or_percent(rolling.get("maxSurge", "25%"), wanted, round_up=True)
        missing = rolling.get("maxUnavailable", "25%")
        unavailable = int_or_percent(missing, wanted, round_up=False)
        if not surge and not unavailable:
            unavailable = 1  # else no update could ever begin
        return cls(surge, min(unavailable, wanted))


def wanted_replicas(deployment: Obj) -> int:
    found = deployment["spec"].get("replicas")
    return 1 if found is None else int(found)


def size_of(replica_set: Obj) -> int:
    found = replica_set["spec"].get("replicas")
    return 1 if found is None else int(found)


def available_of(replica_set: Obj) -> int:
    return int((replica_set.get("status") or {}).get("availableReplicas") or 0)


def counted(replica_sets: Sequence[Obj], field: str) -> int:
    return sum((r.get("status") or {}).get(field) or 0 for r in replica_sets)


def revision_number(obj: Obj) -> int:
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if text.isdecimal() else 0


def rolling_sizes(deployment: Obj, new: Obj, old: Sequence[Obj]) -> Mapping[str, int]:
    """Return the sizes to give now, by ReplicaSet name, where they differ: up first, then down."""
    wanted, limits = wanted_replicas(deployment), Limits.of(deployment)
    total = size_of(new) + sum(size_of(r) for r in old)
    if size_of(new) > wanted:
        return {new["metadata"]["name"]: wanted}
    if size_of(new) < wanted:
        room = wanted + limits.surge - total
        if room > 0:
            return {new["metadata"]["name"]: size_of(new) + min(room, wanted - size_of(new))}
    return _shrink_old(wanted, limits, new, old)


def _shrink_old(wanted: int, limits: Limits, new: Obj, old: Sequence[Obj]) -> dict[str, int]:
    """Take away from the old sets what availability allows, their unavailable pods first."""
    total = size_of(new) + sum(size_of(r) for r in old)
    least = wanted - limits.unavailable
    new_unavailable = size_of(new) - available_of(new)
    budget = total - least - new_unavailable
    sizes = {r["metadata"]["name"]: size_of(r) for r in old}
    if budget <= 0:
        return {}
    changed: dict[str, int] = {}
    oldest_first = sorted(old, key=revision_number)
    for replica_set in oldest_first:
        name = replica_set["metadata"]["name"]
        useless = min(sizes[name] - min(available_of(replica_set), sizes[name]), budget)
        if useless > 0:
            sizes[name] -= useless
            changed[name] = sizes[name]
            budget -= useless
    # Only what is available beyond the minimum may go now.
    spare = available_of(new) + sum(available_of(r) for r in old) - least
    for replica_set in oldest_first:
        name = replica_set["metadata"]["name"]
        give = min(sizes[name], spare, budget)
        if give > 0:
            sizes[name] -= give
            changed[name] = sizes[name]
            spare -= give
            budget -= give
    return changed


def status_of(
    deployment: Obj, new: Obj | None, all_sets: Sequence[Obj], *, failure: str = ""
) -> tuple[Obj, float | None]:
    """Return the Deployment's status, and when its progress deadline ends (seconds)."""
    wanted = wanted_replicas(deployment)
    mine = [new] if new else []
    counts = {
        "replicas": counted(all_sets, "replicas"),
        "updatedReplicas": counted(mine, "replicas"),
        "readyReplicas": counted(all_sets, "readyReplicas"),
        "availableReplicas": counted(all_sets, "availableReplicas"),
    }
    total = sum(size_of(r) for r in all_sets)
    status = without_empty(
        counts
        | {
            "unavailableReplicas": max(0, total - counts["availableReplicas"]),
            "observedGeneration": deployment["metadata"].get("generation", 1),
            "collisionCount": (deployment.get("status") or {}).get("collisionCount"),
        }
    )
    conditions, wait_s = _conditions(deployment, new, counts, wanted, failure)
    status["conditions"] = conditions
    return status, wait_s


def _conditions(
    deployment: Obj, new: Obj | None, counts: Mapping[str, int], wanted: int, failure: str
) -> tuple[list[Obj], float | None]:
    now = stamp()
    known: list[Obj] = (deployment.get("status") or {}).get("conditions") or []
    least = wanted - Limits.of(deployment).unavailable
    enough = counts["availableReplicas"] >= least
    available = {
        "type": "Available",
        "status": "True" if enough else "False",
        "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "message": "Deployment has minimum availability."
        if enough
        else "Deployment does not have minimum availability.",
    }
    conditions = _put(known, available, now)
    progressing, wait_s = _progress(deployment, new, counts, wanted)
    if progressing:
        conditions = _put(conditions, progressing, now)
    conditions = [c for c in conditions if c["type"] != "ReplicaFailure" or failure]
    if failure:
        refused = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": failure,
        }
        conditions = _put(conditions, refused, now)
    return conditions, wait_s


def _progress(
    deployment: Obj, new: Obj | None, counts: Mapping[str, int], wanted: int
) -> tuple[Obj | None, float | None]:
    deadline_s = deployment["spec"].get("progressDeadlineSeconds")
    if deadline_s is None or deadline_s >= 2**31 - 1:
        return None, None
    known = condition_of(deployment, "Progressing") or {}
    name = new["metadata"]["name"] if new else ""
    complete = (
        new is not None
        and counts["updatedReplicas"] == counts["replicas"] == wanted
        and counts["availableReplicas"] == wanted
        and (deployment.get("status") or {}).get("observedGeneration", 0)
        <= deployment["metadata"].get("generation", 1)
    )
    if complete:
        what = f'ReplicaSet "{name}" has successfully progressed.'
        return _progressing("True", "NewReplicaSetAvailable", what), None
    if deployment["spec"].get("paused"):
        return _progressing("Unknown", "DeploymentPaused", "Deployment is paused"), None
    before = deployment.get("status") or {}
    moved = (
        counts["updatedReplicas"] > (before.get("updatedReplicas") or 0)
        or counts["readyReplicas"] > (before.get("readyReplicas") or 0)
        or counts["availableReplicas"] > (before.get("availableReplicas") or 0)
        or counts["replicas"] - counts["updatedReplicas"]
        < (before.get("replicas") or 0) - (before.get("updatedReplicas") or 0)
    )
    if known.get("reason") == "NewReplicaSetAvailable":
        # Complete once; pods that die later start no new deadline.
        if name and f'"{name}"' in known.get("message", ""):
            return None, None
        moved = True
    if moved or not known or known.get("reason") in ("DeploymentPaused", "NewReplicaSetCreated"):
        if not known and new is not None:
            return _progressing(
                "True", "NewReplicaSetCreated", f'Created new replica set "{name}"'
            ), float(deadline_s)
        if moved or known.get("reason") == "DeploymentPaused":
            what = f'ReplicaSet "{name}" is progressing.'
            return _progressing("True", "ReplicaSetUpdated", what) | {
                "lastUpdateTime": stamp()
            }, float(deadline_s)
    left_s = epoch(known.get("lastUpdateTime")) + deadline_s - time.time()
    if known.get("reason") == "ProgressDeadlineExceeded":
        return None, None
    if left_s <= 0:
        what = f'ReplicaSet "{name}" has timed out progressing.'
        return _progressing("False", "ProgressDeadlineExceeded", what), None
    return None, left_s


def _progressing(status: str, reason: str, message: str) -> Obj:
    return {"type": "Progressing", "status": status, "reason": reason, "message": message}


def _put(conditions: list[Obj], condition: Obj, now: str) -> list[Obj]:
    known = next((c for c in conditions if c["type"] == condition["type"]), {})
    same = all(known.get(f) == condition[f] for f in ("status", "reason", "message"))
    if same and "lastUpdateTime" not in condition:
        return conditions
    return set_condition(conditions, {"lastUpdateTime": now} | condition, now)
