"""From a request's JSON to an object as Go's decoder would hold it.

Unknown fields are dropped and reported, nulls and empty lists and maps vanish, quantities and times
take their canonical form, and a value of the wrong type is refused with the decoder's words.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from typing import Any

from pytest_pgo_eks.local.apiserver import quantity
from pytest_pgo_eks.local.apiserver.problems import bad_request
from pytest_pgo_eks.local.apiserver.schema import Type
from pytest_pgo_eks.local.objects import Obj

_GO = {
    "str": "string",
    "int": "int32",
    "num": "float64",
    "bool": "bool",
    "bytes": "[]uint8",
    "time": "string",
    "microtime": "string",
}
_SECONDS = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
_MICROS = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")


def _json_word(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


class Decoder:
    """One decoding. ``unknown`` collects the paths of fields that the type does not have."""

    def __init__(self, kind: str, version: str) -> None:
        self.kind = kind
        self.version = version
        self.unknown: list[str] = []

    def object(self, obj: Obj, kind: Type, known: Obj | None = None) -> Obj:
        """Decode a whole object; ``apiVersion`` and ``kind`` stay as they are.

        ``known`` is the object that was patched: what is still the very same value there (the spec,
        for most patches) is clean already and taken as it is. Metadata is always made anew.
        """
        kept = {
            name: value
            for name, value in obj.items()
            if known and name != "metadata" and value is known.get(name)
        }
        rest = {name: value for name, value in obj.items() if name not in kept}
        found: Obj = self._struct(rest, kind, "")
        return found | kept

    def _refuse(self, value: Any, wanted: str, path: str) -> Exception:
        where = re.sub(r"\[\d+\]", "", path).lstrip(".")
        what = f"json: cannot unmarshal {_json_word(value)} into Go struct field "
        what += f"{self.kind}.{where} of type {wanted}"
        return self._bad(what)

    def _bad(self, what: str) -> Exception:
        return bad_request(
            f'{self.kind} in version "{self.version}" cannot be handled as a {self.kind}: {what}'
        )

    def _struct(self, value: Any, kind: Type, path: str) -> Any:
        if not isinstance(value, dict):
            raise self._refuse(value, f"v1.{kind.name}", path)
        found = {}
        fields = kind.fields
        for name, inner in value.items():
            known = fields.get(name)
            if known is None:
                self.unknown.append(f"{path}.{name}".lstrip("."))
            elif inner is not None:
                taken = self._value(inner, known, f"{path}.{name}")
                if taken or (
                    known.form in {"scalar", "struct"} and not _left_out(taken, kind, name)
                ):
                    found[name] = taken
        return found

    def _value(self, value: Any, kind: Type, path: str) -> Any:
        if kind.form == "struct":
            return self._struct(value, kind, path)
        if kind.form == "list":
            if not isinstance(value, list):
                raise self._refuse(value, "[]" + _named(kind.item), path)
            item = kind.item
            return [
                self._value(one, item, f"{path}[{at}]")
                for at, one in enumerate(value)
                if one is not None or item.form == "scalar"
            ]
        if kind.form == "map":
            if not isinstance(value, dict):
                raise self._refuse(value, "map[string]" + _named(kind.item), path)
            item = kind.item
            return {
                name: self._value("" if one is None else one, item, f"{path}.{name}")
                for name, one in value.items()
            }
        return self._scalar(value, kind.name, path)

    def _scalar(self, value: Any, name: str, path: str) -> Any:
        if name == "any" or (name == "str" and isinstance(value, str)):
            return value
        if name == "int" and isinstance(value, int) and not isinstance(value, bool):
            return value
        if name == "int" and isinstance(value, float) and value.is_integer():
            return int(value)
        if name == "bool" and isinstance(value, bool):
            return value
        if name == "intstr" and isinstance(value, int | str) and not isinstance(value, bool):
            return value
        if name == "num" and isinstance(value, int | float) and not isinstance(value, bool):
            return value
        if name == "qty" and isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                return quantity.canonical(str(value))
            except ValueError as error:
                raise self._bad(str(error)) from None
        if name in {"time", "microtime"} and isinstance(value, str):
            return self._time(value, micro=name == "microtime")
        if name == "bytes" and isinstance(value, str):
            try:
                base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise self._bad("illegal base64 data at input byte 0") from None
            return value
        raise self._refuse(value, _GO.get(name, name), path)

    def _time(self, value: str, *, micro: bool) -> str | None:
        if (_MICROS if micro else _SECONDS).match(value):
            return value
        if not value:
            return None
        if micro and not _MICROS.match(value[:26] + "Z"):
            what = (
                f'parsing time "{value}" as "2006-01-02T15:04:05.000000Z07:00": '
                f'cannot parse "{value[19:]}" as ".000000"'
            )
            raise self._bad(what)
        try:
            when = dt.datetime.fromisoformat(value)
        except ValueError:
            what = f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}"'
            raise self._bad(what) from None
        if when.tzinfo is None:
            raise self._bad(f'parsing time "{value}": cannot parse "" as "Z07:00"')
        when = when.astimezone(dt.UTC)
        return f"{when:%Y-%m-%dT%H:%M:%S.%fZ}" if micro else f"{when:%Y-%m-%dT%H:%M:%SZ}"


def _left_out(value: Any, kind: Type, name: str) -> bool:
    return name in kind.zero and value in ("", 0, None) and not isinstance(value, dict)


def _named(kind: Type) -> str:
    if kind.form == "scalar":
        return _GO.get(kind.name, kind.name)
    return f"v1.{kind.name}" if kind.form == "struct" else kind.form
