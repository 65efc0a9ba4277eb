"""When acknowledged writes had only one copy, and who confirmed them otherwise.

Read from the looks of the monitors. A server with an empty ``synchronous_standby_names`` waits for
nobody: what it acknowledges then exists once. Between two looks that both say so, nothing else is
assumed; a look that is missing makes the window unknown, not clean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.history import OK, READ, WRITE, Column, History
from pytest_pgo_eks.history.writes import acknowledged

_SHOWN = 4
_GAP_NS = 2_000_000_000
_MARGIN_NS = 2_000_000_000
_APART_NS = 1_000_000_000


@dataclass(frozen=True)
class Window:
    """A server waited for no standby from ``began`` to ``ended`` (ns), as two looks and all between say."""

    server: int
    began: int
    ended: int

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1e9


def unreplicated(history: History) -> list[Window]:
    """Return the windows in which a primary waited for nobody, in time order."""
    looks = history.looks
    found: list[Window] = []
    for monitor in np.unique(looks.monitor):
        mine = np.flatnonzero(looks.monitor == monitor)
        mine = mine[np.argsort(looks.asked[mine], kind="stable")]
        alone = (looks.recovery[mine] == 0) & (looks.names[mine] == 0)
        began = -1
        for i, at in enumerate(mine.tolist()):
            joined = (
                i > 0
                and alone[i]
                and alone[i - 1]
                and looks.server[at] == looks.server[mine[i - 1]]
                and looks.asked[at] - looks.told[mine[i - 1]] < _GAP_NS
            )
            if joined:
                began = int(looks.told[mine[i - 1]]) if began < 0 else began
                last = at
            if began >= 0 and (not joined or i == len(mine) - 1):
                found.append(Window(int(looks.server[last]), began, int(looks.asked[last])))
                began = -1
    return sorted(found, key=lambda w: w.began)


def check_exposure(history: History, *, strict: bool) -> Finding:
    """Judge (strict) or measure acknowledgements given while the server waited for no standby."""
    rule = "no-unreplicated-acknowledgement"
    if not len(history.looks):
        return Finding(rule, "unknown", "nobody looked at the servers' replication state")
    windows = unreplicated(history)
    ops = history.ops
    mine = acknowledged(history)
    exposed: list[int] = []
    for window in windows:
        inside = mine & (ops.server == window.server)
        inside &= (ops.invoke >= window.began) & (ops.done <= window.ended)
        exposed += np.flatnonzero(inside).tolist()
    seconds = sum(w.seconds for w in windows)
    numbers: dict[str, Number] = {
        "windows": len(windows),
        "exposed_s": round(seconds, 3),
        "acknowledged_meanwhile": len(exposed),
        "looks": len(history.looks),
    }
    if not exposed:
        sentence = "every acknowledged write had a synchronous standby that was waited for"
        if windows:
            sentence = f"no write was acknowledged in {seconds:.1f} s without a standby to wait for"
        return Finding(rule, "holds", sentence, numbers)
    sentence = (
        f"{len(exposed)} writes were acknowledged while only one copy existed, in {seconds:.1f} s"
    )
    lines = tuple(history.describe(i) for i in exposed[:_SHOWN])
    return Finding(rule, "violated" if strict else "expected", sentence, numbers, lines)


def reads_of_synchronous_standby(history: History, member: str, path: str) -> Column:
    """Return the reads through ``path`` that ran while ``member`` was a synchronous standby.

    ``member`` is its ``application_name``. A read counts if the looks before and after it both name
    the member; pass the result to :func:`.reads.check_read_your_writes`.
    """
    looks, ops = history.looks, history.ops
    primary = np.flatnonzero(looks.recovery == 0)
    primary = primary[np.argsort(looks.told[primary], kind="stable")]
    named = np.array([member in history.word(w).split(",") for w in looks.who[primary]], np.bool_)
    reads = np.flatnonzero(
        (ops.kind == READ) & (ops.outcome == OK) & (ops.path == history.path_number(path))
    )
    if not len(primary):
        return reads[:0]
    # The write that a read must see was acknowledged before it began; the standby had to be
    # synchronous then already, so the look before has to be older than that by a margin.
    before = np.searchsorted(looks.told[primary], ops.invoke[reads] - _MARGIN_NS, side="right") - 1
    after = np.searchsorted(looks.asked[primary], ops.done[reads], side="left")
    sure = (before >= 0) & (after < len(primary))
    sure[sure] &= named[before[sure]] & named[after[sure]]
    steady = np.concatenate(([0], np.cumsum(~named)))
    sure[sure] &= steady[after[sure] + 1] == steady[before[sure]]
    return reads[sure]


def misrouted(history: History) -> Finding:
    """Measure for how long a path led to a server that could not write (SQLSTATE 25006)."""
    ops = history.ops
    codes = [number for number, word in history.words.items() if word == "25006"]
    wrong = np.flatnonzero((ops.kind == WRITE) & np.isin(ops.code, codes))
    numbers: dict[str, Number] = {"refused": len(wrong)}
    rule = "write-path-leads-to-a-primary"
    if not len(wrong):
        return Finding(rule, "holds", "no write met a server that could not write", numbers)
    lines = []
    longest = total = 0.0
    for path in np.unique(ops.path[wrong]):
        here = wrong[ops.path[wrong] == path]
        here = here[np.argsort(ops.invoke[here], kind="stable")]
        breaks = np.flatnonzero(np.diff(ops.invoke[here]) > _APART_NS) + 1
        for several in np.split(here, breaks):
            span_s = float(ops.done[several].max() - ops.invoke[several].min()) / 1e9
            longest, total = max(longest, span_s), total + span_s
            lines.append(
                f"{history.path(int(path))}: {len(several)} writes refused as read-only within "
                f"{span_s:.3f} s, first: {history.describe(int(several[0]))}"
            )
    numbers["longest_s"], numbers["total_s"] = round(longest, 4), round(total, 4)
    sentence = (
        f"writes met a server in recovery for {longest:.2f} s at a stretch ({len(wrong)} refused)"
    )
    return Finding(rule, "expected", sentence, numbers, tuple(lines))
