"""Everything the matrix allows us to say about one history."""

from __future__ import annotations

from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.history.exposure import (
    check_exposure,
    misrouted,
    reads_of_synchronous_standby,
)
from pytest_pgo_eks.history.history import READ, TXN, History
from pytest_pgo_eks.history.isolation import ISOLATION, check_isolation
from pytest_pgo_eks.history.matrix import Level, Mode, allows_loss, promise
from pytest_pgo_eks.history.primaries import check_overlap, check_twin_values
from pytest_pgo_eks.history.reads import (
    check_long_fork,
    check_monotonic,
    check_read_your_writes,
    check_staleness,
)
from pytest_pgo_eks.history.writes import check_counters, check_lost, check_present


def judge(history: History, mode: Mode, level: Level = "on") -> list[Finding]:
    """Return every finding about writes, primaries and reads under the declared mode and level.

    A history that did not end well or was not read back gives ``unknown`` findings, never
    silence. Rules that the mode does not promise come as ``expected``.
    """
    allowed = allows_loss(mode, level)
    overlap_allowed = "one-primary-at-a-time" not in promise(mode, level).must
    findings = [
        *check_lost(history, allowed=allowed),
        check_counters(history, allowed=allowed),
        *check_present(history),
        check_twin_values(history, allowed=allowed),
        check_overlap(history, allowed=overlap_allowed),
    ]
    if len(history.looks):
        findings.append(check_exposure(history, strict=mode == "strict"))
    if (history.ops.kind == READ).any():
        findings.append(check_monotonic(history))
        findings += _own_writes(history, mode, level)
    if (history.ops.kind == TXN).any():
        # Where levels are mixed, only the weakest one holds for all of them together.
        weakest = int(history.ops.key[history.ops.kind == TXN].min())
        findings += check_isolation(history, ISOLATION[weakest], allowed_loss=allowed)
    return findings


def _own_writes(history: History, mode: Mode, level: Level) -> list[Finding]:
    """Judge read-your-writes where a reading path is called like a member that the monitors name."""
    if level != "remote_apply":
        return []
    promised = "read-your-writes-on-the-synchronous-standby" in promise(mode, level).must
    members = {name for w in set(history.looks.who.tolist()) for name in history.word(w).split(",")}
    return [
        check_read_your_writes(
            history,
            reads_of_synchronous_standby(history, history.path(number), history.path(number)),
            promised=promised,
        )
        for number in sorted(history.reading_paths)
        if history.path(number) in members
    ]


def measure(history: History) -> list[Finding]:
    """Return what is worth telling and promised by nobody: misrouting, staleness, long forks."""
    told = [misrouted(history)]
    if (history.ops.kind == READ).any():
        told += [check_staleness(history), check_long_fork(history)]
    return told
