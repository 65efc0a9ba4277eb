"""From list-append transactions to a graph of dependencies, and what single reads give away.

The longest read of a list is its version order; every other read must be a prefix of it. All of it
is done on whole columns: a million transactions with 75 million elements read take three seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pytest_pgo_eks.history.cycles import RW, WR, WW, Ints
from pytest_pgo_eks.history.history import FAIL, OK, TXN, UNSAFE, Column, History, Mask

APPEND, LOOK = range(2)
_CHUNK = 1 << 22
_EXAMPLES = 3


@dataclass
class Anomalies:
    """What was found: by name, printable examples, smallest first, and how many components or reads."""

    examples: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    transactions: int = 0
    edges: int = 0

    def add(self, name: str, example: str, count: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + count
        kept = self.examples.setdefault(name, [])
        if len(kept) < _EXAMPLES:
            kept.append(example)


@dataclass(frozen=True)
class Graph:
    """Dependencies between transactions, as columns; nodes are positions in ``ops`` (rows of kind TXN)."""

    ops: Column
    source: Ints
    target: Ints
    kind: Column


def infer(history: History, found: Anomalies) -> Graph:
    """Return the dependencies; anomalies that need no cycle are added to ``found``."""
    return _Inference(history, found).graph()


class _Inference:
    """Finds the version order and the dependencies; what is wrong with single reads on the way."""

    def __init__(self, history: History, found: Anomalies) -> None:
        self.history = history
        self.found = found
        ops, micro = history.ops, history.micro
        self.txns = np.flatnonzero(ops.kind == TXN)
        self.txns = self.txns[np.argsort(ops.op[self.txns], kind="stable")]
        order = np.lexsort((micro.at, micro.op)) if not _sorted(micro.op, micro.at) else None
        starts = np.concatenate(([0], np.cumsum(np.maximum(micro.count, 0)))).astype(np.int64)
        self.start = starts[:-1] if order is None else starts[:-1][order]
        self.op = micro.op if order is None else micro.op[order]
        self.key = micro.key if order is None else micro.key[order]
        self.value = micro.value if order is None else micro.value[order]
        self.count = micro.count if order is None else micro.count[order]
        self.is_append = (micro.kind if order is None else micro.kind[order]) == APPEND
        self.elements = history.elements.value
        self.txn = np.searchsorted(ops.op[self.txns], self.op)
        self.outcome = ops.outcome[self.txns]

    def graph(self) -> Graph:
        if not len(self.txns) or not len(self.op):
            empty = np.empty(0, np.int64)
            return Graph(self.txns, empty, empty, empty)
        self._writers()
        self._reads()
        self._versions()
        self._check_prefixes()
        self._check_writers()
        self._external()
        source, target, kind = self._edges()
        return Graph(self.txns, source, target, kind)

    def _writers(self) -> None:
        """Index the appends by value: elements are unique over the whole run."""
        appends = np.flatnonzero(self.is_append)
        order = np.argsort(self.value[appends], kind="stable")
        self.appends = appends[order]
        self.append_value = self.value[self.appends]
        self.append_txn = self.txn[self.appends]

    def _writer(self, values: Column) -> tuple[Ints, Mask]:
        """Return the append (position in ``appends``) of each element, and whether there is one."""
        at = np.searchsorted(self.append_value, values)
        safe = np.minimum(at, max(len(self.append_value) - 1, 0))
        if not len(self.append_value):
            return safe, np.zeros(len(values), np.bool_)
        return safe, self.append_value[safe] == values

    def _reads(self) -> None:
        """Keep the reads of transactions that committed: others may have seen anything."""
        committed = (self.outcome == OK) | (self.outcome == UNSAFE)
        self.reads = np.flatnonzero(~self.is_append & (self.count >= 0) & committed[self.txn])

    def _versions(self) -> None:
        """Take the longest read of each key as its version order."""
        keys, self.key_of_read = np.unique(self.key[self.reads], return_inverse=True)
        self.keys = keys
        lengths = self.count[self.reads].astype(np.int64)
        order = np.lexsort((lengths, self.key_of_read))
        last = np.flatnonzero(np.diff(np.append(self.key_of_read[order], -1)))
        longest = self.reads[order[last]]
        size = self.count[longest].astype(np.int64)
        self.version_at = np.concatenate(([0], np.cumsum(size)))
        self.versions = _gather(self.elements, self.start[longest], size)
        self.version_key = np.repeat(np.arange(len(keys)), size)
        self.version_append, self.version_known = self._writer(self.versions)
        self.longest = longest

    def _check_prefixes(self) -> None:
        """Compare every read with its key's version order, a few million elements at a time."""
        self.incompatible = np.zeros(len(self.reads), np.bool_)
        size = self.count[self.reads].astype(np.int64)
        ends = np.cumsum(size)
        bad: list[int] = []
        begin = 0
        while begin < len(self.reads):
            base = ends[begin - 1] if begin else 0
            end = max(int(np.searchsorted(ends, base + _CHUNK, side="right")), begin + 1)
            part = slice(begin, end)
            got = _gather(self.elements, self.start[self.reads[part]], size[part])
            want = _gather(self.versions, self.version_at[self.key_of_read[part]], size[part])
            if not np.array_equal(got, want):
                owner = np.repeat(np.arange(begin, end), size[part])
                bad.extend(np.unique(owner[got != want]).tolist())
            begin = end
        self.incompatible[bad] = True
        for i in bad[:_EXAMPLES]:
            other = self.longest[self.key_of_read[i]]
            self.found.add(
                "incompatible-order",
                f"list {self.key[self.reads[i]]} read as {self._list(self.reads[i])} by "
                f"{self._txn(self.txn[self.reads[i]])} and as {self._list(other)} by "
                f"{self._txn(self.txn[other])}",
                0,
            )
        if bad:
            self.found.counts["incompatible-order"] = len(bad)

    def _check_writers(self) -> None:
        """Look for elements from nowhere, twice, of failed transactions, and for partial ones."""
        for i in np.flatnonzero(~self.version_known).tolist():
            key = self.keys[self.version_key[i]]
            self.found.add("garbage", f"list {key} has {self.versions[i]}, which nobody appended")
        pairs = np.lexsort((self.versions, self.version_key))
        same = (self.versions[pairs[1:]] == self.versions[pairs[:-1]]) & (
            self.version_key[pairs[1:]] == self.version_key[pairs[:-1]]
        )
        for i in pairs[1:][same].tolist():
            key = self.keys[self.version_key[i]]
            self.found.add("duplicate", f"list {key} has {self.versions[i]} more than once")
        writer = self.append_txn[self.version_append] if len(self.append_txn) else None
        if writer is None:
            return
        aborted = self.version_known & (self.outcome[writer] == FAIL)
        for i in np.flatnonzero(aborted).tolist():
            key = self.keys[self.version_key[i]]
            reader = self.txn[self.longest[self.version_key[i]]]
            self.found.add(
                "G1a",
                f"{self._txn(reader)} read {self.versions[i]} in list {key}, appended by "
                f"{self._txn(writer[i])}, which failed",
            )

    def _external(self) -> None:
        """Find for each read the last element that its own transaction did not append."""
        size = self.count[self.reads].astype(np.int64)
        base = self.version_at[self.key_of_read]
        owner = np.full(len(self.versions) + 1, -1, np.int64)
        if len(self.append_txn):
            owner[:-1][self.version_known] = self.append_txn[
                self.version_append[self.version_known]
            ]
        self.owner = owner
        mine = self.txn[self.reads]
        external = size.copy()
        # Nearly always one look is enough; a transaction that appends m times needs m more.
        active = np.flatnonzero((external > 0) & ~self.incompatible)
        while len(active):
            own = owner[base[active] + external[active] - 1] == mine[active]
            external[active[own]] -= 1
            active = active[own]
            active = active[external[active] > 0]
        self.external = external
        self._check_internal(size, external, mine)
        last = base + external - 1
        seen = np.flatnonzero((external > 0) & ~self.incompatible)
        # G1b: the version read is not the last one its writer made of that key.
        following = np.minimum(last[seen] + 1, len(self.versions))
        same_key = last[seen] + 1 < self.version_at[self.key_of_read[seen] + 1]
        partial = same_key & (owner[following] == owner[last[seen]]) & (owner[last[seen]] >= 0)
        for i in seen[partial].tolist():
            self.found.add(
                "G1b",
                f"{self._txn(mine[i])} read list {self.key[self.reads[i]]} up to "
                f"{self.versions[last[i]]}, but {self._txn(owner[last[i]])} appended more at once",
            )

    def _check_internal(self, size: Ints, external: Ints, mine: Ints) -> None:
        """Judge that a transaction sees its own appends, and nothing else change, at its second look."""
        own_seen = size - external
        # Appends of the same transaction to the same key before the read.
        place = np.lexsort((np.arange(len(self.op)), self.key, self.txn))
        group = np.concatenate(
            (
                [True],
                (np.diff(self.txn[place]) != 0) | (np.diff(self.key[place]) != 0),
            )
        )
        if len(place) == 0:
            return
        count = np.cumsum(self.is_append[place])
        starts = np.flatnonzero(group)
        before_group = np.repeat(
            count[starts] - self.is_append[place][starts], np.diff(np.append(starts, len(place)))
        )
        earlier = np.empty(len(self.op), np.int64)
        earlier[place] = count - before_group
        expected = earlier[self.reads]
        bad = (own_seen != expected) & ~self.incompatible
        for i in np.flatnonzero(bad).tolist():
            self.found.add(
                "internal",
                f"{self._txn(mine[i])} had appended {expected[i]} elements to list "
                f"{self.key[self.reads[i]]} and read {own_seen[i]} of its own",
            )

    def _edges(self) -> tuple[Ints, Ints, Column]:
        owner, mine = self.owner, self.txn[self.reads]
        parts: list[tuple[Column, Column, int]] = []
        if len(self.versions) > 1:
            same = self.version_key[1:] == self.version_key[:-1]
            parts.append((owner[:-2][same], owner[1:-1][same], WW))
        good = ~self.incompatible
        last = self.version_at[self.key_of_read] + self.external - 1
        seen = good & (self.external > 0)
        parts.append((owner[last[seen]], mine[seen], WR))
        # rw: the next version that is not the reader's own.
        at = last + 1
        limit = self.version_at[self.key_of_read + 1]
        active = np.flatnonzero(good & (at < limit))
        while len(active):
            own = owner[at[active]] == mine[active]
            at[active[own]] += 1
            active = active[own]
            active = active[at[active] < limit[active]]
        ahead = good & (at < limit)
        parts.append((mine[ahead], owner[np.minimum(at, len(owner) - 1)][ahead], RW))
        parts.append((*self._unobserved(good), RW))
        # Four bytes are enough for a transaction's number and halve the peak of memory.
        source = np.concatenate([p[0].astype(np.int32) for p in parts])
        target = np.concatenate([p[1].astype(np.int32) for p in parts])
        kind = np.concatenate([np.full(len(p[0]), p[2], np.int8) for p in parts])
        keep = (source >= 0) & (target >= 0) & (source != target)
        return source[keep], target[keep], kind[keep]

    def _unobserved(self, good: Column) -> tuple[Ints, Ints]:
        """Return rw edges to acknowledged appends that no read has: they come after all versions."""
        known = np.zeros(len(self.appends), np.bool_)
        known[self.version_append[self.version_known]] = True
        fresh = np.flatnonzero(~known & (self.outcome[self.append_txn] == OK))
        key = self.key[self.appends[fresh]]
        at = np.searchsorted(self.keys, key)
        there = (at < len(self.keys)) & (self.keys[np.minimum(at, len(self.keys) - 1)] == key)
        if not len(self.keys) or not there.any():
            return np.empty(0, np.int64), np.empty(0, np.int64)
        fresh, at = fresh[there], at[there]
        full = np.flatnonzero(
            good & (self.count[self.reads] == np.diff(self.version_at)[self.key_of_read])
        )
        full = full[np.argsort(self.key_of_read[full], kind="stable")]
        begin = np.searchsorted(self.key_of_read[full], at, side="left")
        many = np.searchsorted(self.key_of_read[full], at, side="right") - begin
        readers = _gather(full, begin, many)
        return self.txn[self.reads[readers]], np.repeat(self.append_txn[fresh], many)

    def _list(self, read: int) -> str:
        begin, count = int(self.start[read]), int(self.count[read])
        shown = self.elements[begin : begin + count].tolist()
        return str(shown) if count <= 12 else f"[… {', '.join(map(str, shown[-10:]))}]"

    def _txn(self, txn: int) -> str:
        return describe(self.history, int(self.txns[txn]))


