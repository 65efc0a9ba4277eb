"""Realistic histories without a cluster: a primary, a failover, writers, readers, and the traps.

``simulate`` plays a small deterministic model of PostgreSQL with one WAL per timeline. What it
returns is *clean*: whatever a checker calls a violation in it is a false alarm. The traps of
synchronous replication are in it: cancelled waits that come back as success with a notice, commits
that are visible after a crash though their client got an error, operations without an answer that
survive or vanish, reads that saw writes which are gone later.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_pgo_eks.history.history import (
    FAIL,
    INFO,
    OK,
    PACED,
    READ,
    SCOUT,
    UNSAFE,
    WRITE,
    History,
    Table,
)

MS = 1_000_000
Row = dict[str, int]


@dataclass
class Model:
    """Rows of a history while it is made, and what the tests want to know about them."""

    ops: list[Row] = field(default_factory=list)
    cells: list[Row] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    counters: dict[int, int] = field(default_factory=dict)
    mode: str = "sync"
    switched: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    under_way_from: int | None = None

    def history(self) -> History:
        final = [
            {"op": 0, "key": k, "value": v, "source": 1, "timeline": 9}
            for k, v in self.counters.items()
        ]
        rows = [{"source": 1} | row for row in self.rows]
        read_back = {
            "kind": "read-back",
            "at": 10**12,
            "source": 1,
            "name": "final",
            "in_recovery": False,
            "timeline": 9,
        }
        return History(
            ops=Table.rows("ops", self.ops),
            cells=Table.rows("cells", self.cells),
            rows=Table.rows("rows", rows + final),
            events=(*self.events, read_back),
            paths={1: "primary", 2: "replicas"},
            reading_paths=frozenset({2}),
            servers={1: {"name": "one"}, 2: {"name": "two"}, 3: {"name": "three"}},
            words={1: "57P01", 2: "25006", 3: "01000", 4: "deadline"},
            under_way_from=self.under_way_from,
        )


def simulate(seed: int, *, mode: str = "sync", length: int = 60, writers: int = 3) -> Model:
    """Return one clean run: ``length`` rounds of writes, one failover in the middle, reads beside."""
    chance = random.Random(seed)
    model = Model(mode=mode)
    sim = _Simulation(model, chance, writers)
    crash = chance.randrange(length // 3, 2 * length // 3)
    for turn in range(length):
        if turn == crash:
            sim.fail_over()
        for writer in range(writers):
            sim.write(writer)
        if chance.random() < 0.3:
            sim.scout()
        if chance.random() < 0.5:
            sim.read()
        sim.now += chance.randrange(2, 9) * MS
    sim.finish()
    return model


class _Simulation:
    def __init__(self, model: Model, chance: random.Random, writers: int) -> None:
        self.model = model
        self.chance = chance
        self.now = 1000 * MS
        self.lsn = 0x3000000
        self.op = 0
        self.primary, self.timeline = 1, 1
        self.counters = dict.fromkeys(range(writers), 0)
        self.log: list[Row] = []
        # (commit LSN, counters after it) of the current timeline, for replicas and for truncation
        self.states: list[tuple[int, dict[int, int]]] = [(self.lsn, dict(self.counters))]
        self.log_at: list[tuple[int, Row]] = []
        self.replica_at = 0
        self.replica = 2

    def _number(self) -> int:
        self.op += 1
        return self.op

    def _commit(self, op: int, key: int) -> Row:
        """Write one operation into the WAL and return what its statement would have answered."""
        insert = self.lsn
        self.lsn += self.chance.randrange(64, 400)
        value = op
        if key >= 0:
            self.counters[key] += 1
            value = self.counters[key]
        row = {"op": op, "key": key, "value": value, "lsn": insert, "timeline": self.timeline}
        self.log.append(row)
        self.log_at.append((self.lsn, row))
        self.states.append((self.lsn, dict(self.counters)))
        return row

    def _record(
        self, outcome: int, row: Row, invoke: int, done: int, code: int, **more: int
    ) -> None:
        told = outcome in (OK, UNSAFE)
        kept = {k: row[k] for k in ("lsn", "timeline", "value")} if told else {}
        self.model.ops.append(
            {
                "op": row["op"],
                "key": row["key"],
                "invoke": invoke,
                "sent": invoke,
                "done": done,
                "kind": WRITE,
                "outcome": outcome,
                "code": code,
                "path": 1,
                "client": row["key"] + 10,
                "session": PACED if row["key"] >= 0 else SCOUT,
                "level": 4,
                "server": self.primary if told else 0,
                **kept,
                **more,
            }
        )

    def write(self, key: int) -> None:
        op, invoke = self._number(), self.now
        done = invoke + self.chance.randrange(300_000, 3 * MS)
        self.now += self.chance.randrange(10_000, 300_000)
        kind = self.chance.random()
        if kind < 0.03:  # refused before anything was written
            self._record(FAIL, {"op": op, "key": key}, invoke, done, 2)
        elif kind < 0.05:  # no answer; the server may or may not have done it
            if self.chance.random() < 0.5:
                self._commit(op, key)
            self._record(INFO, {"op": op, "key": key}, invoke, invoke + 1000 * MS, 4)
        elif kind < 0.07 and self.model.mode != "async":  # the wait for the standby was cancelled
            self._record(UNSAFE, self._commit(op, key), invoke, done, 3)
        else:
            self._record(OK, self._commit(op, key), invoke, done, 0)

    def scout(self) -> None:
        op, invoke = self._number(), self.now
        done = invoke + self.chance.randrange(3 * MS, 8 * MS)
        self._record(OK, self._commit(op, -1), invoke, done, 0)

    def read(self) -> None:
        """Read the primary, or a replica that lags by some commits and never goes back."""
        op, invoke = self._number(), self.now
        replica = self.chance.random() < 0.6
        if replica:
            oldest = max(self.replica_at, len(self.states) - 6)
            self.replica_at = self.chance.randrange(oldest, len(self.states))
            seen = self.states[self.replica_at][1]
        else:
            seen = self.counters
        self.model.ops.append(
            {
                "op": op,
                "kind": READ,
                "invoke": invoke,
                "sent": invoke,
                "done": invoke + 200_000,
                "outcome": OK,
                "path": 2,
                "client": 99,
                "server": self.replica if replica else self.primary,
                "recovery": int(replica),
                "value": len(seen),
                "timeline": 0 if replica else self.timeline,
                "lsn": self.lsn,
            }
        )
        self.model.cells.extend({"op": op, "key": k, "value": v} for k, v in seen.items())
        self.now += 250_000

    def fail_over(self) -> None:
        """The primary dies; some of the newest WAL is gone: acknowledged writes only if async."""
        model = self.model
        acknowledged = {o["op"] for o in model.ops if o["outcome"] == OK and o["kind"] == WRITE}
        keep = len(self.log_at)
        limit = self.chance.randrange(0, 12)
        while keep > 0 and len(self.log_at) - keep < limit:
            if model.mode != "async" and self.log_at[keep - 1][1]["op"] in acknowledged:
                break
            keep -= 1
        # The survivor goes on from a snapshot that no replica read was ahead of: new identity.
        gone = {id(row) for _, row in self.log_at[keep:]}
        self.log = [row for row in self.log if id(row) not in gone]
        self.counters = dict.fromkeys(self.counters, 0)
        for row in self.log:
            if row["key"] >= 0:
                self.counters[row["key"]] += 1
        self.lsn = self.log_at[keep - 1][0] if keep else 0x3000000
        self.log_at, self.states = [], [(self.lsn, dict(self.counters))]
        self.replica_at = 0
        self.primary, self.replica = self.primary + 1, self.replica + 1
        if self.replica > 3:
            self.replica = 1
        self.timeline += 1
        model.switched = self.now
        # The outage: refused, without answer, nothing acknowledged. Long enough for every
        # operation that was answered before to have been answered.
        for _ in range(4):
            op = self._number()
            self._record(FAIL, {"op": op, "key": -1}, self.now, self.now + 2 * MS, 1)
            self.now += 30 * MS
        # Servers get new identities, as a restarted postmaster has.
        self.primary += 3
        self.replica += 3

    def finish(self) -> None:
        self.model.rows = [dict(row) for row in self.log]
        self.model.counters = dict(self.counters)


# -- planting anomalies


def _written(model: Model, *, before_last: int = 0) -> list[Row]:
    """Return acknowledged counter writes that are present, but for the newest ones."""
    present = {row["op"] for row in model.rows}
    found = [
        o
        for o in model.ops
        if o["kind"] == WRITE and o["outcome"] == OK and o["op"] in present and o["key"] >= 0
    ]
    return found[: len(found) - before_last]


def plant_lost(model: Model, chance: random.Random) -> None:
    """An acknowledged write is missing although later ones of its timeline survived."""
    first = list(_written(model, before_last=12))
    victim = chance.choice(
        [o for o in first if o["timeline"] == first[-1]["timeline"]][:-8] or first[:5]
    )
    model.rows = [row for row in model.rows if row["op"] != victim["op"]]
    model.counters[victim["key"]] -= 1


def plant_duplicate(model: Model, chance: random.Random) -> None:
    model.rows.append(dict(chance.choice(model.rows)))


def plant_from_nowhere(model: Model, chance: random.Random) -> None:
    row = dict(chance.choice(model.rows), op=10**9)
    model.rows.append(row)
    if row["key"] >= 0:
        model.counters[row["key"]] += 1


def plant_failed_present(model: Model, chance: random.Random) -> None:
    failed = [o for o in model.ops if o["outcome"] == FAIL]
    victim = chance.choice(failed)
    model.rows.append(
        {"op": victim["op"], "key": -1, "value": victim["op"], "lsn": 0x3000000, "timeline": 1}
    )


def plant_other_value(model: Model, chance: random.Random) -> None:
    victim = chance.choice(_written(model))["op"]
    for row in model.rows:
        if row["op"] == victim:
            row["value"] += 1


def plant_torn(model: Model, chance: random.Random) -> None:
    model.counters[chance.choice(list(model.counters))] += 1


def plant_step_back(model: Model, chance: random.Random) -> None:
    """A counter forgets: the next acknowledgement repeats an acknowledged value."""
    last = model.ops[-1]["done"] + 50 * MS
    victim = chance.choice(_written(model, before_last=10))
    op = 10**6
    row = {k: victim[k] for k in ("key", "value", "path", "client", "session", "level")}
    row |= {"op": op, "invoke": last, "sent": last, "done": last + MS, "kind": WRITE}
    row |= {"outcome": OK, "server": 8, "lsn": 2**40, "timeline": 7}
    model.ops.append(row)
    model.rows.append({k: row[k] for k in ("op", "key", "value", "lsn", "timeline")})
    model.counters[victim["key"]] += 1


def plant_overlap(model: Model, chance: random.Random) -> None:
    """The old primary still acknowledges after the new one did."""
    newer = [o for o in _written(model) if o["timeline"] == 2]
    at = chance.choice(newer)["done"] + 1
    op = 10**6
    row = {
        "op": op,
        "key": -1,
        "value": op,
        "invoke": at,
        "sent": at,
        "done": at + MS,
        "kind": WRITE,
    }
    row |= {"outcome": OK, "server": 1, "lsn": 0x2FFFFFF, "timeline": 1, "level": 4, "path": 1}
    row |= {"session": SCOUT, "client": 5}
    model.ops.append(row)
    model.rows.append({k: row[k] for k in ("op", "key", "value", "lsn", "timeline")})


def plant_old_read(model: Model, chance: random.Random) -> None:
    """A backend shows an older state than it has shown before."""
    reads = [o for o in model.ops if o["kind"] == READ]
    by_server: dict[int, list[Row]] = {}
    for read in reads:
        by_server.setdefault(read["server"], []).append(read)
    cells = {(c["op"], c["key"]): c for c in model.cells}
    fit = [
        (later, key)
        for several in by_server.values()
        for first, later in itertools.pairwise(several)
        for key in model.counters
        if cells[first["op"], key]["value"] > 0
    ]
    later, key = chance.choice(fit)
    server = by_server[later["server"]]
    before = server[server.index(later) - 1]
    cells[later["op"], key]["value"] = cells[before["op"], key]["value"] - 1


PLANTS: Mapping[str, tuple[Any, tuple[str, ...]]] = {
    "lost": (plant_lost, ("no-acknowledged-write-lost", "loss-is-a-suffix")),
    "row twice": (plant_duplicate, ("no-write-twice",)),
    "nowhere": (plant_from_nowhere, ("no-write-from-nowhere",)),
    "failed present": (plant_failed_present, ("no-failed-write-present",)),
    "other value": (plant_other_value, ("value-as-acknowledged",)),
    "torn": (plant_torn, ("writes-are-atomic",)),
    "step back": (plant_step_back, ("no-counter-steps-back", "no-value-on-two-timelines")),
    "overlap": (plant_overlap, ("one-primary-at-a-time",)),
    "old read": (plant_old_read, ("reads-are-monotonic-per-backend",)),
}
"""What is planted, and the rules of which every one must be violated (in the synchronous modes)."""
