"""From what the user wrote to a value of its kind; what cannot be one is refused in one line."""

from __future__ import annotations

import math
from pathlib import Path

from pytest_pgo_eks.errors import UsageProblem

_YES = {"1", "true", "yes", "on"}
_NO = {"0", "false", "no", "off", ""}


def converted(kind: str, value: object, where: str) -> object:
    """Return ``value`` as a flag, a whole number, a number, a path or text; ``where`` it was given.

    :raises UsageProblem: it is none.
    """
    text = str(value).strip()
    match kind:
        case "flag":
            return _flag(value, text, where)
        case "whole":
            try:
                return int(text)
            except ValueError:
                raise UsageProblem(f"{where}: {text!r} is not a whole number") from None
        case "number":
            return _number(text, where)
    if not text:
        raise UsageProblem(f"{where}: the value is empty")
    return Path(text).expanduser() if kind == "path" else text


def _flag(value: object, text: str, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if text.lower() not in _YES | _NO:
        raise UsageProblem(f"{where}: {text!r} is neither yes nor no")
    return text.lower() in _YES


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise UsageProblem(f"{where}: {text!r} is not a number") from None
    if not math.isfinite(number):
        raise UsageProblem(f"{where}: {text!r} is not a finite number")
    return number


def is_dns_label(text: str) -> bool:
    """Whether ``text`` can name a namespace."""
    return (
        0 < len(text) <= 63
        and set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        and not text.startswith("-")
        and not text.endswith("-")
    )