def _gather(flat: Column, begin: Column, size: Column) -> Column:
    """Return flat[begin[i] : begin[i] + size[i]] for all i, one after another."""
    total = int(size.sum())
    if not total:
        return flat[:0]
    ends = np.cumsum(size)
    contiguous = len(begin) and begin[0] + total <= len(flat)
    if contiguous and np.array_equal(begin, begin[0] + ends - size):
        return flat[begin[0] : begin[0] + total]
    index = np.arange(total) + np.repeat(begin - (ends - size), size)
    gathered: Column = flat[index]
    return gathered


def _sorted(first: Column, second: Column) -> bool:
    if len(first) < 2:
        return True
    step = np.diff(first)
    return bool(((step > 0) | ((step == 0) & (np.diff(second) > 0))).all())


def describe(history: History, index: int) -> str:
    """Return a transaction as one short line."""
    op = history.ops.op[index]
    micro = history.micro
    starts = np.concatenate(([0], np.cumsum(np.maximum(micro.count, 0))))
    parts = []
    for i in np.flatnonzero(micro.op == op):
        if micro.kind[i] == APPEND:
            parts.append(f"append {micro.value[i]} to {micro.key[i]}")
        elif micro.count[i] >= 0:
            seen = history.elements.value[starts[i] : starts[i + 1]].tolist()
            tail = seen if len(seen) <= 6 else ["…", *seen[-5:]]
            parts.append(f"read {micro.key[i]} = [{', '.join(map(str, tail))}]")
    begin, end = (
        history.seconds(history.ops.invoke[index]),
        history.seconds(history.ops.done[index]),
    )
    return f"T{op} ({begin:.3f}…{end:.3f} s: {', '.join(parts)})"
