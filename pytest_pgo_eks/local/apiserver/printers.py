"""The cells of built-in kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from pytest_pgo_eks.local.objects import Obj

PRINTERS: dict[tuple[str, str], tuple[tuple[str, ...], Callable[[Obj], list[Any]]]] = {}


def shown(value: Any) -> str:
    """Write a value that is no string into a cell."""
    return json.dumps(value, separators=(",", ":"))


def json_path(obj: Any, path: str) -> Any:
    """Follow a simple JSONPath (``.a.b[0].c``, ``.a[?(@.type=="X")].b``); None when absent."""
    pattern = (
        r"""\.?([A-Za-z0-9_\-]+)|\['([^']+)'\]|\[(\d+|\*)\]|"""
        r"""\[\?\(@\.([A-Za-z0-9_.\-]+)\s*==\s*["']([^"']*)["']\)\]|\\?\."""
    )
    found = obj
    for match in re.finditer(pattern, path):
        name, quoted, index, field, wanted = match.groups()
        if name or quoted:
            found = found.get(name or quoted) if isinstance(found, dict) else None
        elif index is not None:
            at = 0 if index == "*" else int(index)
            found = found[at] if isinstance(found, list) and len(found) > at else None
        elif field is not None:
            listed = found if isinstance(found, list) else []
            found = next((one for one in listed if str(json_path(one, field)) == wanted), None)
        if found is None:
            return None
    return found
