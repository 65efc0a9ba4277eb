"""What makes a schema structural: rules that a definition has to keep before it is served."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pgo_eks.local.apiserver.problems import FieldError, denied, required
from pytest_pgo_eks.local.objects import Obj

_LOGIC = ("allOf", "anyOf", "oneOf")
# Inside logic only values are judged: the shape is said once, outside.
_SHAPE = ("type", "default", "additionalProperties", "nullable")
# The one exception: an int-or-string may say again what it is.
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


def structural_errors(schema: Obj, where: str) -> Iterator[FieldError]:
    """Yield what keeps a schema from being structural, in the words of a real server."""
    for name in _LOGIC:
        inner = schema.get(name) or []
        if schema.get("x-kubernetes-int-or-string") and inner == _INT_OR_STRING:
            continue
        for at, one in enumerate(inner):
            yield from _inside_logic(one, f"{where}.{name}[{at}]")
    if isinstance(schema.get("not"), dict):
        yield from _inside_logic(schema["not"], f"{where}.not")
    if schema.get("x-kubernetes-list-type") == "map":
        yield from _keys(schema, where)
    for name, one in (schema.get("properties") or {}).items():
        yield from structural_errors(one, f"{where}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from structural_errors(schema[name], f"{where}.{name}")


def _inside_logic(schema: Obj, where: str) -> Iterator[FieldError]:
    for name in _SHAPE:
        if name in schema:
            yield denied(f"{where}.{name}", "must be empty to be structural")
    for name in _LOGIC:
        for at, one in enumerate(schema.get(name) or []):
            yield from _inside_logic(one, f"{where}.{name}[{at}]")
    for name, one in (schema.get("properties") or {}).items():
        yield from _inside_logic(one, f"{where}.properties[{name}]")


def _keys(schema: Obj, where: str) -> Iterator[FieldError]:
    items = schema.get("items") or {}
    for key in schema.get("x-kubernetes-list-map-keys") or []:
        rules = (items.get("properties") or {}).get(key) or {}
        if key not in (items.get("required") or []) and "default" not in rules:
            yield required(
                f"{where}.items.properties[{key}].default",
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a "
                "required property",
            )
