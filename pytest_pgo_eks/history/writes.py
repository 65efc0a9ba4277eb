"""What became of every write: lost, present, from nowhere, twice, or present though it failed.

Judged against the read-back of the primary at the end. An *acknowledged* write is a command tag
without a SyncRep notice, in a session whose ``synchronous_commit`` is at least the declared level.
``unsafe`` and ``info`` writes may survive or vanish; nothing is ever asserted about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_pgo_eks.errors import BrokenHistory
from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.history import (
    FAIL,
    INFO,
    LEVELS,
    OK,
    UNSAFE,
    WRITE,
    Column,
    History,
    Mask,
    lsn_text,
)

_SHOWN = 5
_NEVER_DURABLE = ("off", "local")


def acknowledged(history: History) -> Mask:
    """Return which operations are acknowledged writes that replication promises something about."""
    ops = history.ops
    mask: Mask = (ops.kind == WRITE) & (ops.outcome == OK)
    for level in _NEVER_DURABLE:
        mask &= ops.level != LEVELS.index(level)
    return mask


def rows_of(history: History, source: Mapping[str, Any]) -> Mask:
    """Return which entries of ``history.rows`` are log rows read from ``source``."""
    rows: Mask = (history.rows.source == source["source"]) & (history.rows.op > 0)
    told = source.get("rows")
    if told is not None and int(rows.sum()) != told:
        raise BrokenHistory(
            f"{source.get('name')} had {told} rows and the history has {int(rows.sum())} of them"
        )
    return rows


def lost(history: History, source: Mapping[str, Any]) -> Column:
    """Return the indexes of the acknowledged writes that are not on ``source``, oldest first."""
    candidates = np.flatnonzero(acknowledged(history))
    present = np.isin(history.ops.op[candidates], history.rows.op[rows_of(history, source)])
    gone = candidates[~present]
    return gone[np.argsort(history.ops.done[gone], kind="stable")]


def commit_upper_bound(history: History, which: Column) -> Column:
    """Return for each operation a WAL position at or behind its commit record (2**64-1: none known).

    An operation begun after the acknowledgement on the same timeline reads an insert position
    that lies behind the commit: the smallest such position is the bound.
    """
    ops = history.ops
    bound = np.full(len(which), np.iinfo(np.uint64).max, np.uint64)
    told = (ops.kind == WRITE) & ((ops.outcome == OK) | (ops.outcome == UNSAFE)) & (ops.lsn > 0)
    for timeline in np.unique(ops.timeline[which]):
        later = np.flatnonzero(told & (ops.timeline == timeline))
        later = later[np.argsort(ops.invoke[later], kind="stable")]
        smallest = np.minimum.accumulate(ops.lsn[later][::-1])[::-1]
        mine = np.flatnonzero(ops.timeline[which] == timeline)
        at = np.searchsorted(ops.invoke[later], ops.done[which[mine]], side="right")
        known = at < len(later)
        bound[mine[known]] = smallest[at[known]]
    return bound


def check_lost(history: History, *, allowed: bool) -> list[Finding]:
    """Judge that no acknowledged write is lost.

    ``allowed`` is true where replication is asynchronous: losing the newest writes is then
    ``expected`` (how much is told), but losing one that lies *before* a survivor in the WAL is not.
    """
    rule = "no-acknowledged-write-lost"
    source = history.primary_source()
    if source is None:
        return [
            Finding(rule, "unknown", "no primary was read back, so nothing is known to survive")
        ]
    count = int(acknowledged(history).sum())
    if not count:
        return [Finding(rule, "unknown", "no write was ever acknowledged, so none could be lost")]
    gone = lost(history, source)
    numbers: dict[str, Number] = {
        "acknowledged": count,
        "lost": len(gone),
        "unsafe": int(((history.ops.kind == WRITE) & (history.ops.outcome == UNSAFE)).sum()),
        "indeterminate": int(((history.ops.kind == WRITE) & (history.ops.outcome == INFO)).sum()),
    }
    if not len(gone):
        return [Finding(rule, "holds", f"all {count} acknowledged writes are there", numbers)]
    span_s = (history.ops.done[gone[-1]] - history.ops.done[gone[0]]) / 1e9
    numbers["lost_span_s"] = round(float(span_s), 4)
    lines = tuple(history.describe(i) for i in gone[:_SHOWN])
    sentence = (
        f"{len(gone)} of {count} acknowledged writes are lost, acknowledged within {span_s:.3f} s"
    )
    findings = [
        Finding(rule, "expected" if allowed else "violated", sentence, numbers, lines),
    ]
    findings.append(_suffix(history, source, gone))
    return findings


def _suffix(history: History, source: Mapping[str, Any], gone: Column) -> Finding:
    """Judge that what is lost lay behind everything that survived, per timeline, in WAL order."""
    rule = "loss-is-a-suffix"
    rows = history.rows[rows_of(history, source)]
    bound = commit_upper_bound(history, gone)
    proofs: list[str] = []
    broken = 0
    for timeline in np.unique(history.ops.timeline[gone]):
        survivors = np.flatnonzero(rows.timeline == timeline)
        if not len(survivors):
            continue
        last = survivors[np.argmax(rows.lsn[survivors])]
        here = (history.ops.timeline[gone] == timeline) & (bound <= rows.lsn[last])
        broken += int(here.sum())
        proofs += [
            f"{history.describe(i)}: committed before {lsn_text(b)}, and op {rows.op[last]} "
            f"written at {lsn_text(rows.lsn[last])} survived"
            for i, b in zip(gone[here][:_SHOWN], bound[here][:_SHOWN], strict=True)
        ]
    numbers: dict[str, Number] = {"lost": len(gone), "before_a_survivor": broken}
    if broken:
        sentence = f"{broken} lost writes lie before a surviving one in the WAL"
        return Finding(rule, "violated", sentence, numbers, tuple(proofs[:_SHOWN]))
    return Finding(rule, "holds", "what is lost is the end of a timeline's WAL", numbers)


def check_present(history: History) -> list[Finding]:
    """Judge every row that is there: written by us, once, not by a failed operation, as told."""
    source = history.primary_source()
    if source is None:
        return [Finding("no-write-from-nowhere", "unknown", "no primary was read back")]
    rows = history.rows[rows_of(history, source)]
    ops = history.ops
    writes = np.flatnonzero(ops.kind == WRITE)
    writes = writes[np.argsort(ops.op[writes], kind="stable")]
    at = np.searchsorted(ops.op[writes], rows.op)
    at_safe = np.minimum(at, max(len(writes) - 1, 0))
    known = (ops.op[writes][at_safe] == rows.op) if len(writes) else np.zeros(len(rows), np.bool_)
    unknown = ~known
    if history.under_way_from is not None:
        # The probe died: what it had begun and could not record may be there.
        unknown &= rows.op < history.under_way_from
    mine = writes[at_safe[known]] if len(writes) else writes
    failed = known.copy()
    failed[known] = ops.outcome[mine] == FAIL
    told = known.copy()
    told[known] = (ops.outcome[mine] == OK) & (
        (ops.value[mine] != rows.value[known]) | (ops.key[mine] != rows.key[known])
    )
    sorted_ops = np.sort(rows.op)
    twice = np.unique(sorted_ops[1:][sorted_ops[1:] == sorted_ops[:-1]])
    again = np.isin(rows.op, twice) if len(twice) else np.zeros(len(rows), np.bool_)
    total = len(rows)
    return [
        _row_finding(
            "no-write-from-nowhere", "were never written by a client", rows, unknown, total
        ),
        _row_finding(
            "no-failed-write-present", "belong to writes that failed", rows, failed, total
        ),
        _row_finding(
            "value-as-acknowledged", "differ from what was acknowledged", rows, told, total
        ),
        _row_finding("no-write-twice", "are there more than once", rows, again, total),
        *_atomic(history, source),
    ]


def _row_finding(rule: str, what: str, rows: Any, bad: Mask, total: int) -> Finding:
    count = int(bad.sum())
    numbers: dict[str, Number] = {"rows": total, "bad": count}
    if not count:
        return Finding(rule, "holds", f"none of {total} rows {what}", numbers)
    lines = tuple(
        f"row of op {rows.op[i]}: counter {rows.key[i]} = {rows.value[i]}, timeline "
        f"{rows.timeline[i]}, at {lsn_text(rows.lsn[i])}"
        for i in np.flatnonzero(bad)[:_SHOWN]
    )
    return Finding(rule, "violated", f"{count} of {total} rows {what}", numbers, lines)


def _atomic(history: History, source: Mapping[str, Any]) -> list[Finding]:
    """Judge that a counter is as high as its log has rows: both are written in one statement."""
    rows = history.rows
    here = rows.source == source["source"]
    counters = here & (rows.op == 0)
    if not counters.any():
        return [Finding("writes-are-atomic", "unknown", "the counters were not read back")]
    keys, values = rows.key[counters], rows.value[counters]
    log = here & (rows.op > 0) & (rows.key >= 0)
    # Rows that came twice are another finding: count operations, not rows.
    _, first = np.unique(rows.op[log], return_index=True)
    counted = np.bincount(rows.key[log][first], minlength=int(keys.max()) + 1)[keys]
    bad = np.flatnonzero(counted != values)
    numbers: dict[str, Number] = {"counters": len(keys), "torn": len(bad)}
    if not len(bad):
        return [Finding("writes-are-atomic", "holds", "every counter equals its log", numbers)]
    lines = tuple(
        f"counter {keys[i]} is {values[i]}, its log has {counted[i]} rows" for i in bad[:_SHOWN]
    )
    sentence = f"{len(bad)} of {len(keys)} counters differ from their log"
    return [Finding("writes-are-atomic", "violated", sentence, numbers, lines)]


def counter_losses(history: History) -> list[tuple[int, int, int, int, int]]:
    """Return exact loss per counter from acknowledgements alone, without any read-back.

    One tuple per step back: (counter, least lost, most lost, index of the acknowledged operation
    before, index of the one after). A writer that was told n last and had m indeterminate operations since
    must be told n+1 … n+1+m next; being told less says at once how many of its writes are gone.
    """
    ops = history.ops
    writes = np.flatnonzero((ops.kind == WRITE) & (ops.key >= 0) & (ops.outcome != FAIL))
    writes = writes[np.lexsort((ops.invoke[writes], ops.key[writes]))]
    outcome, key, value = ops.outcome[writes], ops.key[writes], ops.value[writes]
    # Only an acknowledgement promises anything; a cancelled wait still tells what the server had.
    promised = np.isin(writes, np.flatnonzero(acknowledged(history)))
    at = np.arange(len(writes))
    last = np.maximum.accumulate(np.where(promised, at, -1))
    last = np.concatenate(([-1], last[:-1])) if len(writes) else last
    told = (outcome == OK) | (outcome == UNSAFE)
    back = told & (last >= 0) & (key == key[last]) & (value <= value[last])
    found: list[tuple[int, int, int, int, int]] = []
    reported = -1
    for after in np.flatnonzero(back).tolist():
        before = int(last[after])
        if before == reported:
            continue
        reported = before
        least = int(value[before] + 1 - value[after])
        most = least + after - before - 1
        found.append((int(key[after]), least, most, int(writes[before]), int(writes[after])))
    return found


def check_counters(history: History, *, allowed: bool) -> Finding:
    """Judge by the counters that nothing acknowledged was lost, and nobody else wrote.

    Needs no read-back: the first acknowledgement after a failover tells.
    """
    rule = "no-counter-steps-back"
    steps = counter_losses(history)
    numbers: dict[str, Number] = {
        "steps_back": len(steps),
        "lost_at_least": sum(s[1] for s in steps),
        "lost_at_most": sum(s[2] for s in steps),
    }
    if not steps:
        return Finding(rule, "holds", "no counter ever stepped back", numbers)
    lines = tuple(
        line
        for key, least, _most, before, after in steps[:_SHOWN]
        for line in (
            f"counter {key} lost at least {least}: {history.describe(before)}",
            f"… then: {history.describe(after)}",
        )
    )
    sentence = (
        f"{len(steps)} counters stepped back: {numbers['lost_at_least']} to "
        f"{numbers['lost_at_most']} acknowledged writes are gone"
    )
    return Finding(rule, "expected" if allowed else "violated", sentence, numbers, lines)
