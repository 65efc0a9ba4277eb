"""The JSONPath of printer columns: fields, indices and equality filters."""

from __future__ import annotations

import json
import re
from typing import Any

_STEP = re.compile(
    r"""\.?([A-Za-z0-9_\-]+(?:\\\.[A-Za-z0-9_\-/]+)*)"""
    r"""|\['([^']+)'\]"""
    r"""|\[(\d+|\*)\]"""
    r"""|\[\?\(@\.([A-Za-z0-9_.\-]+)\s*==\s*["']([^"']*)["']\)\]"""
)


def look(obj: Any, path: str) -> Any:
    """Follow ``.a.b[0].c`` or ``.a[?(@.type=="X")].b``; None when it leads nowhere."""
    found = obj
    for match in _STEP.finditer(path):
        name, quoted, index, field, wanted = match.groups()
        if name or quoted:
            key = (name or quoted).replace("\\.", ".")
            found = found.get(key) if isinstance(found, dict) else None
        elif index is not None:
            at = 0 if index == "*" else int(index)
            found = found[at] if isinstance(found, list) and len(found) > at else None
        else:
            listed = found if isinstance(found, list) else []
            found = next((one for one in listed if str(look(one, field)) == wanted), None)
        if found is None:
            return None
    return found


def shown(value: Any) -> str:
    """Write a value that is no string into a cell."""
    return json.dumps(value, separators=(",", ":"))
