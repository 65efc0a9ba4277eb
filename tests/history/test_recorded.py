"""A real run under a planned switchover of the stand-in cluster, on two very busy cores.

A second opinion on the checkers that no simulation of ours can give: real PostgreSQL, Patroni and
PgBouncer, four kinds of clients, watch events. The recording is of PostgreSQL 15 and Patroni 4.1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_pgo_eks.history.history import OK, SCOUT, WRITE, History
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.history.outage import outages
from pytest_pgo_eks.history.phases import phases
from pytest_pgo_eks.history.timeline import facts, svg

FILE = Path(__file__).with_name("recorded") / "switchover.jsonl.gz"


@pytest.fixture(scope="module")
def history() -> History:
    return History.load(FILE)


def test_everything_promised_held(history: History) -> None:
    findings = judge(history, "sync")
    assert len(findings) >= 10
    assert {f.outcome for f in findings} == {"holds"}, "\n".join(map(str, findings))


def test_what_is_taken_away_from_it_is_missed(history: History) -> None:
    source = history.primary_source()
    assert source is not None
    rows = history.rows
    mine = (rows.source == source["source"]) & (rows.op > 0) & (rows.key >= 0)
    victim = np.flatnonzero(mine)[100]
    keep = np.ones(len(rows), np.bool_)
    keep[victim] = False
    events = tuple({**e, "rows": e["rows"] - 1} if e is source else e for e in history.events)
    found = {f.rule: f for f in judge(replace(history, rows=rows[keep], events=events), "sync")}
    assert found["no-acknowledged-write-lost"].numbers["lost"] == 1
    assert found["loss-is-a-suffix"].outcome == "violated"
    assert found["writes-are-atomic"].outcome == "violated"
    assert f"op {rows.op[victim]}," in found["no-acknowledged-write-lost"].operations[0]


def test_the_switchover_is_told_in_phases(history: History) -> None:
    found = outages(history, "the primary Service", session=SCOUT)
    longest = max(found, key=lambda o: o.lower_s)
    assert 2 < longest.lower_s <= longest.upper_s < 8
    told = {p.name: p for p in phases(history, longest)}
    order = [
        "fault",
        "first failure",
        "leader changed",
        "service followed",
        "first acknowledgement",
    ]
    moments = [told[name].at for name in order if name in told]
    assert set(order) <= set(told)
    assert moments[0] == min(moments)
    assert moments[-1] == max(moments)
    assert "hippo-ha:" in told["service followed"].proof


def test_the_pinned_session_learned_that_it_was_lost(history: History) -> None:
    assert [e["path"] for e in history.events if e["kind"] == "pinned-ended"] == [
        "the primary Service"
    ]


def test_its_picture_and_facts(history: History) -> None:
    assert len(svg(history, "switchover").encode()) < 200 * 1024
    told = facts(history)
    assert [s["timeline"] for s in told["servers"] if s["acknowledged"] > 100] == [1, 2]
    ops = history.ops
    acknowledged = int(((ops.kind == WRITE) & (ops.outcome == OK)).sum())
    assert told["writes"]["ok"] == acknowledged
