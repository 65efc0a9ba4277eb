"""JSON patch (RFC 6902), merge patch (RFC 7396) and Kubernetes' strategic-merge patch.

All return new values; what the patch does not touch is shared with the original.
"""

from __future__ import annotations

import json
from typing import Any

from pytest_pgo_eks.local.apiserver.problems import Problem, bad_request
from pytest_pgo_eks.local.apiserver.schema import Type
from pytest_pgo_eks.local.objects import Obj


def merge(target: Any, patch: Any) -> Any:
    """Apply a merge patch: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merge(found.get(name), value)
    return found


def json_patch(target: Obj, operations: Any) -> Obj:
    """Apply a JSON patch.

    :raises Problem: 400 for a malformed patch, 422 for one that does not fit the object.
    """
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    document: Any = json.loads(json.dumps(target))
    for operation in operations:
        if not isinstance(operation, dict) or "op" not in operation or "path" not in operation:
            raise bad_request("json patch: every operation needs op and path")
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise Problem(
                422,
                "Invalid",
                f"the server rejected our request due to an error in our request: {error}",
            ) from None
    found: Obj = document
    return found


def _pointer(path: str) -> list[str]:
    if path and path[0] != "/":
        raise ValueError(f"jsonpatch: invalid path {path!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _operate(document: Any, operation: Obj) -> Any:
    verb, path = operation["op"], operation["path"]
    parts = _pointer(path)
    if verb == "test":
        if _look(document, parts, path, missing=None) != operation.get("value"):
            raise ValueError(f"testing value {path} failed: test failed")
        return document
    if verb in {"move", "copy"}:
        source = _pointer(operation["from"])
        value = json.loads(json.dumps(_look(document, source, operation["from"])))
        if verb == "move":
            document = _change(document, source, "remove", None, operation["from"])
        return _change(document, parts, "add", value, path)
    if verb not in {"add", "remove", "replace"}:
        raise ValueError(f"Unexpected kind: {verb}")
    if verb != "remove" and "value" not in operation:
        raise ValueError(f"{verb} operation does not apply: missing value")
    return _change(document, parts, verb, operation.get("value"), path)


_RAISE: Any = object()


def _look(document: Any, parts: list[str], path: str, missing: Any = _RAISE) -> Any:
    for part in parts:
        try:
            document = document[int(part) if isinstance(document, list) else part]
        except (KeyError, IndexError, ValueError, TypeError):
            if missing is _RAISE:
                raise ValueError(f"doc is missing path: {path}: missing value") from None
            return missing
    return document


def _change(document: Any, parts: list[str], verb: str, value: Any, path: str) -> Any:
    if not parts:
        return value
    parent = _look(document, parts[:-1], path)
    last = parts[-1]
    if isinstance(parent, list):
        at = len(parent) if last == "-" else int(last)
        if not 0 <= at <= len(parent) - (verb != "add"):
            raise ValueError(f"{verb} operation does not apply: doc is missing index: {path}")
        if verb == "add":
            parent.insert(at, value)
        elif verb == "replace":
            parent[at] = value
        else:
            del parent[at]
    elif isinstance(parent, dict):
        if verb != "add" and last not in parent:
            raise ValueError(f"{verb} operation does not apply: doc is missing key: {path}")
        if verb == "remove":
            del parent[last]
        else:
            parent[last] = value
    else:
        raise TypeError(f"{verb} operation does not apply: doc is missing path: {path}")
    return document


def strategic(target: Any, patch: Any, kind: Type) -> Any:
    """Apply a strategic-merge patch to a value of type ``kind``.

    Known directives: ``$patch`` (replace, merge, delete), ``$retainKeys``,
    ``$deleteFromPrimitiveList/NAME``, ``$setElementOrder/NAME``.
    """
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "replace":
        return _plain({name: value for name, value in patch.items() if name != "$patch"})
    if directive == "delete":
        return {}
    if directive not in {None, "merge"}:
        raise bad_request(f"Unknown patch type: {directive}")
    found = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        found = {name: value for name, value in found.items() if name in retained}
    for name, value in patch.items():
        if name.startswith("$"):
            _directive(found, name, value, patch, kind)
        elif value is None:
            found.pop(name, None)
        else:
            known = kind.child(name)
            order = patch.get(f"$setElementOrder/{name}")
            found[name] = _strategic_value(found.get(name), value, known, order)
    return found


def _strategic_value(old: Any, value: Any, kind: Type, order: Any) -> Any:
    if isinstance(value, dict):
        return strategic(old, value, kind)
    if not isinstance(value, list):
        return value
    if kind.is_set:
        mine = list(old or [])
        merged = mine + [one for one in value if one not in mine]
        return _ordered(merged, order, None)
    if not kind.keys:
        return _plain(value)
    return _ordered(_merged(old or [], value, kind), order, kind.keys[0])


def _merged(old: list[Any], patch: list[Any], kind: Type) -> list[Any]:
    by = kind.keys[0]
    found = list(old)
    if any(isinstance(one, dict) and one.get("$patch") == "replace" for one in patch):
        return [_plain(one) for one in patch if one.get("$patch") != "replace"]
    for item in patch:
        if not isinstance(item, dict) or by not in item:
            raise bad_request(f"map: {json.dumps(item)} does not contain declared merge key: {by}")
        at = next((i for i, one in enumerate(found) if one.get(by) == item[by]), None)
        if item.get("$patch") == "delete":
            found = [one for one in found if one.get(by) != item[by]]
        elif at is None:
            found.append(strategic({}, item, kind.item))
        else:
            found[at] = strategic(found[at], item, kind.item)
    return found


def _directive(found: Obj, name: str, value: Any, patch: Obj, kind: Type) -> None:
    word, _, which = name.partition("/")
    if word == "$deleteFromPrimitiveList" and which in found:
        found[which] = [one for one in found[which] if one not in value]
    elif word == "$setElementOrder" and which not in patch and found.get(which):
        keys = kind.child(which).keys
        found[which] = _ordered(found[which], value, keys[0] if keys else None)


def _ordered(items: list[Any], order: Any, by: str | None) -> list[Any]:
    """Put the items that ``order`` names into its order; the others keep their place after those
    that stood before them."""
    if not order:
        return items
    wanted = [one.get(by) if by and isinstance(one, dict) else one for one in order]
    place = {json.dumps(one): at for at, one in enumerate(wanted)}
    ranked = []
    last = -1
    for at, item in enumerate(items):
        mine = place.get(json.dumps(item.get(by) if by else item))
        last = last if mine is None else mine
        ranked.append(((last, mine is None, at), item))
    return [item for _, item in sorted(ranked, key=lambda pair: pair[0])]


def _plain(value: Any) -> Any:
    """Return the value without directives and nulls."""
    if isinstance(value, dict):
        return {
            name: _plain(inner)
            for name, inner in value.items()
            if inner is not None and not name.startswith("$")
        }
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
