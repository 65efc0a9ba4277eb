"""What readers saw: monotonic per backend, how stale, and forks between primary and replica.

Reads return all counters in one statement. Values of one counter only grow on one timeline, so a
vector tells exactly which writes its snapshot had.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.history import (
    OK,
    READ,
    UNSAFE,
    WRITE,
    Column,
    History,
    Table,
    lsn_text,
)

_SHOWN = 4


@dataclass(frozen=True)
class Vectors:
    """Successful reads as a matrix: ``values[i, j]`` is counter ``keys[j]`` in read ``ops[i]``."""

    index: Column
    """Positions in ``history.ops``, ordered by invoke."""
    keys: Column
    values: Column


_made: WeakKeyDictionary[Table, Vectors] = WeakKeyDictionary()


def vectors(history: History) -> Vectors:
    """Return all successful reads that saw every counter; made once per history."""
    if history.ops not in _made:
        _made[history.ops] = _vectors(history)
    return _made[history.ops]


def _vectors(history: History) -> Vectors:
    ops, cells = history.ops, history.cells
    reads = np.flatnonzero((ops.kind == READ) & (ops.outcome == OK))
    keys = np.flatnonzero(np.bincount(cells.key)).astype(np.int32)  # few and small: no sort
    if not len(reads) or not len(keys):
        return Vectors(reads[:0], keys, np.empty((0, len(keys)), np.int64))
    reads = reads[np.argsort(ops.op[reads], kind="stable")]
    if _regular(cells, ops.op[reads], keys):
        matrix = cells.value.reshape(len(reads), len(keys))
        order = np.argsort(ops.invoke[reads], kind="stable")
        return Vectors(reads[order], keys, matrix[order])
    known = np.isin(cells.op, ops.op[reads])
    row = np.searchsorted(ops.op[reads], cells.op[known])
    column = np.searchsorted(keys, cells.key[known])
    values = np.full((len(reads), len(keys)), -1, np.int64)
    values[row, column] = cells.value[known]
    whole = (values >= 0).all(axis=1)
    order = np.argsort(ops.invoke[reads[whole]], kind="stable")
    return Vectors(reads[whole][order], keys, values[whole][order])


def _regular(cells: Table, reads: Column, keys: Column) -> bool:
    """Tell whether every read has all counters, one read after another: then no search is needed."""
    if len(cells) != len(reads) * len(keys):
        return False
    shape = (len(reads), len(keys))
    in_order: bool = (cells.op.reshape(shape) == reads[:, None]).all()
    return in_order and bool((cells.key.reshape(shape) == keys).all())


def check_monotonic(history: History) -> Finding:
    """Judge that no backend of one timeline ever showed an older state than it had shown before.

    A read counts as after another only if it began after the other had ended. A backend is one
    life of one postmaster, and its timeline: a restart may begin anew, a rewind must.
    """
    rule = "reads-are-monotonic-per-backend"
    seen = vectors(history)
    ops = history.ops
    bad: list[tuple[int, int, int]] = []
    count = 0
    servers = ops.server[seen.index]
    for server in np.unique(servers):
        mine = np.flatnonzero(servers == server)
        done = ops.done[seen.index[mine]]
        order = np.argsort(done, kind="stable")
        highest = np.maximum.accumulate(seen.values[mine[order]], axis=0)
        before = np.searchsorted(done[order], ops.invoke[seen.index[mine]], side="left")
        late = before > 0
        stepped = seen.values[mine[late]] < highest[before[late] - 1]
        count += int(stepped.any(axis=1).sum())
        for position, column in np.argwhere(stepped)[:_SHOWN]:
            reader = mine[late][position]
            limit = before[late][position]
            witness = mine[order][: int(limit)]
            by = witness[np.argmax(seen.values[witness, column])]
            bad.append((int(by), int(reader), int(column)))
    numbers: dict[str, Number] = {"reads": len(seen.index), "steps_back": count}
    if not len(seen.index):
        return Finding(rule, "unknown", "nothing was read", numbers)
    if not bad:
        sentence = f"{len(seen.index)} reads, and no backend ever went back"
        return Finding(rule, "holds", sentence, numbers)
    lines = tuple(
        f"counter {seen.keys[column]} {said} {seen.values[read, column]}: "
        + history.describe(int(seen.index[read]))
        for by, reader, column in bad[:_SHOWN]
        for said, read in (("was", by), ("and then", reader))
    )
    return Finding(rule, "violated", "a backend showed an older state than before", numbers, lines)


@dataclass(frozen=True)
class Staleness:
    """Per read: how many acknowledged writes it missed, and for how long the oldest had been acknowledged."""

    index: Column
    versions: Column
    age_s: Column

    def quantiles(self) -> dict[str, Number]:
        """Return p50, p99 and maximum of the age in seconds, and the most versions missed."""
        if not len(self.index):
            return {"reads": 0}
        p50, p99 = np.quantile(self.age_s, [0.5, 0.99])
        return {
            "reads": len(self.index),
            "stale": int((self.versions > 0).sum()),
            "p50_s": round(float(p50), 5),
            "p99_s": round(float(p99), 5),
            "max_s": round(float(self.age_s.max()), 5),
            "most_versions": int(self.versions.max()),
        }


def staleness(history: History, which: Column | None = None) -> Staleness:
    """Measure each read against the writes acknowledged before it began.

    ``which`` restricts to some positions of ``history.ops``. The age is the time from the
    acknowledgement of the oldest write that the read missed to the read's begin: 0 if it missed none.
    """
    seen = vectors(history)
    ops = history.ops
    index, values = seen.index, seen.values
    if which is not None:
        wanted = np.zeros(len(ops), np.bool_)
        wanted[which] = True
        keep = wanted[index]
        if not keep.all():
            index, values = index[keep], values[keep]
    begin = ops.invoke[index]
    versions = np.zeros(len(index), np.int64)
    age = np.zeros(len(index), np.int64)
    writes = np.flatnonzero(
        (ops.kind == WRITE) & ((ops.outcome == OK) | (ops.outcome == UNSAFE)) & (ops.key >= 0)
    )
    for column, key in enumerate(seen.keys):
        mine = writes[ops.key[writes] == key]
        if not len(mine):
            continue
        read = np.ascontiguousarray(values[:, column])
        mine = mine[np.argsort(ops.done[mine], kind="stable")]
        done, told = ops.done[mine], ops.value[mine]
        acked = np.searchsorted(done, begin, side="left")
        highest = np.maximum.accumulate(told)
        promised = np.where(acked > 0, highest[np.maximum(acked - 1, 0)], 0)
        missing = np.maximum(promised - read, 0)
        versions = np.maximum(versions, missing)
        # The first acknowledgement above what was read; the running maximum is sorted.
        held = np.flatnonzero(missing)
        at = np.searchsorted(highest, read[held], side="right")
        since = begin[held] - done[np.minimum(at, len(done) - 1)]
        since[at >= len(done)] = 0
        age[held] = np.maximum(age[held], since)
    return Staleness(index, versions, age / 1e9)


def check_read_your_writes(history: History, which: Column, *, promised: bool) -> Finding:
    """Judge that reads ``which`` (of the synchronous standby, under remote_apply) missed no acknowledged write."""
    rule = "read-your-writes-on-the-synchronous-standby"
    stale = staleness(history, which)
    numbers = stale.quantiles()
    if not len(stale.index):
        return Finding(rule, "unknown", "nothing was read from the synchronous standby", numbers)
    missed = np.flatnonzero(stale.versions > 0)
    if not len(missed):
        return Finding(rule, "holds", f"{len(stale.index)} reads saw every earlier write", numbers)
    lines = tuple(
        f"missed {stale.versions[i]} writes, the oldest acknowledged {stale.age_s[i] * 1e3:.1f} ms "
        f"earlier: {history.describe(int(stale.index[i]))}"
        for i in missed[np.argsort(-stale.age_s[missed])][:_SHOWN]
    )
    sentence = f"{len(missed)} of {len(stale.index)} reads missed an acknowledged write"
    return Finding(rule, "violated" if promised else "expected", sentence, numbers, lines)


def check_staleness(history: History) -> Finding:
    """Tell how stale the replicas were; a distribution, never a violation by itself."""
    ops = history.ops
    replicas = np.flatnonzero((ops.kind == READ) & (ops.outcome == OK) & (ops.recovery == 1))
    stale = staleness(history, replicas)
    numbers = stale.quantiles()
    if not len(stale.index):
        return Finding("replica-staleness", "unknown", "no replica was read", numbers)
    p50_ms, p99_ms, max_ms = (float(str(numbers[k])) * 1e3 for k in ("p50_s", "p99_s", "max_s"))
    sentence = (
        f"{numbers['stale']} of {numbers['reads']} reads of replicas were stale: "
        f"median {p50_ms:.1f} ms, 99 % {p99_ms:.1f} ms, most {max_ms:.1f} ms"
    )
    worst = int(stale.index[np.argmax(stale.age_s)])
    return Finding("replica-staleness", "expected", sentence, numbers, (history.describe(worst),))


def check_long_fork(history: History) -> Finding:
    """Look for snapshots of primary and replica that each have a write the other lacks.

    PostgreSQL promises nothing here: visibility on a primary is not WAL order. It is ``expected``,
    at every isolation level and with ``remote_apply`` too. On one backend it would be a violation.
    """
    rule = "long-fork"
    seen = vectors(history)
    ops = history.ops
    standby = ops.recovery[seen.index] == 1
    numbers: dict[str, Number] = {
        "primary_reads": int((~standby).sum()),
        "replica_reads": int(standby.sum()),
        "forks": 0,
    }
    example: tuple[int, int, int, int] | None = None
    forks: set[int] = set()
    # Per pair of counters: sort by the first, then a later vector with a smaller second one is
    # incomparable to the earlier one with the largest.
    moving: list[int] = []
    if len(seen.index):
        moving = [int(i) for i in np.flatnonzero(np.ptp(seen.values, axis=0))]
    for i, a in enumerate(moving):
        for b in moving[i + 1 :]:
            found = _incomparable(seen.values[:, a], seen.values[:, b], standby)
            if len(found) and example is None:
                example = (int(found[0, 0]), int(found[0, 1]), a, b)
            forks.update(map(int, found[:, 1]))
    numbers["forks"] = len(forks)
    if not len(seen.index):
        return Finding(rule, "unknown", "nothing was read", numbers)
    if example is None:
        return Finding(rule, "holds", "primary and replicas never showed a fork", numbers)
    one, other, a, b = example
    lines = tuple(
        f"counter {seen.keys[a]} = {seen.values[i, a]}, counter {seen.keys[b]} = {seen.values[i, b]}"
        f" at {lsn_text(ops.lsn[seen.index[i]])}: {history.describe(int(seen.index[i]))}"
        for i in (one, other)
    )
    sentence = f"{len(forks)} replica reads were in a long fork with the primary"
    return Finding(rule, "expected", sentence, numbers, lines)


def _incomparable(first: Column, second: Column, standby: Column) -> Column:
    """Return pairs (primary read, replica read), one per replica read that is in a fork."""
    primary = np.flatnonzero(~standby)
    replica = np.flatnonzero(standby)
    if not len(primary) or not len(replica):
        return np.empty((0, 2), np.int64)
    primary = primary[np.argsort(first[primary], kind="stable")]
    pa, pb = first[primary], second[primary]
    pairs = []
    # Primaries with less of the first counter: does one of them have more of the second?
    top = np.maximum.accumulate(pb)
    top_at = np.maximum.accumulate(np.where(pb == top, np.arange(len(pb)), 0))
    below = np.searchsorted(pa, first[replica], side="left")
    hit = (below > 0) & (top[np.maximum(below - 1, 0)] > second[replica])
    pairs.append(np.stack([primary[top_at[below[hit] - 1]], replica[hit]], axis=1))
    # Primaries with more of the first: does one of them have less of the second?
    low = np.minimum.accumulate(pb[::-1])[::-1]
    reverse = np.where(pb == low, np.arange(len(pb)), len(pb) - 1)
    low_at = np.minimum.accumulate(reverse[::-1])[::-1]
    above = np.searchsorted(pa, first[replica], side="right")
    hit = (above < len(pa)) & (low[np.minimum(above, len(pa) - 1)] < second[replica])
    pairs.append(np.stack([primary[low_at[above[hit]]], replica[hit]], axis=1))
    return np.concatenate(pairs)
