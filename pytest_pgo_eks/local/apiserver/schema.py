"""Types of API objects: which fields there are, and how the values of two writers are merged.

Built-in kinds come from ``schema.txt``; custom resources from their definition's structural schema
(``structural.py``). Decoding, strategic-merge patch, server-side apply and OpenAPI all read these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

Form = Literal["struct", "map", "list", "scalar"]
MISSING: Any = object()


@dataclass(eq=False, slots=True)
class Type:
    """The type of one value.

    ``keys`` make a list a map of objects; ``is_set`` makes it a set of scalars; any other list is
    replaced as a whole, as is a struct or map that is ``atomic``. ``open`` keeps unknown fields.
    ``zero`` names the fields whose zero value is left out, ``numbers`` those that protobuf has.
    ``rules`` is the structural schema of a custom resource's value, for validation.
    """

    form: Form
    name: str = ""
    fields: dict[str, Type] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    zero: set[str] = field(default_factory=set)
    numbers: dict[int, Any] = field(default_factory=dict)
    element: Type | None = None
    atomic: bool = False
    keys: tuple[str, ...] = ()
    key_defaults: dict[str, Any] = field(default_factory=dict)
    is_set: bool = False
    retain_keys: bool = False
    open: bool = False
    default: Any = MISSING
    nullable: bool = False
    rules: dict[str, Any] | None = None

    def child(self, name: str) -> Type:
        """Return the type of a field or of a map's value; ``ANY`` where nothing is known."""
        if self.form == "struct":
            return self.fields.get(name, ANY)
        return self.element or ANY

    @property
    def item(self) -> Type:
        return self.element or ANY


# A value of which nothing is known: objects merge field by field, lists are replaced.
ANY = Type("scalar", "any", open=True)
_SCALARS = {
    name: Type("scalar", name)
    for name in ("str", "int", "num", "bool", "bytes", "time", "microtime", "qty", "intstr")
} | {"any": ANY}
_FIELD = re.compile(r"([^=!?#]+)(?:#([\d.]+))?([!?]*)=([^@~&]+)(?:(@)([^~&]*))?([~&]*)$")


@cache
def _lines() -> dict[str, str]:
    text = Path(__file__).with_name("schema.txt").read_text(encoding="utf-8")
    lines = [line.partition(":") for line in text.splitlines() if line and line[0] != "#"]
    return {name: rest for name, _, rest in lines}


_structs: dict[str, Type] = {}


def builtin(name: str) -> Type:
    """Return a type of ``schema.txt``. ObjectMeta and friends are shared, do not change them."""
    found = _structs.get(name)
    if found is None:
        lines = _lines()
        atomic = name not in lines
        found = _structs[name] = Type("struct", name, atomic=atomic)
        for text in lines[name + "~" if atomic else name].split():
            match = _FIELD.match(text)
            if match is None:
                raise ValueError(f"schema.txt: {name}: {text}")
            called, number, flags, kind, keyed, keys, marks = match.groups()
            found.fields[called] = _field(kind, keyed is not None, keys, marks)
            if "!" in flags:
                found.required.add(called)
            if "?" in flags:
                found.zero.add(called)
            if number:
                _number(found.numbers, [int(part) for part in number.split(".")], called)
    return found


def _number(numbers: dict[int, Any], path: list[int], called: str) -> None:
    for part in path[:-1]:
        numbers = numbers.setdefault(part, {})
    numbers[path[-1]] = called


def names() -> list[str]:
    """Return the names of all types of ``schema.txt``."""
    return [name.rstrip("~") for name in _lines()]


def _field(kind: str, keyed: bool, keys: str | None, marks: str) -> Type:
    found = _type(kind)
    if keyed and keys:
        parts = [one.partition("=") for one in keys.split(",")]
        found.keys = tuple(part[0] for part in parts)
        found.key_defaults = {part[0]: part[2] for part in parts if part[1]}
    elif keyed:
        found.is_set = True
    if "&" in marks and found.form == "list":
        found.element = replace(found.item, retain_keys=True)
    elif "&" in marks:
        found = replace(found, retain_keys=True)
    if "~" in marks:
        found = replace(found, atomic=True)
    return found


def _type(kind: str) -> Type:
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind[0] == "[":
        return Type("list", element=_type(kind[1:-1]))
    if kind[0] == "{":
        return Type("map", element=_type(kind[1:-1]))
    return builtin(kind)
