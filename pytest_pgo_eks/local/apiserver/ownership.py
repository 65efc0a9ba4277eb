"""Who set which field: ``metadata.managedFields``, server-side apply and its conflicts.

The rules are those of structured-merge-diff: an update takes the fields it changes away from
everybody else; an apply owns what it names, gives back what it no longer names, and conflicts
with another manager's field only when it would change the value.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.local.apiserver import fields
from pytest_pgo_eks.local.apiserver.fields import Tree
from pytest_pgo_eks.local.apiserver.problems import Problem
from pytest_pgo_eks.local.apiserver.schema import Type
from pytest_pgo_eks.local.objects import Obj

_LEAF = {".": True}
_STRIPPED: Tree = {
    "f:apiVersion": _LEAF,
    "f:kind": _LEAF,
    "f:metadata": {
        **{
            f"f:{name}": _LEAF
            for name in (
                "name",
                "namespace",
                "creationTimestamp",
                "selfLink",
                "uid",
                "generation",
                "managedFields",
                "resourceVersion",
            )
        },
    },
}
_STATUS: Tree = {"f:status": _LEAF}
_SPEC: Tree = {"f:spec": _LEAF}
# What an empty object of a built-in kind already has, so that nobody sets it.
_SKELETON = frozenset(
    {
        "f:metadata",
        "f:spec",
        "f:status",
        "f:template",
        "f:containers",
        "f:strategy",
        "f:updateStrategy",
        "f:resources",
    }
)


@dataclass(frozen=True)
class Writer:
    """Who writes, through which door. ``subresource`` is ``""`` for the object itself."""

    manager: str
    api_version: str
    subresource: str = ""

    def entry(self, operation: str) -> Obj:
        found: Obj = {
            "manager": self.manager,
            "operation": operation,
            "apiVersion": self.api_version,
        }
        if self.subresource:
            found["subresource"] = self.subresource
        return found


def now() -> str:
    """Return the time in the form that metadata uses: whole seconds, UTC."""
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _same(entry: Obj, wanted: Obj) -> bool:
    names = ("manager", "operation", "subresource")
    if any(entry.get(name, "") != wanted.get(name, "") for name in names):
        return False
    return bool(wanted["operation"] == "Apply" or entry.get("apiVersion") == wanted["apiVersion"])


def _ignored(writer: Writer, *, has_status: bool) -> Tree:
    """Return what this door does not write."""
    if writer.subresource == "status":
        return fields.union(_STRIPPED, _SPEC)
    if writer.subresource == "scale":
        return _STRIPPED
    return fields.union(_STRIPPED, _STATUS) if has_status else _STRIPPED


def _without_skeleton(tree: Tree, known: frozenset[str]) -> Tree:
    found: Tree = {}
    for name, below in tree.items():
        if name == ".":
            found[name] = below
            continue
        inner = _without_skeleton(below, known)
        if name in known and len(inner) > 1:
            inner.pop(".", None)
        found[name] = inner
    return found


def _entries(obj: Obj | None) -> list[Obj]:
    return list((obj or {}).get("metadata", {}).get("managedFields") or [])


def _set(entry: Obj, tree: Tree) -> Obj:
    return {**entry, "fieldsType": "FieldsV1", "fieldsV1": fields.dump(tree)}


def _taken(entries: list[Obj], lost: Tree, mine: Obj) -> list[Obj]:
    """Take ``lost`` away from every manager but ``mine``; one left with nothing disappears."""
    kept = []
    for entry in entries:
        if _same(entry, mine):
            kept.append(entry)
            continue
        had = entry.get("fieldsV1") or {}
        if had and not fields.overlaps(had, lost):
            kept.append(entry)
            continue
        rest = fields.difference(fields.load(had), lost)
        if rest:
            kept.append({**entry, "fieldsV1": fields.dump(rest)})
    return kept


def _clean(obj: Obj) -> Obj:
    metadata = obj.get("metadata") or {}
    if "managedFields" not in metadata:
        return obj
    rest = {name: value for name, value in metadata.items() if name != "managedFields"}
    return {**obj, "metadata": rest}


def updated(
    old: Obj | None, new: Obj, kind: Type, writer: Writer, *, has_status: bool
) -> list[Obj]:
    """Return the managedFields after a create or an update made ``new`` out of ``old``.

    What the client sends as managedFields takes the place of the stored list, so that it can hand
    fields over (kubectl does, from client-side to server-side apply) or reset them (``[{}]``).
    """
    given = (new.get("metadata") or {}).get("managedFields")
    entries = _entries(old) if given is None else [one for one in given if one.get("manager")]
    changed, removed = fields.compare(_clean(old) if old else {}, _clean(new), kind)
    ignored = _ignored(writer, has_status=has_status)
    changed = fields.without_below(changed, ignored)
    if old is None:
        known = _SKELETON if kind.rules is None else frozenset({"f:metadata"})
        changed = _without_skeleton(changed, known)
    if not changed and not removed:
        return entries
    mine = writer.entry("Update")
    entries = _taken(entries, fields.union(changed, removed), mine)
    at = next((i for i, one in enumerate(entries) if _same(one, mine)), None)
    raw = (entries[at].get("fieldsV1") or {}) if at is not None else {}
    if raw and fields.contains(raw, changed) and not fields.overlaps(raw, removed):
        return entries
    had = fields.load(raw)
    owned = fields.union(fields.difference(had, removed), changed)
    if at is None:
        if owned:
            entries.append(_set({**mine, "time": now()}, owned))
    elif not owned:
        del entries[at]
    elif owned != had:
        entries[at] = _set({**mine, "time": now()}, owned)
    return entries


def merged(old: Any, applied: Any, kind: Type) -> Any:
    """Lay an applied configuration over an object."""
    if isinstance(applied, dict) and isinstance(old, dict) and not kind.atomic:
        found = dict(old)
        for name, value in applied.items():
            found[name] = merged(found.get(name), value, kind.child(name))
        return found
    if isinstance(applied, list) and isinstance(old, list) and not kind.atomic:
        if kind.is_set:
            return old + [one for one in applied if one not in old]
        if kind.keys:
            return _merged_list(old, applied, kind)
    return applied


def _merged_list(old: list[Any], applied: list[Any], kind: Type) -> list[Any]:
    wanted = {fields.item_key(item, kind): item for item in applied}
    found = []
    for item in old:
        theirs = wanted.pop(fields.item_key(item, kind), None)
        found.append(item if theirs is None else merged(item, theirs, kind.item))
    return found + list(wanted.values())


def applied(
    old: Obj | None, config: Obj, kind: Type, writer: Writer, *, force: bool, has_status: bool
) -> tuple[Obj, list[Obj]]:
    """Server-side apply: return the object and its managedFields (not yet defaulted).

    :raises Problem: 409 with every conflicting field and its manager, unless ``force``.
    """
    ignored = _ignored(writer, has_status=has_status)
    config = _clean(config)
    claimed = fields.without_below(fields.owned(config, kind), ignored)
    mine = writer.entry("Apply")
    entries = _entries(old)
    live = _clean(old) if old else {}
    at = next((i for i, one in enumerate(entries) if _same(one, mine)), None)
    had = fields.load(entries[at].get("fieldsV1") or {}) if at is not None else {}
    new = merged(live, config, kind)
    others: Tree = {}
    for i, entry in enumerate(entries):
        if i != at:
            others = fields.union(others, fields.load(entry.get("fieldsV1") or {}))
    kept = fields.union(others, claimed)
    gone = fields.difference(had, kept)
    if gone:
        new = fields.prune(new, gone, kept, kind)
    changed, removed = fields.compare(live, new, kind)
    changed = fields.without_below(changed, ignored)
    if not force:
        _refuse_conflicts(entries, changed, mine)
    entries = _taken(entries, fields.union(changed, removed), mine)
    at = next((i for i, one in enumerate(entries) if _same(one, mine)), None)
    if at is None:
        if claimed:
            entries.append(_set({**mine, "time": now()}, claimed))
    elif claimed != had:
        entries[at] = _set({**mine, "time": now()}, claimed)
    return new, entries


def _refuse_conflicts(entries: list[Obj], changed: Tree, mine: Obj) -> None:
    found: list[tuple[str, str]] = []
    for entry in entries:
        if _same(entry, mine):
            continue
        theirs = fields.intersection(fields.load(entry.get("fieldsV1") or {}), changed)
        found += [(_named(entry), fields.shown(path)) for path in fields.paths(theirs)]
    if not found:
        return
    by: dict[str, list[str]] = {}
    for manager, path in found:
        by.setdefault(manager, []).append(path)
    if len(found) == 1:
        said = f"1 conflict: conflict {found[0][0]}: {found[0][1]}"
    else:
        each = (
            f"conflicts {manager}:\n" + "\n".join(f"- {path}" for path in listed)
            for manager, listed in sorted(by.items())
        )
        said = f"{len(found)} conflicts: " + "\n".join(each)
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict {name}", "field": path}
        for name, path in found
    ]
    raise Problem(409, "Conflict", f"Apply failed with {said}", details={"causes": causes})


def _named(entry: Obj) -> str:
    """Name a manager as conflict messages do; an updater with its version."""
    text = f"with {json.dumps(entry['manager'])}"
    if entry.get("subresource"):
        text += f" with subresource {json.dumps(entry['subresource'])}"
    return text + (f" using {entry['apiVersion']}" if entry["operation"] == "Update" else "")
