"""Checks a document against the packaged schema, as far as a reader must be able to rely on it.

Types, enumerations and required fields are checked; fields that nobody knows are let through,
because a newer writer may have added them. (The tests validate what we write with jsonschema, which
is not needed to read it.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": Mapping,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


@cache
def verdict_schema() -> Mapping[str, Any]:
    """Return the schema of ``verdict.json``."""
    text = files("pytest_pgo_eks.report").joinpath("verdict.schema.json").read_text("utf-8")
    found: Mapping[str, Any] = json.loads(text)
    return found


def problems(value: object, schema: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield what is wrong with ``value``, each with its place."""
    if "const" in schema and value != schema["const"]:
        yield f"{where or 'the document'} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r:.60}, not one of {', '.join(map(repr, schema['enum']))}"
    kinds = schema.get("type")
    if kinds is not None and not _is(value, [kinds] if isinstance(kinds, str) else kinds):
        yield f"{where or 'the document'} is {type(value).__name__}, not {kinds}"
        return
    least = schema.get("minimum")
    if least is not None and isinstance(value, int | float) and not value >= least:
        yield f"{where} is {value}, less than {least}"
    if isinstance(value, Mapping):
        yield from _members(value, schema, where)
    elif isinstance(value, list) and (items := schema.get("items")):
        for number, item in enumerate(value):
            yield from problems(item, items, f"{where}[{number}]")


def _members(value: Mapping[str, object], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    known = schema.get("properties", {})
    prefix = f"{where}." if where else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{prefix}{name} is missing"
    others = schema.get("additionalProperties")
    for name, inner in value.items():
        if name in known:
            yield from problems(inner, known[name], f"{prefix}{name}")
        elif isinstance(others, Mapping):
            yield from problems(inner, others, f"{prefix}{name}")


def _is(value: object, kinds: list[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, _TYPES[kind]) for kind in kinds)
