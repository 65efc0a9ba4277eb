"""For how long nothing was acknowledged: writes that go on, sessions that go on, writes that stop."""

from __future__ import annotations

import time

import numpy as np

from pytest_pgo_eks.errors import Inconclusive, WaitTimeout
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.history.demoted import check_reads_of_demoted
from pytest_pgo_eks.history.history import OK, PINNED, WRITE, History
from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.scenario.clients import POOLED_READS, PRIMARY, READS
from pytest_pgo_eks.scenario.stage import Stage

_SECOND = 1e9
_POLL_S = 0.5
# In a long hang clients wait for their answers, and somebody new still tries every second.
_PATIENT_S = 1.0
# How much later than it happened a record may arrive here before it counts as not recorded.
_LATE_S = 10.0
# Nobody writes any more when nothing was acknowledged for this long, while attempts went on.
STOPPED_S = 3.0


def writes_go_on(stage: Stage, for_s: float, pause_s: float, *, pinned: bool = False) -> Finding:
    """Watch that writes through the primary Service are acknowledged, never ``pause_s`` apart.

    ``pinned`` asks the sessions that were open before the fault, and only them. A silence in which
    the probe itself did nothing, not even try, says nothing about the server.
    """
    who = "sessions opened before" if pinned else "writes"
    since = stage.clients.mark(f"from here on {who} have to go on")
    at = time.monotonic()
    until = since + int(for_s * _SECOND)

    def told_until_the_end(seen: History) -> bool:
        used_s = time.monotonic() - at
        arrived = len(seen.ops) > 0 and int(seen.ops.done.max()) >= until
        return used_s >= for_s + _LATE_S or (used_s >= for_s and arrived)

    history = eventually(
        stage.clients.so_far,
        accept=told_until_the_end,
        within_s=for_s + 2 * _LATE_S,
        what=f"{for_s:g} s to pass",
        successes=1,
        poll_s=_POLL_S,
        show=lambda seen: f"{len(seen.ops)} operations",
    )
    (begins, ends), count = _longest(history, since, until, pinned=pinned)
    longest_s = (ends - begins) / _SECOND
    rule = "old-sessions-go-on" if pinned else "writes-go-on"
    numbers = {"for_s": for_s, "longest_s": round(longest_s, 3), "acknowledged": count}
    told = f"{who} through {PRIMARY} were acknowledged {count} times in {for_s:g} s"
    if longest_s <= pause_s:
        sentence = f"{told}, never more than {longest_s:.2f} s apart"
        return Finding(rule, "holds", sentence, numbers)
    sentence = f"{told}, once {longest_s:.2f} s apart; allowed were {pause_s:g} s"
    idle_s = _idle_s(history, begins, ends)
    if longest_s - idle_s <= pause_s:
        sentence += (
            f", but for {idle_s:.2f} s of it no client tried: the probe's machine is too busy"
        )
        return Finding(rule, "unknown", sentence, {**numbers, "idle_s": round(idle_s, 3)})
    return Finding(rule, "violated", sentence, numbers)


def writes_stop(stage: Stage, within_s: float) -> Finding:
    """Wait until no write is acknowledged any more, by anybody, while clients keep trying."""
    began = stage.clients.mark("from here on writes have to stop")
    rule = "writes-stop"

    def silent_s(history: History) -> float:
        """Return from the last acknowledgement to the newest attempt."""
        ops = history.ops
        writes = ops.kind == WRITE
        if not writes.any():
            raise Inconclusive("no client tried to write")
        acknowledged = ops.done[writes & (ops.outcome == OK)]
        last = int(acknowledged.max()) if len(acknowledged) else began
        return float(int(ops.invoke[writes].max()) - last) / _SECOND

    try:
        history = eventually(
            stage.clients.so_far,
            accept=lambda seen: silent_s(seen) >= STOPPED_S,
            within_s=within_s + STOPPED_S,
            what="writes to be acknowledged no more",
            successes=1,
            poll_s=_POLL_S,
            show=lambda seen: f"the last acknowledgement is {silent_s(seen):.1f} s old",
        )
    except WaitTimeout as late:
        if not late.looked:
            raise
        sentence = f"writes were still acknowledged after {within_s:g} s"
        return Finding(rule, "violated", sentence, {"budget_s": within_s})
    ops = history.ops
    done = ops.done[(ops.kind == WRITE) & (ops.outcome == OK)]
    after_s = max(0.0, float(int(done.max()) - began) / _SECOND) if len(done) else 0.0
    sentence = f"the last write was acknowledged {after_s:.2f} s after the fault was proven"
    return Finding(rule, "holds", sentence, {"budget_s": within_s, "after_s": round(after_s, 3)})


