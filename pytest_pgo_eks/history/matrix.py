"""What may be asserted under which replication mode and session level, as data.

Sources: the PostgreSQL documentation of ``synchronous_commit``, Patroni's ``replication_modes``, and
measurements of what a commit that waits for a standby really does. ``must`` rules are violations when
broken; ``expected`` ones are told and judged as expected; ``never`` lists what looks natural and
is promised by nobody, so that no checker may assert it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Mode = Literal["async", "sync", "strict", "quorum"]
Level = Literal["remote_write", "on", "remote_apply", "local", "off"]
MODES: tuple[Mode, ...] = ("async", "sync", "strict", "quorum")
LEVELS: tuple[Level, ...] = ("remote_write", "on", "remote_apply", "local", "off")

ALWAYS = (
    "no-write-from-nowhere",
    "no-write-twice",
    "no-failed-write-present",
    "value-as-acknowledged",
    "writes-are-atomic",
    "loss-is-a-suffix",
    "reads-are-monotonic-per-backend",
)
_SYNC = ("no-acknowledged-write-lost", "no-counter-steps-back", "no-value-on-two-timelines")
_NEVER = (
    "snapshot isolation, serializability or real-time order across primary and replica endpoints",
    "monotonic reads through a load-balanced replica Service",
    "absence of an indeterminate write",
    "survival of a write whose wait for the standby was cancelled",
    "survival of a value because a reader saw it",
)


@dataclass(frozen=True)
class Promise:
    """One row of the matrix."""

    must: tuple[str, ...]
    expected: tuple[str, ...]
    never: tuple[str, ...]


def promise(mode: Mode, level: Level) -> Promise:
    """Return what holds for sessions of ``level`` under ``mode``."""
    return _MATRIX[mode, level]


def allows_loss(mode: Mode, level: Level) -> bool:
    """Whether losing the newest acknowledged writes breaks no promise."""
    return "no-acknowledged-write-lost" not in promise(mode, level).must


def _row(mode: Mode, level: Level) -> Promise:
    must: tuple[str, ...] = ALWAYS
    expected: tuple[str, ...] = ("long-fork",)
    never: tuple[str, ...] = _NEVER
    if mode == "async" or level in {"local", "off"}:
        expected += (*_SYNC, "one-primary-at-a-time")
        never += ("no loss at all", "read-your-writes after a failover")
        if level in {"local", "off"}:
            never += ("anything about the loss of such writes",)
        return Promise(must, expected, never)
    must += (*_SYNC, "one-primary-at-a-time")
    if mode == "strict":
        must += ("no-unreplicated-acknowledgement",)
    else:
        expected += ("no-unreplicated-acknowledgement",)
        never += ("several copies in a window without a synchronous standby",)
    if mode == "quorum":
        never += ("which standby holds a commit",)
    if level == "remote_write":
        never += ("survival of a crash of the standby's operating system",)
    if level == "remote_apply":
        must += ("read-your-writes-on-the-synchronous-standby",)
        never += ("read-your-writes on any other replica or through the replica Service",)
    return Promise(must, expected, never)


_MATRIX: Mapping[tuple[Mode, Level], Promise] = {
    (mode, level): _row(mode, level) for mode in MODES for level in LEVELS
}
