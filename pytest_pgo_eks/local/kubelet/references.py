"""What a pod may say about itself: fieldRef and resourceFieldRef, for variables and volumes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from pytest_pgo_eks.local.objects import Obj, annotations_of, labels_of

_SUFFIXES = {
    "n": Decimal(10) ** -9, "u": Decimal(10) ** -6, "m": Decimal(10) ** -3, "": Decimal(1),
    "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9, "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15, "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40, "Pi": Decimal(2) ** 50, "Ei": Decimal(2) ** 60,
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class Unresolvable(Exception):
    """A reference that can never be resolved as it is written, or not yet."""


@dataclass(frozen=True)
class Place:
    """Where a pod runs, as far as its references ask."""

    node: str
    host_ip: str
    pod_ip: str
    allocatable: Mapping[str, str]


def quantity(text: str | float) -> Decimal:
    """Read a Kubernetes quantity ("500m", "2Gi", 3) as a plain number.

    :raises Unresolvable: it is none.
    """
    found = _QUANTITY.fullmatch(str(text).strip())
    if not found or found[2] not in _SUFFIXES:
        raise Unresolvable(f"{text!r} is no quantity")
    return Decimal(found[1]) * _SUFFIXES[found[2]]


def lines(values: Mapping[str, str]) -> str:
    """Render labels or annotations as the downward API does: sorted ``key="value"`` lines."""
    return "\n".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(values.items())
    )


def field(pod: Obj, path: str, place: Place) -> str:
    """Return what a fieldRef names.

    :raises Unresolvable: the path is not supported.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    simple = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", ""),
        "metadata.uid": metadata["uid"],
        "spec.nodeName": place.node,
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.hostIP": place.host_ip,
        "status.hostIPs": place.host_ip,
        "status.podIP": place.pod_ip,
        "status.podIPs": place.pod_ip,
    }
    if path in simple:
        return str(simple[path])
    if path == "metadata.labels":
        return lines(labels_of(pod))
    if path == "metadata.annotations":
        return lines(annotations_of(pod))
    subscript = _SUBSCRIPT.fullmatch(path)
    if not subscript:
        raise Unresolvable(f"unsupported fieldPath: {path}")
    held = labels_of(pod) if subscript[1] == "labels" else annotations_of(pod)
    return held.get(subscript[2], "")


def resource(pod: Obj, container: str, reference: Mapping[str, Any], place: Place) -> str:
    """Return what a resourceFieldRef names, in units of its divisor, rounded up.

    A container without a limit has its node's allocatable amount as limit.

    :raises Unresolvable: there is no such container or resource.
    """
    name = reference.get("containerName") or container
    spec = pod["spec"]
    everyone = [*(spec.get("initContainers") or []), *spec["containers"]]
    found = next((c for c in everyone if c["name"] == name), None)
    if found is None:
        raise Unresolvable(f"container {name} not found")
    group, _, which = reference["resource"].partition(".")
    if group not in {"limits", "requests"} or not which:
        raise Unresolvable(f"unsupported container resource : {reference['resource']}")
    amount = ((found.get("resources") or {}).get(group) or {}).get(which)
    if amount is None:
        amount = place.allocatable.get(which, "0") if group == "limits" else "0"
    divisor = quantity(reference.get("divisor") or "0") or Decimal(1)
    return str((quantity(amount) / divisor).to_integral_value(ROUND_CEILING))
