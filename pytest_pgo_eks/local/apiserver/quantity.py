"""``resource.Quantity``: numbers such as ``500m``, ``1Gi``, ``2e3`` and their canonical form."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

_FORM = re.compile(
    r"^([+-]?(?:\d+\.?\d*|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d+)?$"
)
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_ERROR = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)


def _split(text: str) -> tuple[Decimal, str]:
    found = _FORM.match(text)
    if found is None:
        raise ValueError(_ERROR)
    return Decimal(found[1]), found[2] or ""


@lru_cache(maxsize=4096)
def amount(text: str) -> Decimal:
    """Return the number. ``ValueError`` for what is no quantity."""
    number, suffix = _split(text)
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    if suffix in _BINARY:
        return number * Decimal(1024) ** _BINARY.index(suffix)
    return number.scaleb(int(suffix[1:]))


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """Return the form that the API stores: the largest suffix that leaves an integer.

    A binary suffix stays binary, except below one; what is finer than a nano is rounded up.
    """
    _, suffix = _split(text)
    value = amount(text)
    if suffix in _BINARY[1:] and value == value.to_integral_value() and abs(value) >= 1024:
        number, power = int(value), 0
        while number % 1024 == 0 and power < len(_BINARY) - 1:
            number, power = number // 1024, power + 1
        return f"{number}{_BINARY[power]}"
    value = value.quantize(Decimal("1e-9"), rounding=ROUND_CEILING)
    if value == 0:
        return "0"
    exponent = -9
    number = int(value.scaleb(9))
    while number % 1000 == 0 and exponent < 18:
        number, exponent = number // 1000, exponent + 3
    if suffix[:1] in {"e", "E"} and suffix != "E":
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{ {power: name for name, power in _DECIMAL.items()}[exponent] }"
