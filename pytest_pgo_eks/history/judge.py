"""Everything the matrix allows us to say about one history."""

from __future__ import annotations

from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.history.exposure import check_exposure, misrouted
from pytest_pgo_eks.history.history import READ, History
from pytest_pgo_eks.history.matrix import Level, Mode, allows_loss, promise
from pytest_pgo_eks.history.primaries import check_overlap, check_twin_values
from pytest_pgo_eks.history.reads import check_long_fork, check_monotonic, check_staleness
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
    return findings


def measure(history: History) -> list[Finding]:
    """Return what is worth telling and promised by nobody: misrouting, staleness, long forks."""
    told = [misrouted(history)]
    if (history.ops.kind == READ).any():
        told += [check_staleness(history), check_long_fork(history)]
    return told
