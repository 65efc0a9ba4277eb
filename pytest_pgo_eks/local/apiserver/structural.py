"""Structural schemas of custom resources: compiling, pruning, defaulting and validation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pytest_pgo_eks.local.apiserver.decode import Decoder
from pytest_pgo_eks.local.apiserver.problems import (
    FieldError,
    duplicate,
    required,
    unsupported,
    wrong,
)
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.apiserver.schema import ANY, MISSING, Type, builtin
from pytest_pgo_eks.local.objects import Obj

_SCALARS = {"string": "str", "integer": "int", "number": "num", "boolean": "bool"}


def compile_root(schema: Obj, kind: str) -> Type:
    """Return the type of a custom resource; ``metadata`` is always ObjectMeta."""
    root = compile_type(schema, kind)
    if root.form != "struct":
        root = Type("struct", kind, open=True, rules={})
    text = Type("scalar", "str")
    root.fields = {
        **root.fields,
        "apiVersion": text,
        "kind": text,
        "metadata": builtin("ObjectMeta"),
    }
    root.required.discard("metadata")
    return root


def compile_type(schema: Obj, name: str = "") -> Type:
    """Turn a structural schema into a type."""
    found = _form(schema, name)
    found.rules = schema
    found.default = schema.get("default", MISSING)
    found.nullable = bool(schema.get("nullable"))
    found.atomic = schema.get("x-kubernetes-map-type") == "atomic"
    return found


def _form(schema: Obj, name: str) -> Type:
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        return Type("scalar", "intstr")
    keeps = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if kind == "object" or (kind is None and "properties" in schema):
        return _object(schema, name, keeps)
    if kind == "array":
        items = schema.get("items")
        found = Type("list", element=compile_type(items, name) if isinstance(items, dict) else ANY)
        shape = schema.get("x-kubernetes-list-type")
        found.is_set = shape == "set"
        if shape == "map":
            found.keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
            inner = found.item.fields
            found.key_defaults = {
                key: inner[key].default
                for key in found.keys
                if key in inner and inner[key].default is not MISSING
            }
        return found
    if kind in _SCALARS:
        return Type("scalar", _SCALARS[kind])
    return Type("scalar", "any", open=True)


def _object(schema: Obj, name: str, keeps: bool) -> Type:
    more = schema.get("additionalProperties")
    if isinstance(more, dict) and "properties" not in schema:
        return Type("map", element=compile_type(more, name), open=keeps)
    found = Type("struct", name, open=keeps or more is True)
    for key, inner in (schema.get("properties") or {}).items():
        found.fields[key] = compile_type(inner, key)
    found.required = set(schema.get("required") or [])
    if schema.get("x-kubernetes-embedded-resource"):
        text = Type("scalar", "str")
        found.fields |= {"apiVersion": text, "kind": text, "metadata": builtin("ObjectMeta")}
    return found


def take(body: Obj, resource: Resource, decoder: Decoder, *, fill: bool = True) -> Obj:
    """Return a custom object pruned and, with ``fill``, defaulted; its metadata is decoded."""
    rest = {name: value for name, value in body.items() if name != "metadata"}
    obj: Obj = _pruned(rest, resource.type, "", decoder, fill=fill)
    inside = decoder.object({"metadata": body.get("metadata") or {}}, _METADATA)
    return {**obj, **inside}


_METADATA = Type("struct", "", {"metadata": builtin("ObjectMeta")})


def _pruned(value: Any, kind: Type, path: str, decoder: Decoder, *, fill: bool) -> Any:
    if isinstance(value, dict) and kind.form == "struct":
        return _pruned_struct(value, kind, path, decoder, fill=fill)
    if isinstance(value, dict) and kind.form == "map":
        return {
            name: _pruned(inner, kind.item, f"{path}.{name}", decoder, fill=fill)
            for name, inner in value.items()
        }
    if isinstance(value, list) and kind.form == "list":
        return [
            _pruned(inner, kind.item, f"{path}[{at}]", decoder, fill=fill)
            for at, inner in enumerate(value)
        ]
    return value


def _pruned_struct(value: Obj, kind: Type, path: str, decoder: Decoder, *, fill: bool) -> Obj:
    found = {}
    for name, inner in value.items():
        known = kind.fields.get(name)
        if known is None:
            if kind.open:
                found[name] = inner
            else:
                decoder.unknown.append(f"{path}.{name}".lstrip("."))
        elif inner is None and not known.nullable:
            continue  # as if it had not been said
        else:
            found[name] = _pruned(inner, known, f"{path}.{name}", decoder, fill=fill)
    if fill:
        for name, known in kind.fields.items():
            if known.default is not MISSING and name not in found:
                fresh = json.loads(json.dumps(known.default))
                found[name] = _pruned(fresh, known, f"{path}.{name}", decoder, fill=True)
    return found


def validate(obj: Obj, kind: Type) -> list[FieldError]:
    """Return what contradicts the schema, in the words of a real server."""
    rest = {name: value for name, value in obj.items() if name not in _OWN}
    rules = {**(kind.rules or {})}
    rules["required"] = [name for name in rules.get("required") or [] if name not in _OWN]
    properties = rules.get("properties") or {}
    rules["properties"] = {key: one for key, one in properties.items() if key not in _OWN}
    return list(_errors(rest, rules, ""))


_OWN = {"apiVersion", "kind", "metadata"}


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _fits(value: Any, wanted: str) -> bool:
    word = _word(value)
    if word == "integer":
        return wanted in {"integer", "number"}
    if word == "number":
        return wanted == "number" or (wanted == "integer" and value.is_integer())
    return word == wanted


def _errors(value: Any, rules: Obj, path: str) -> Iterator[FieldError]:
    where = path.lstrip(".") or "<nil>"
    if value is None and rules.get("nullable"):
        return
    wanted = rules.get("type")
    if rules.get("x-kubernetes-int-or-string"):
        if _word(value) not in {"integer", "string"}:
            said = f'{where} in body must be of type integer,string: "{_word(value)}"'
            yield wrong(where, _word(value), said)
        return
    if wanted and not _fits(value, wanted):
        said = f'{where} in body must be of type {wanted}: "{_word(value)}"'
        yield wrong(where, _word(value), said)
        return
    if "enum" in rules and value not in rules["enum"]:
        yield unsupported(where, value, [str(one) for one in rules["enum"]])
    if isinstance(value, str):
        yield from _string(value, rules, where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number(value, rules, where)
    elif isinstance(value, list):
        yield from _array(value, rules, path)
    elif isinstance(value, dict):
        yield from _mapping(value, rules, path)
    yield from _combined(value, rules, path)


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _string(value: str, rules: Obj, where: str) -> Iterator[FieldError]:
    if len(value) < rules.get("minLength", 0):
        limit = rules["minLength"]
        yield wrong(where, value, f"{where} in body should be at least {limit} chars long")
    if "maxLength" in rules and len(value) > rules["maxLength"]:
        yield FieldError("Too long", where, f"may not be more than {rules['maxLength']} bytes")
    if "pattern" in rules and not _regex(rules["pattern"]).search(value):
        yield wrong(where, value, f"{where} in body should match '{rules['pattern']}'")


def _number(value: float, rules: Obj, where: str) -> Iterator[FieldError]:
    low, high = rules.get("minimum"), rules.get("maximum")
    if low is not None and (value < low or (rules.get("exclusiveMinimum") and value == low)):
        word = "than" if rules.get("exclusiveMinimum") else "than or equal to"
        yield wrong(where, value, f"{where} in body should be greater {word} {low}")
    if high is not None and (value > high or (rules.get("exclusiveMaximum") and value == high)):
        word = "than" if rules.get("exclusiveMaximum") else "than or equal to"
        yield wrong(where, value, f"{where} in body should be less {word} {high}")


def _array(value: list[Any], rules: Obj, path: str) -> Iterator[FieldError]:
    where = path.lstrip(".")
    if len(value) < rules.get("minItems", 0):
        said = f"{where} in body should have at least {rules['minItems']} items"
        yield wrong(where, len(value), said)
    if "maxItems" in rules and len(value) > rules["maxItems"]:
        yield FieldError("Too many", where, f"must have at most {rules['maxItems']} items")
    keys = rules.get("x-kubernetes-list-map-keys") or []
    unique = rules.get("x-kubernetes-list-type")
    seen: set[str] = set()
    for at, one in enumerate(value):
        if unique in {"map", "set"}:
            named = {key: one.get(key) for key in keys} if isinstance(one, dict) and keys else one
            text = json.dumps(named, sort_keys=True)
            if text in seen:
                yield duplicate(f"{where}[{at}]", named)
            seen.add(text)
        if isinstance(rules.get("items"), dict):
            yield from _errors(one, rules["items"], f"{path}[{at}]")


def _mapping(value: Obj, rules: Obj, path: str) -> Iterator[FieldError]:
    for name in rules.get("required") or []:
        if name not in value:
            yield required(f"{path}.{name}".lstrip("."))
    where = path.lstrip(".")
    if len(value) < rules.get("minProperties", 0):
        said = f"{where} in body should have at least {rules['minProperties']} properties"
        yield wrong(where, len(value), said)
    if "maxProperties" in rules and len(value) > rules["maxProperties"]:
        yield FieldError("Too many", where, f"must have at most {rules['maxProperties']} items")
    properties = rules.get("properties") or {}
    more = rules.get("additionalProperties")
    for name, inner in value.items():
        if name in properties:
            yield from _errors(inner, properties[name], f"{path}.{name}")
        elif isinstance(more, dict):
            yield from _errors(inner, more, f"{path}.{name}")


def _combined(value: Any, rules: Obj, path: str) -> Iterator[FieldError]:
    where = path.lstrip(".")
    for one in rules.get("allOf") or []:
        yield from _errors(value, one, path)
    if "anyOf" in rules and all(any(_errors(value, one, path)) for one in rules["anyOf"]):
        said = f"{where} in body must validate at least one schema (anyOf)"
        yield wrong(where, value, said)
    if "oneOf" in rules:
        fitting = sum(not any(_errors(value, one, path)) for one in rules["oneOf"])
        if fitting != 1:
            said = f"{where} in body must validate one and only one schema (oneOf)"
            yield wrong(where, value, said)
    if "not" in rules and not any(_errors(value, rules["not"], path)):
        yield wrong(where, value, f"{where} in body must not validate the schema (not)")
