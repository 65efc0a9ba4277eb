"""Cells that many kinds share."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.local.apiserver.times import since
from pytest_pgo_eks.local.objects import Obj


def name(obj: Obj) -> str:
    found: str = obj["metadata"].get("name", "")
    return found


def age(obj: Obj) -> str:
    return since(obj["metadata"].get("creationTimestamp"))


def created(obj: Obj) -> list[Any]:
    return [name(obj), obj["metadata"].get("creationTimestamp", "<unknown>")]


def pairs(found: Obj | None) -> str:
    listed = ",".join(f"{key}={value}" for key, value in sorted((found or {}).items()))
    return listed or "<none>"


def selector(found: Obj | None) -> str:
    """Write a label selector as ``kubectl`` does."""
    parts = [
        f"{key}={value}" for key, value in sorted(((found or {}).get("matchLabels") or {}).items())
    ]
    for term in (found or {}).get("matchExpressions") or []:
        values = ",".join(sorted(term.get("values") or []))
        parts.append(
            {
                "In": f"{term['key']} in ({values})",
                "NotIn": f"{term['key']} notin ({values})",
                "Exists": term["key"],
                "DoesNotExist": f"!{term['key']}",
            }.get(term["operator"], "")
        )
    return ",".join(parts) or "<none>"


def images(template: Obj | None) -> list[str]:
    containers = ((template or {}).get("spec") or {}).get("containers") or []
    return [
        ",".join(one.get("name", "") for one in containers) or "<none>",
        ",".join(one.get("image", "") for one in containers) or "<none>",
    ]


def parts(obj: Obj) -> tuple[Obj, Obj]:
    return obj.get("spec") or {}, obj.get("status") or {}