def left_the_old_primary(stage: Stage, within_s: float) -> Finding:
    """Judge for how long anybody's writes were acknowledged on a timeline that had ended.

    From the first acknowledgement on the newer timeline to the last one, begun later, on an older:
    pooled and pinned connections that nobody told of the failover. Asynchronous replication lets
    them go on until their server is demoted or killed; how long that may take is the budget.
    """
    history = stage.clients.so_far()
    ops = history.ops
    rule = "old-primary-is-left"
    mine = np.flatnonzero((ops.kind == WRITE) & (ops.outcome == OK) & (ops.timeline > 0))
    timelines = np.unique(ops.timeline[mine])
    if len(timelines) < 2:
        return Finding(rule, "unknown", "writes were acknowledged on one timeline only")
    worst_s, count, lines = 0.0, 0, []
    pinned = 0
    for newer in timelines[1:]:
        there = mine[ops.timeline[mine] == newer]
        first = int(ops.done[there].min())
        late = mine[(ops.timeline[mine] < newer) & (ops.invoke[mine] > first)]
        if not len(late):
            continue
        last = late[np.argmax(ops.done[late])]
        count += len(late)
        pinned += int((ops.session[late] == PINNED).sum())
        worst_s = max(worst_s, float(int(ops.done[last]) - first) / _SECOND)
        lines.append(history.describe(int(last)))
    numbers = {
        "budget_s": within_s,
        "longest_s": round(worst_s, 3),
        "writes": count,
        "pinned": pinned,
    }
    if worst_s <= within_s:
        sentence = f"{count} writes went to a demoted primary, for {worst_s:.2f} s at most"
        return Finding(rule, "holds", sentence, numbers, tuple(lines))
    sentence = (
        f"{count} writes were acknowledged by a demoted primary, for {worst_s:.2f} s; allowed were "
        f"{within_s:g} s"
    )
    return Finding(rule, "violated", sentence, numbers, tuple(lines))


def left_reading_the_old_primary(stage: Stage, within_s: float) -> Finding:
    """Judge for how long anybody's reads were answered by a demoted primary that lacks newer rows."""
    paths = (READS, POOLED_READS)
    return check_reads_of_demoted(stage.clients.so_far(), paths, within_s)


def _longest(
    history: History, since: int, until: int, *, pinned: bool
) -> tuple[tuple[int, int], int]:
    """Return the longest silence between two moments, and how many acknowledgements there were."""
    ops = history.ops
    mine = (
        (ops.kind == WRITE)
        & (ops.outcome == OK)
        & (ops.path == history.path_number(PRIMARY))
        & (ops.done >= since)
        & (ops.done <= until)
    )
    if pinned:
        mine &= ops.session == PINNED
    done = np.sort(ops.done[mine])
    moments = np.concatenate(([since], done, [until]))
    at = int(np.diff(moments).argmax())
    return (int(moments[at]), int(moments[at + 1])), len(done)


def _idle_s(history: History, begins: int, ends: int) -> float:
    """Return for how long between two moments nobody began or ended anything, though one should."""
    signs = np.concatenate((history.ops.invoke, history.ops.done))
    signs = np.sort(signs[(signs > begins) & (signs < ends)])
    longest = float(np.diff(np.concatenate(([begins], signs, [ends]))).max()) / _SECOND
    return max(0.0, longest - _PATIENT_S)
