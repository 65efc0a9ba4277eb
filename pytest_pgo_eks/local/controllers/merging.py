"""Merge patches between two states of an object."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.local.objects import Obj


def merge_diff(old: Obj, new: Obj) -> Obj:
    """Return the JSON merge patch (RFC 7386) that makes ``new`` of ``old``; empty when equal."""
    patch: Obj = {name: None for name in old if name not in new}
    for name, value in new.items():
        known: Any = old.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            inner = merge_diff(known, value)
            if inner:
                patch[name] = inner
        elif known != value or name not in old:
            patch[name] = value
    return patch


def without_empty(fields: Obj) -> Obj:
    """Drop what the real API leaves out: zeros, None, empty lists and objects."""
    return {name: value for name, value in fields.items() if value or value is False}


def set_condition(conditions: list[Obj], condition: Obj, now: str) -> list[Obj]:
    """Return the list with this condition in it.

    ``lastTransitionTime`` moves only when the status does.
    """
    kept = []
    found = None
    for known in conditions:
        if known["type"] == condition["type"]:
            found = known
            same = known.get("status") == condition["status"]
            since = known.get("lastTransitionTime", now) if same else now
            kept.append(known | condition | {"lastTransitionTime": since})
        else:
            kept.append(known)
    if found is None:
        kept.append(condition | {"lastTransitionTime": now})
    return kept


def condition_of(obj: Obj, kind: str) -> Obj | None:
    """Return a condition of the object's status by its type."""
    for condition in (obj.get("status") or {}).get("conditions") or []:
        if condition["type"] == kind:
            found: Obj = condition
            return found
    return None
