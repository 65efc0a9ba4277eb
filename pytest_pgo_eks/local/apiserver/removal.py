"""Deletion: grace periods, finalizers, propagation policies and preconditions."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pytest_pgo_eks.local.apiserver import problems
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.decode import Decoder
from pytest_pgo_eks.local.apiserver.problems import bad_request
from pytest_pgo_eks.local.apiserver.schema import builtin
from pytest_pgo_eks.local.apiserver.store import Store, Stored
from pytest_pgo_eks.local.objects import Obj

_POLICIES = ("Background", "Foreground", "Orphan")
_BY_POLICY = {"foregroundDeletion", "orphan"}


def options(call: Call, body: Any) -> Obj:
    """Return the DeleteOptions of a request: the body's, or else the query's.

    :raises Problem: 400 for options of a wrong type, 422 for an unknown policy.
    """
    found: Obj = {}
    if isinstance(body, dict):
        found = Decoder("DeleteOptions", "v1").object(body, builtin("DeleteOptions"))
    grace = call.number("gracePeriodSeconds")
    if grace is not None:
        found.setdefault("gracePeriodSeconds", grace)
    if call.query.get("propagationPolicy"):
        found.setdefault("propagationPolicy", call.query["propagationPolicy"])
    if "orphanDependents" not in found and "orphanDependents" in call.query:
        found["orphanDependents"] = call.flag("orphanDependents")
    if found.get("orphanDependents") is not None and "propagationPolicy" not in found:
        found["propagationPolicy"] = "Orphan" if found["orphanDependents"] else "Background"
    policy = found.get("propagationPolicy")
    if policy is not None and policy not in _POLICIES:
        error = problems.unsupported("propagationPolicy", policy, (*_POLICIES, "nil"))
        raise problems.invalid("meta.k8s.io", "DeleteOptions", "", [error])
    if found.get("dryRun") not in (None, [], ["All"]):
        raise bad_request(f"invalid dryRun: Unsupported value: {found['dryRun']}")
    return found


class Removal:
    """Deletes objects, at once or by marking them."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def delete(self, call: Call, stored: Stored, wanted: Obj) -> tuple[Obj, bool]:
        """Delete one object; return its last or its marked state, and whether it is gone.

        :raises Problem: 409 when the preconditions do not hold.
        """
        self._preconditions(call, stored.obj, wanted.get("preconditions") or {})
        dry = call.dry_run or wanted.get("dryRun") == ["All"]
        obj = {**stored.obj, "metadata": {**stored.obj["metadata"]}}
        metadata = obj["metadata"]
        finalizers = _finalizers(metadata.get("finalizers") or [], wanted.get("propagationPolicy"))
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        grace = self._grace(call, obj, wanted.get("gracePeriodSeconds"))
        if call.resource.storage == ("", "namespaces"):
            return self._namespace(call, obj, dry=dry)
        if grace == 0 and not finalizers:
            if dry:
                return obj, True
            if _graceful(call):
                pending = metadata.get("deletionTimestamp")
                metadata["deletionTimestamp"] = _after(0)
                metadata["deletionGracePeriodSeconds"] = 0
                if pending:
                    # What was waiting is told first that its time is up, as by a real server.
                    obj = self.store.collection(call.resource.storage).put(obj).copy()
            return self.remove(call, obj), True
        pending = metadata.get("deletionTimestamp")
        left = metadata.get("deletionGracePeriodSeconds", 0)
        if (
            pending
            and left <= grace
            and finalizers == (stored.obj["metadata"].get("finalizers") or [])
        ):
            return stored.obj, False
        if not pending or grace < left:
            metadata["deletionTimestamp"] = _after(grace)
            metadata["deletionGracePeriodSeconds"] = grace
            if not pending and metadata.get("generation"):
                metadata["generation"] += 1
        if dry:
            return obj, False
        return self.store.collection(call.resource.storage).put(obj).obj, False

    @staticmethod
    def _preconditions(call: Call, obj: Obj, wanted: Obj) -> None:
        metadata, resource = obj["metadata"], call.resource
        for name, word, what in (
            ("uid", "UID", "deleted and then recreated"),
            ("resourceVersion", "ResourceVersion", "modified"),
        ):
            if wanted.get(name) and wanted[name] != metadata[name]:
                why = (
                    f"the {word} in the precondition ({wanted[name]}) does not match the {word} in "
                    f"record ({metadata[name]}). The object might have been {what}"
                )
                # The kind stands where the resource would be expected: that is how it is said.
                raise problems.conflict(resource.group, resource.kind, metadata["name"], why)

    @staticmethod
    def _grace(call: Call, obj: Obj, wanted: int | None) -> int:
        """Return the seconds a pod gets; everything else goes at once."""
        if not _graceful(call):
            return 0
        spec = obj.get("spec") or {}
        status = obj.get("status") or {}
        if not spec.get("nodeName") or status.get("phase") in {"Succeeded", "Failed"}:
            return 0
        if wanted is None:
            wanted = spec.get("terminationGracePeriodSeconds", 30)
        found: int = max(0, wanted) if wanted is not None else 30
        return found

    def _namespace(self, call: Call, obj: Obj, *, dry: bool) -> tuple[Obj, bool]:
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp"):
            if not (obj.get("spec") or {}).get("finalizers") and not metadata.get("finalizers"):
                return (obj if dry else self.remove(call, obj)), True
            return obj, False
        metadata["deletionTimestamp"] = _after(0)
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        if dry:
            return obj, False
        return self.store.collection(call.resource.storage).put(obj).obj, False

    def finish(self, call: Call, stored: Stored, obj: Obj) -> Obj | None:
        """Remove an object whose last finalizer an update has taken away.

        A pod in its grace period stays: the kubelet deletes it with grace 0.
        """
        metadata = stored.obj["metadata"]
        if call.resource.storage == ("", "namespaces"):
            if (obj.get("spec") or {}).get("finalizers"):
                return None
        elif metadata.get("deletionGracePeriodSeconds", 0) > 0 or not metadata.get("finalizers"):
            return None
        return obj if call.dry_run else self.remove(call, obj)

    def remove(self, call: Call, obj: Obj) -> Obj:
        """Take the object out of the store."""
        return self.store.collection(call.resource.storage).remove(obj).obj


def _graceful(call: Call) -> bool:
    return call.resource.storage == ("", "pods")


def _finalizers(had: list[str], policy: str | None) -> list[str]:
    if policy is None:
        return had
    found = [one for one in had if one not in _BY_POLICY]
    if policy == "Foreground":
        found.append("foregroundDeletion")
    elif policy == "Orphan":
        found.append("orphan")
    return found


def _after(seconds: int) -> str:
    when = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
