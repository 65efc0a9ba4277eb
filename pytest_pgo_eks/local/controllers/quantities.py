"""Kubernetes resource quantities and int-or-percent values."""

from __future__ import annotations

import math
from decimal import Decimal

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip


def quantity(text: str | float | None) -> Decimal:
    """Return ``500m``, ``1.5Gi``, ``2e3`` … as a number; None is 0.

    :raises ValueError: not a quantity.
    """
    if text is None:
        return Decimal(0)
    found = str(text).strip()
    number = found.rstrip("numkKMGTPEi")
    suffix = found[len(number) :]
    try:
        return Decimal(number) * _SUFFIXES[suffix]
    except (KeyError, ArithmeticError) as error:
        raise ValueError(f"{text!r} is not a quantity") from error


def int_or_percent(value: int | str | None, total: int, *, round_up: bool) -> int:
    """Return an ``IntOrString`` of the API as a count; a percentage is taken of ``total``."""
    if value is None:
        return 0
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total / 100
        return math.ceil(share) if round_up else math.floor(share)
    return int(value)
