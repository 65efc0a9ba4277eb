"""Kubernetes' protobuf bodies, which kubectl sends for built-in kinds, as the objects they are.

Only reading: every client that writes protobuf accepts JSON in return. The field numbers are in
``schema.txt``.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import struct
from collections.abc import Iterator
from typing import Any

from pytest_pgo_eks.local.apiserver.problems import bad_request
from pytest_pgo_eks.local.apiserver.schema import Type, builtin, names
from pytest_pgo_eks.local.objects import Obj

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_TYPES = {
    ("events.k8s.io/v1", "Event"): "EventsV1Event",
    ("v1", "Event"): "CoreV1Event",
    ("authentication.k8s.io/v1", "TokenRequest"): "AuthenticationV1TokenRequest",
}
_Number = dict[int, Any]


def decode(data: bytes) -> Obj:
    """Return the object in an envelope (magic, type, raw message).

    :raises Problem: 400 for anything that is not such an envelope of a known kind.
    """
    try:
        return _decode(data)
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise bad_request(f"the body is no protobuf of a known kind: {error}") from None


def _decode(data: bytes) -> Obj:
    if not data.startswith(_MAGIC):
        raise ValueError("it does not begin with k8s")
    envelope = {number: value for number, _, value in _fields(data[4:])}
    what = {number: value.decode() for number, _, value in _fields(envelope[1])}
    version, kind = what.get(1, ""), what.get(2, "")
    name = _TYPES.get((version, kind), kind)
    if name not in names():
        raise ValueError(f"{kind} is not known")
    obj = _message(envelope.get(2, b""), builtin(name))
    return {**obj, "apiVersion": version, "kind": kind}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield (number, wire type, value) of a message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 1:
            value, at = data[at : at + 8], at + 8
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire == 5:
            value, at = data[at : at + 4], at + 4
        else:
            raise ValueError(f"wire type {wire}")
        if at > len(data):
            raise ValueError("it is cut off")
        yield number, wire, value


def _message(data: bytes, kind: Type, numbers: _Number | None = None) -> Obj:
    found: Obj = {}
    for number, _, value in _fields(data):
        called = (kind.numbers if numbers is None else numbers).get(number)
        if isinstance(called, dict):  # inlined in JSON, a message of its own here
            found |= _message(value, kind, called)
        elif called is not None:
            known = kind.fields[called]
            if known.form == "list":
                found.setdefault(called, []).append(_value(value, known.item))
            elif known.form == "map":
                entry = {at: inner for at, _, inner in _fields(value)}
                key = entry.get(1, b"").decode()
                found.setdefault(called, {})[key] = _value(entry.get(2, b""), known.item)
            else:
                found[called] = _value(value, known)
    return found


def _value(value: Any, kind: Type) -> Any:
    if kind.form == "struct":
        return _message(value, kind)
    if kind.form == "list":  # ExtraValue: a message that holds a list
        return [_value(inner, kind.item) for _, _, inner in _fields(value)]
    return _SCALARS[kind.name](value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _inner(value: bytes) -> dict[int, Any]:
    return {number: inner for number, _, inner in _fields(value)}


def _time(value: bytes) -> str | None:
    found = _inner(value)
    if not found.get(1):
        return None
    micros = found.get(2, 0) // 1000
    when = dt.datetime.fromtimestamp(_signed(found[1]), dt.UTC).replace(microsecond=micros)
    return when.isoformat().replace("+00:00", "Z")


def _int_or_string(value: bytes) -> int | str:
    found = _inner(value)
    if found.get(1, 0):
        return str(found.get(3, b"").decode())
    return _signed(found.get(2, 0))


def _raw(value: bytes) -> Any:
    inside = _inner(value).get(1, b"")
    return json.loads(inside) if inside else None


_SCALARS: dict[str, Any] = {
    "str": bytes.decode,
    "int": _signed,
    "num": lambda value: struct.unpack("<d", value)[0],
    "bool": bool,
    "bytes": lambda value: base64.b64encode(value).decode(),
    "time": _time,
    "microtime": _time,
    "qty": lambda value: _inner(value).get(1, b"0").decode(),
    "intstr": _int_or_string,
    "any": _raw,
}
