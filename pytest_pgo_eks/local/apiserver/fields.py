"""Sets of field paths, and the ``fieldsV1`` form in which managedFields keeps them.

A set is a tree of dicts: the key ``"."`` says that the path itself belongs to the set, every other
key is one path element (``f:name``, ``k:{"name":"x"}``, ``v:"x"``) with the tree below it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_pgo_eks.local.apiserver.schema import Type

Tree = dict[str, Any]
_SELF = "."


def leaf() -> Tree:
    return {_SELF: True}


def load(found: Mapping[str, Any]) -> Tree:
    """From ``fieldsV1``: there an empty object is a member without children."""
    tree: Tree = {}
    for name, below in found.items():
        if name == _SELF:
            tree[_SELF] = True
        else:
            tree[name] = load(below) if below else leaf()
    return tree


def dump(tree: Tree) -> Tree:
    """To ``fieldsV1``."""
    found: Tree = {}
    for name in sorted(tree):
        if name == _SELF:
            if len(tree) > 1:
                found[_SELF] = {}
        else:
            found[name] = dump(tree[name])
    return found


def union(one: Tree, other: Tree) -> Tree:
    if not other:
        return one
    if not one:
        return other
    found = dict(one)
    for name, below in other.items():
        mine = found.get(name)
        found[name] = below if mine is None or name == _SELF else union(mine, below)
    return found


def difference(one: Tree, other: Tree) -> Tree:
    """Return the members of ``one`` that are not members of ``other``."""
    found: Tree = {}
    for name, below in one.items():
        theirs = other.get(name)
        if theirs is None:
            found[name] = below
        elif name != _SELF:
            rest = difference(below, theirs)
            if rest:
                found[name] = rest
    return found


def without_below(one: Tree, other: Tree) -> Tree:
    """Return ``one`` without the members of ``other`` and everything below them."""
    found: Tree = {}
    for name, below in one.items():
        theirs = other.get(name)
        if theirs is None or (name == _SELF and _SELF not in other):
            found[name] = below
        elif name != _SELF and _SELF not in theirs:
            rest = without_below(below, theirs)
            if rest:
                found[name] = rest
    return found


def intersection(one: Tree, other: Tree) -> Tree:
    found: Tree = {}
    for name, below in one.items():
        theirs = other.get(name)
        if theirs is None:
            continue
        if name == _SELF:
            found[_SELF] = True
        else:
            rest = intersection(below, theirs)
            if rest:
                found[name] = rest
    return found


def overlaps(raw: Mapping[str, Any], tree: Tree) -> bool:
    """Say whether a ``fieldsV1`` has any member of the set, without loading it."""
    for name, below in tree.items():
        if name == _SELF:
            if not raw or _SELF in raw:
                return True
        elif name in raw and overlaps(raw[name], below):
            return True
    return False


def contains(raw: Mapping[str, Any], tree: Tree) -> bool:
    """Say whether a ``fieldsV1`` has every member of the set."""
    for name, below in tree.items():
        if name == _SELF:
            if raw and _SELF not in raw:
                return False
        elif name not in raw or not contains(raw[name], below):
            return False
    return True


def paths(tree: Tree, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every member, in order."""
    for name in sorted(tree):
        if name == _SELF:
            yield before
        else:
            yield from paths(tree[name], (*before, name))


def shown(path: tuple[str, ...]) -> str:
    """Write a path as conflict messages do: ``.spec.containers[name="x"].image``."""
    text = ""
    for part in path:
        if part.startswith("f:"):
            text += "." + part[2:]
        elif part.startswith("k:"):
            keys = json.loads(part[2:])
            inner = ",".join(f"{name}={json.dumps(value)}" for name, value in keys.items())
            text += f"[{inner}]"
        elif part.startswith("v:"):
            text += f"[={part[2:]}]"
        else:
            text += f"[{part[2:]}]"
    return text


def item_key(item: Any, kind: Type) -> str:
    """Return the path element of one item of a keyed list or of a set."""
    if kind.is_set:
        return "v:" + json.dumps(item, ensure_ascii=False, separators=(",", ":"))
    found = {}
    for name in sorted(kind.keys):
        value = item.get(name, kind.key_defaults.get(name)) if isinstance(item, dict) else None
        if value is not None:
            found[name] = value
    return "k:" + json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def _merges(value: Any, kind: Type) -> bool:
    """Say whether the value is owned part by part."""
    if kind.atomic:
        return False
    if isinstance(value, dict):
        return kind.form in {"struct", "map"} or kind.open
    return isinstance(value, list) and bool(kind.keys or kind.is_set)


def owned(value: Any, kind: Type) -> Tree:
    """Return the set of fields that an applied configuration claims."""
    if not _merges(value, kind) or not value:
        return leaf()
    tree: Tree = {}
    if isinstance(value, dict):
        for name, inner in value.items():
            tree["f:" + name] = owned(inner, kind.child(name))
        return tree
    for item in value:
        at = item_key(item, kind)
        tree[at] = leaf() if kind.is_set else leaf() | owned(item, kind.item)
    return tree


def compare(old: Any, new: Any, kind: Type) -> tuple[Tree, Tree]:
    """Return what an update changed: (added or modified members, removed members).

    ``None`` is an absent value.
    """
    if old is None and new is None:
        return {}, {}
    some = new if new is not None else old
    both = old is not None and new is not None
    if not _merges(some, kind) or (both and not _merges(old, kind)) or not (old or new):
        if both and old == new:
            return {}, {}
        return ({}, leaf()) if new is None else (leaf(), {})
    changed: Tree = {}
    removed: Tree = {}
    before, after = _parts(old, kind), _parts(new, kind)
    for name, value in after.items():
        was = before.get(name)
        if was is not None and (was is value or was == value):
            continue
        more, less = compare(was, value, _below(kind, name))
        if was is None:
            more = leaf() | more
        _put(changed, name, more)
        _put(removed, name, less)
    for name, value in before.items():
        if name not in after:
            _, less = compare(value, None, _below(kind, name))
            _put(removed, name, leaf() | less)
    return changed, removed


def _put(tree: Tree, name: str, below: Tree) -> None:
    if below:
        tree[name] = below


def _below(kind: Type, name: str) -> Type:
    return kind.child(name[2:]) if name.startswith("f:") else kind.item


def _parts(value: Any, kind: Type) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return {"f:" + name: inner for name, inner in value.items() if inner is not None}
    return {item_key(item, kind): item for item in value}


def prune(value: Any, gone: Tree, kept: Tree, kind: Type) -> Any:
    """Return ``value`` without the members of ``gone``, but with all that ``kept`` needs.

    What pruning has emptied is dropped as well (``None`` when that is the value itself).
    """
    if isinstance(value, dict):
        found: Any = {}
        for name, inner in value.items():
            taken = _pruned("f:" + name, inner, gone, kept, kind.child(name))
            if taken is not None or inner is None:
                found[name] = taken
    elif isinstance(value, list) and (kind.keys or kind.is_set):
        taken_all = [_pruned(item_key(one, kind), one, gone, kept, kind.item) for one in value]
        found = [one for one in taken_all if one is not None]
    else:
        return value
    return None if value and not found else found


def _pruned(at: str, value: Any, gone: Tree, kept: Tree, kind: Type) -> Any:
    below = gone.get(at)
    if below is None:
        return value
    if _SELF in below and at not in kept:
        return None
    return prune(value, below, kept.get(at, {}), kind)
