"""Events have two faces over the same objects: core/v1 and events.k8s.io/v1."""

from __future__ import annotations

from pytest_pgo_eks.local.objects import Obj

_NAMES = {
    "note": "message",
    "regarding": "involvedObject",
    "deprecatedCount": "count",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedSource": "source",
    "reportingController": "reportingComponent",
}
_BACK = {core: name for name, core in _NAMES.items()}


def to_core(event: Obj) -> Obj:
    """Return an events.k8s.io/v1 event as it is stored."""
    found = {_NAMES.get(name, name): value for name, value in event.items()}
    return {**found, "apiVersion": "v1"}


def from_core(event: Obj) -> Obj:
    """Return a stored event as events.k8s.io/v1 shows it."""
    found = {_BACK.get(name, name): value for name, value in event.items()}
    return {**found, "apiVersion": "events.k8s.io/v1"}
