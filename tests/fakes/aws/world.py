"""The state of the fake: plain data that can be copied, and a clock that only waits move."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fakes.aws.answers import Thing

REGION = "us-east-1"
ACCOUNT = "111122223333"
BEGAN = datetime(2026, 11, 23, 20, 0, 0, tzinfo=UTC)
MANAGED = (
    "AmazonEKSClusterPolicy",
    "AmazonEKSServicePolicy",
    "CloudWatchFullAccess",
    "AmazonEKSWorkerNodePolicy",
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonEKS_CNI_Policy",
    "AmazonSSMManagedInstanceCore",
    "service-role/AmazonEBSCSIDriverPolicy",
    "CloudWatchAgentServerPolicy",
)
TYPES = {
    "m7g.large": ("arm64", 2),
    "m7g.xlarge": ("arm64", 4),
    "m6g.large": ("arm64", 2),
    "m7i-flex.large": ("x86_64", 2),
    "m6a.large": ("x86_64", 2),
    "m5.large": ("x86_64", 2),
    "m5.16xlarge": ("x86_64", 64),
    "m6i.16xlarge": ("x86_64", 64),
    "m5a.16xlarge": ("x86_64", 64),
}
#: Version, status, end of standard support, end of extended support.
VERSIONS = (
    ("1.36", "STANDARD_SUPPORT", "2027-08-02", "2028-08-02"),
    ("1.35", "STANDARD_SUPPORT", "2027-03-27", "2028-03-27"),
    ("1.34", "STANDARD_SUPPORT", "2026-12-02", "2027-12-02"),
    ("1.33", "EXTENDED_SUPPORT", "2026-07-29", "2027-07-29"),
    ("1.29", "UNSUPPORTED", "2025-03-23", "2026-03-23"),
)
QUOTAS = {
    ("ec2", "L-1216C47A"): 512.0,
    ("vpc", "L-F678F1CE"): 5.0,
    ("ec2", "L-0263D0A3"): 5.0,
    ("vpc", "L-FE5A380F"): 5.0,
    ("eks", "L-1194D53C"): 100.0,
}


class Clock:
    """Monotonic seconds and the wall clock of one world; ``pause`` is what moves both."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        #: How far AWS's clock is ahead of ours.
        self.skew_s = 0.0

    def now(self) -> float:
        return self.passed_s

    def pause(self, seconds: float) -> None:
        self.passed_s += max(seconds, 0.0)

    def moment(self) -> datetime:
        return BEGAN + timedelta(seconds=self.passed_s)

    wall = moment


@dataclass
class World:
    """Everything that AWS knows. ``things`` holds what there is by kind and id."""

    clock: Clock = field(default_factory=Clock)
    things: dict[str, dict[str, Thing]] = field(default_factory=dict)
    arn: str = f"arn:aws:sts::{ACCOUNT}:assumed-role/runner/night"
    count: int = 0
    #: Changes so far; two moments with the same number are the same world but for the clock.
    changes: int = 0
    zones: tuple[str, ...] = tuple(f"{REGION}{letter}" for letter in "abcdef")
    #: Zones in which EKS has no room for a control plane.
    zones_without_eks: tuple[str, ...] = (f"{REGION}e",)
    #: (instance type, zone) that is not offered, and that has no capacity left.
    not_offered: set[tuple[str, str]] = field(default_factory=set)
    no_capacity: set[tuple[str, str]] = field(default_factory=set)
    quotas: dict[tuple[str, str], float] = field(default_factory=lambda: dict(QUOTAS))
    managed: tuple[str, ...] = MANAGED
    denied: set[str] = field(default_factory=set)
    #: Reasons with which the creation, or deletion, of a logical resource fails: the next first.
    fail_create: dict[str, list[str]] = field(default_factory=dict)
    fail_delete: dict[str, list[str]] = field(default_factory=dict)
    #: What grows beside the stacks.
    leak_eni: bool = False
    late_logs: bool = False
    endpoint: str = ""
    authority: str = ""
    issuer: str = "0123456789ABCDEF0123456789ABCDEF"

    def kind(self, name: str) -> dict[str, Thing]:
        return self.things.setdefault(name, {})

    def new_id(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}-{self.count:017x}"

    def put(self, kind: str, name: str, thing: Thing) -> Thing:
        self.changes += 1
        self.kind(kind)[name] = thing
        return thing

    def drop(self, kind: str, name: str) -> None:
        self.changes += 1
        del self.kind(kind)[name]

    def touched(self) -> None:
        """Note a change that neither put nor dropped a thing."""
        self.changes += 1

    def copy(self) -> World:
        """Return a world of its own in the same state; pickling is five times a deep copy's pace."""
        found: World = pickle.loads(pickle.dumps(self, pickle.HIGHEST_PROTOCOL))
        return found

    def everything(self) -> list[str]:
        """Return kind and name of all there is, for a proof that nothing is left."""
        return sorted(f"{kind} {name}" for kind, all_of in self.things.items() for name in all_of)


def facts(**known: Any) -> dict[str, Any]:
    """Return keyword arguments without those that are None."""
    return {key: value for key, value in known.items() if value is not None}
