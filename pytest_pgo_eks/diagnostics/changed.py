"""What changed between two versions of an object, in the words of the object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Written all the time by whoever keeps something alive, or about the object and not of it.
_NOISE = {"managedFields", "resourceVersion", "renewTime", "optime", "xlog_location"}
_MOST = 12
_LONG = 160


def changes(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[str]:
    """Return a line for each field that changed: its path, what it was, what it is.

    Lists whose items have names (conditions, containers) are compared by them.
    """
    if old is None or new is None:
        return []
    found = list(_differ(old, new, ""))
    more = len(found) - _MOST
    return found[:_MOST] + ([f"… and {more} more"] if more > 0 else [])


def _differ(old: Any, new: Any, path: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new} - _NOISE):
            yield from _differ(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return
    if isinstance(old, list) and isinstance(new, list) and (_named(old) or _named(new)):
        before = {_name(one): one for one in old}
        after = {_name(one): one for one in new}
        for name in sorted({*before, *after}):
            yield from _differ(before.get(name), after.get(name), f"{path}[{name}]")
        return
    yield f"{path}: {_short(old)} → {_short(new)}"


def _named(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(one, dict) and _name(one) for one in items)


def _name(one: dict[str, Any]) -> str:
    return str(one.get("type") or one.get("name") or "")


def _short(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
