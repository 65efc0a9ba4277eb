"""Why a stack failed: the first reason in its events, and what kind of trouble that is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["capacity", "zone", "quota", "denied", "in use", "passing", "other"]

_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (
        "capacity",
        re.compile(
            r"InsufficientInstanceCapacity|Insufficient\w*Capacity|sufficient \S+ capacity"
            r"|Unsupported.*instance type|instance type.*not supported|AsgInstanceLaunchFailures.*"
            r"not supported",
            re.IGNORECASE,
        ),
    ),
    ("zone", re.compile(r"UnsupportedAvailabilityZone|targeted availability zone")),
    (
        "quota",
        re.compile(
            r"LimitExceeded|VcpuLimitExceeded|vCPU capacity|maximum number of|quota"
            r"|ResourceLimitExceeded|AddressLimitExceeded",
            re.IGNORECASE,
        ),
    ),
    ("denied", re.compile(r"not authorized|AccessDenied|UnauthorizedOperation")),
    ("in use", re.compile(r"DependencyViolation|has a dependent|in use|InUse|has dependencies|DeleteConflict|mapped public address")),
    (
        "passing",
        re.compile(r"Throttl|Rate exceeded|ServiceUnavailable|InternalError|Internal Failure|timed out|DEGRADED|NotStabilized|GeneralServiceException", re.IGNORECASE),
    ),
)  # fmt: skip
_CANCELLED = re.compile(r"(creation|deletion|update) cancelled", re.IGNORECASE)
_ZONE = re.compile(r"\b[a-z]{2}(?:-[a-z]+)+-\d[a-z]\b")


@dataclass(frozen=True)
class Cause:
    """One failed resource: its logical name and type, AWS's words, and what kind of trouble."""

    name: str
    type: str
    said: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.name} ({self.type}): {self.said}"


def causes(events: Iterable[Mapping[str, Any]], verb: str = "CREATE") -> list[Cause]:
    """Return what failed by itself, the first first.

    ``events`` are a stack's, in any order. What was merely cancelled because something else failed,
    and the stack's own line, say nothing.
    """
    found: list[Cause] = []
    for event in sorted(events, key=lambda e: (e["Timestamp"], e["EventId"])):
        said = " ".join(str(event.get("ResourceStatusReason", "")).split())
        if event["ResourceStatus"] != f"{verb}_FAILED" or _CANCELLED.search(said):
            continue
        if event["ResourceType"] == "AWS::CloudFormation::Stack":
            continue
        found.append(Cause(event["LogicalResourceId"], event["ResourceType"], said, kind_of(said)))
    return found


def kind_of(said: str) -> Kind:
    """Return what kind of trouble AWS's words describe."""
    for kind, shape in _KINDS:
        if shape.search(said):
            return kind
    return "other"


def usable_zones(said: str) -> tuple[str, ...]:
    """Return the zones that an error about an unsupported one offers instead."""
    _, _, offer = said.partition("choose from these availability zones")
    return tuple(dict.fromkeys(_ZONE.findall(offer)))
