"""List-append runs on a real server show what each level allows, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest
from local_postgres import Server

from pytest_pgo_eks.history.history import FAIL, OK, TXN, History, Table
from pytest_pgo_eks.history.isolation import FORBIDDEN, Isolation, check_isolation, find_anomalies
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.probe.agent import append
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login, PathSpec

ALLOWED: dict[Isolation, set[str]] = {
    "read committed": {"G-single", "G-nonadjacent", "G2-item"},
    "repeatable read": {"G2-item"},
    "serializable": set(),
}


@pytest.mark.parametrize("level", FORBIDDEN)
def test_postgresql_keeps_its_level(
    level: Isolation, installed: Installed, login: Login, tmp_path: Path
) -> None:
    installed.prepare(login)
    path = PathSpec("primary", login, appenders=6, isolation=level, append_pace_s=0.0)
    end = time.monotonic() + 60
    with installed.start([path], tmp_path / "h.jsonl.gz") as probe:
        while time.monotonic() < end:
            probe.stream.wait(len(probe.stream.lines), 0.2)
            ops = History.of(probe.lines()).ops
            if ((ops.kind == TXN) & (ops.outcome == OK)).sum() > 1000:
                break
        probe.quiet()
    history = History.load(tmp_path / "h.jsonl.gz")
    txns = history.ops.kind == TXN
    assert (txns & (history.ops.outcome == OK)).sum() > 500
    codes = {
        history.word(c) for c in np.unique(history.ops.code[txns & (history.ops.outcome == FAIL)])
    }
    assert codes <= {"40001", "40P01", "stopped"}
    assert level != "read committed" or "40001" not in codes
    findings = check_isolation(history, level)
    assert [f for f in judge(history, "sync") if f.rule.startswith("isolation")] == findings
    assert findings[0].outcome == "holds", "\n".join(map(str, findings))
    assert not [f for f in findings if f.outcome == "violated"]
    # What is allowed happens or not, as the machine has it.
    assert {f.rule.rpartition(": ")[2] for f in findings[1:]} <= ALLOWED[level]


class Hand:
    """Transactions on the probe's own table, one statement at a time, written down as its history."""

    def __init__(self, server: Server, level: Isolation) -> None:
        self._dsn = f"host=127.0.0.1 port={server.port} user=open dbname=app"
        self._level = level
        self._ops: list[dict[str, int]] = []
        self._micro: list[dict[str, int]] = []
        self._elements: list[dict[str, int]] = []

    def begin(self) -> tuple[psycopg.Connection, int]:
        session = psycopg.connect(self._dsn, autocommit=True)
        session.execute(f"BEGIN ISOLATION LEVEL {self._level}".encode())
        self._ops.append({"op": len(self._ops) + 1, "kind": TXN, "outcome": OK})
        now = time.monotonic_ns()
        self._ops[-1] |= {"invoke": now, "sent": now}
        return session, len(self._ops)

    def step(self, txn: tuple[psycopg.Connection, int], kind: int, key: int) -> None:
        """Append to the list ``key`` or read it, with the very statements of the probe."""
        session, op = txn
        at = sum(row["op"] == op for row in self._micro)
        value = op * 8 + at if kind == append.APPEND else 0
        rows = session.execute(append._sql((kind, key, value)).encode())
        row = {"op": op, "at": at, "key": key, "kind": kind, "value": value, "count": 0}
        if kind == append.LOOK:
            found = [int(v) for (text,) in rows.fetchall() for v in text.split(",")]
            row["count"] = len(found)
            self._elements.extend({"value": v} for v in found)
        self._micro.append(row)

    def commit(self, txn: tuple[psycopg.Connection, int]) -> None:
        session, op = txn
        with session:
            try:
                session.execute("COMMIT")
            except psycopg.errors.SerializationFailure:
                self._ops[op - 1]["outcome"] = FAIL
        self._ops[op - 1]["done"] = time.monotonic_ns()

    def read(self, *keys: int) -> None:
        txn = self.begin()
        for key in keys:
            self.step(txn, append.LOOK, key)
        self.commit(txn)

    def history(self) -> History:
        return History(
            ops=Table.rows("ops", self._ops),
            micro=Table.rows("micro", self._micro),
            elements=Table.rows("elements", self._elements),
        )


def _torn_read(hand: Hand) -> None:
    """One transaction reads a list before, and another one after, somebody appends to both."""
    reader = hand.begin()
    hand.step(reader, append.LOOK, 1)
    writer = hand.begin()
    hand.step(writer, append.APPEND, 1)
    hand.step(writer, append.APPEND, 2)
    hand.commit(writer)
    hand.step(reader, append.LOOK, 2)
    hand.commit(reader)
    hand.read(1, 2)


def _write_skew(hand: Hand) -> None:
    """Two transactions each read what the other one is about to append to."""
    one, two = hand.begin(), hand.begin()
    hand.step(one, append.LOOK, 1)
    hand.step(two, append.LOOK, 2)
    hand.step(one, append.APPEND, 2)
    hand.step(two, append.APPEND, 1)
    hand.commit(one)
    hand.commit(two)
    hand.read(1, 2)


@pytest.fixture
def hand(level: Isolation, installed: Installed, login: Login, postgres: Server) -> Hand:
    installed.prepare(login)
    return Hand(postgres, level)


@pytest.mark.parametrize("level", FORBIDDEN)
@pytest.mark.parametrize(
    ("interleave", "name", "happens_at"),
    [
        (_torn_read, "G-single", {"read committed"}),
        (_write_skew, "G2-item", {"read committed", "repeatable read"}),
    ],
)
def test_what_a_level_allows_is_seen_when_it_happens(
    interleave: Callable[[Hand], None],
    name: str,
    happens_at: set[Isolation],
    level: Isolation,
    hand: Hand,
) -> None:
    """Interleaved by hand on a real server, so the checker is not blind there."""
    interleave(hand)
    history = hand.history()
    assert set(find_anomalies(history).counts) == ({name} if level in happens_at else set())
    failed = (history.ops.outcome == FAIL).sum()
    assert failed == (interleave is _write_skew and level == "serializable")
