"""Tables for ``kubectl get``: columns and cells of every kind."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.local.apiserver import jsonpath, printers
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.apiserver.times import since
from pytest_pgo_eks.local.objects import Obj

_NAME: Obj = {"name": "Name", "type": "string", "format": "name", "priority": 0}


def table(resource: Resource, objs: list[Obj], version: str, include: str) -> Obj:
    """Return a ``meta.k8s.io`` Table; ``include`` is None, Metadata or Object."""
    columns = _columns(resource)
    cells = printers.PRINTERS.get(resource.storage)
    rows = []
    for obj in objs:
        if resource.custom:
            values = _custom(resource, obj)
        elif cells is not None:
            values = cells[1](obj)
        else:
            values = [
                obj["metadata"].get("name", ""),
                since(obj["metadata"].get("creationTimestamp")),
            ]
        rows.append({"cells": values, "object": _embedded(obj, version, include)})
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": {},
        "columnDefinitions": columns,
        "rows": rows,
    }


def _embedded(obj: Obj, version: str, include: str) -> Obj | None:
    if include == "None":
        return None
    if include == "Object":
        return obj
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj["metadata"],
    }


def _column(name: str, kind: str = "string", priority: int = 0) -> Obj:
    if name == "Name" and kind == "string":
        return {**_NAME, "description": "", "priority": priority}
    return {"name": name, "type": kind, "format": "", "description": "", "priority": priority}


def _columns(resource: Resource) -> list[Obj]:
    if resource.custom:
        found = [_column("Name")]
        if not resource.columns:
            return [*found, _column("Age", "date")]
        for one in resource.columns:
            column = _column(one["name"], one.get("type", "string"), one.get("priority", 0))
            found.append({**column, "description": one.get("description", "")})
        return found
    known = printers.PRINTERS.get(resource.storage)
    if known is None:
        return [_column("Name"), _column("Age")]
    return [_column(name.strip("*"), priority=int(name.endswith("*"))) for name in known[0]]


def _custom(resource: Resource, obj: Obj) -> list[Any]:
    name = obj["metadata"].get("name", "")
    if not resource.columns:
        return [name, since(obj["metadata"].get("creationTimestamp"))]
    cells = [name]
    for column in resource.columns:
        found = jsonpath.look(obj, column["jsonPath"])
        if column.get("type") == "date":
            found = since(found) if isinstance(found, str) else None
        elif column.get("type") in {"integer", "number"}:
            found = found if isinstance(found, int | float) else None
        elif column.get("type") == "boolean":
            found = found if isinstance(found, bool) else None
        elif found is not None and not isinstance(found, str):
            found = jsonpath.shown(found)
        cells.append(found)
    return cells
