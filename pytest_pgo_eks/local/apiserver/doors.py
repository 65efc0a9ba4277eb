"""What each endpoint of an object may change, and what counts as a change."""

from __future__ import annotations

from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.objects import Obj


def through_door(call: Call, old: Obj, obj: Obj) -> Obj:
    """Keep what this endpoint does not write: the status, or everything but the status."""
    if call.subresource == "status":
        found = {**old, "metadata": {**old["metadata"]}}
        if "status" in obj:
            found["status"] = obj["status"]
        else:
            found.pop("status", None)
        if not call.resource.custom:
            for name in ("labels", "annotations", "finalizers"):
                copy(obj["metadata"], found["metadata"], name)
        if "managedFields" in obj["metadata"]:
            found["metadata"]["managedFields"] = obj["metadata"]["managedFields"]
        return found
    if call.resource.has_status:
        copy(old, obj, "status")
    if call.resource.storage == ("", "namespaces") and call.subresource != "finalize":
        copy(old, obj, "spec")
    return obj


def copy(source: Obj, target: Obj, name: str) -> None:
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)


def generation(resource: Resource, old: Obj, obj: Obj) -> None:
    metadata = obj["metadata"]
    copy(old["metadata"], metadata, "generation")
    if not resource.generation:
        return
    ignored = {"metadata", "apiVersion", "kind"} | ({"status"} if resource.has_status else set())
    before = {name: value for name, value in old.items() if name not in ignored}
    after = {name: value for name, value in obj.items() if name not in ignored}
    if before != after:
        metadata["generation"] = old["metadata"].get("generation", 0) + 1


def same(old: Obj, new: Obj, managed: list[Obj]) -> bool:
    """Say whether an update changes nothing; a manager's time alone is no change."""

    def bare(entries: list[Obj]) -> list[Obj]:
        return [{name: value for name, value in one.items() if name != "time"} for one in entries]

    had = old["metadata"]
    has = new["metadata"]
    if bare(had.get("managedFields") or []) != bare(managed):
        return False
    if {**old, "metadata": None} != {**new, "metadata": None}:
        return False
    names = (set(had) | set(has)) - {"managedFields"}
    return all(had.get(name) == has.get(name) for name in names)
