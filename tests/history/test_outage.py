"""Outages: the interval always holds the truth, whatever attempts look like."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pgo_eks.errors import BrokenHistory
from pytest_pgo_eks.history.history import FAIL, OK, PACED, PINNED, SCOUT, WRITE, History, Table
from pytest_pgo_eks.history.outage import every_outage, outages, within

MS = 1_000_000


def _history(rows: list[dict[str, int]], events: tuple[dict[str, object], ...] = ()) -> History:
    base = {"kind": WRITE, "path": 1, "session": SCOUT, "client": 1}
    ops = [base | {"op": i + 1, "sent": row["invoke"]} | row for i, row in enumerate(rows)]
    return History(ops=Table.rows("ops", ops), paths={1: "primary"}, events=events)


def _attempts(
    truth: list[tuple[int, int]], mode: str, seed: int, *, end: int, cadence: int = 10 * MS
) -> list[dict[str, int]]:
    """Play scouts against known outages: refused at once, swallowed until a deadline, or held up."""
    chance = random.Random(seed)
    rows = []
    for invoke in range(0, end, cadence):
        begin = invoke + chance.randrange(MS)
        latency = chance.randrange(2 * MS, 9 * MS)
        # The server is met somewhere on the way; an outage that covers that moment is felt.
        touch = begin + latency // 2
        hit = next((o for o in truth if o[0] <= touch < o[1]), None)
        if hit is None:
            rows.append({"invoke": begin, "done": begin + latency, "outcome": OK})
        elif mode == "refuse":
            rows.append({"invoke": begin, "done": touch + chance.randrange(MS), "outcome": FAIL})
        elif mode == "blackhole":
            rows.append({"invoke": begin, "done": begin + 200 * MS, "outcome": FAIL})
        elif hit[1] - begin < 400 * MS:
            rows.append({"invoke": begin, "done": hit[1] + latency, "outcome": OK})
        else:
            rows.append({"invoke": begin, "done": begin + 400 * MS, "outcome": FAIL})
    return rows


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    mode=st.sampled_from(["refuse", "blackhole", "hang"]),
    lengths=st.lists(st.integers(150, 1500), min_size=1, max_size=3),
)
def test_the_interval_holds_the_truth(seed: int, mode: str, lengths: list[int]) -> None:
    chance = random.Random(seed)
    truth, at = [], 900 * MS
    for length in lengths:
        at += chance.randrange(100 * MS)
        truth.append((at, at + length * MS))
        at += (length + 1000) * MS
    rows = _attempts(truth, mode, seed, end=at)
    found = outages(_history(rows), "primary")
    assert len(found) == len(truth)
    for outage, (began, ended) in zip(found, truth, strict=True):
        assert outage.began[0] <= began <= outage.began[1]
        assert outage.ended[0] <= ended <= outage.ended[1]
        assert outage.lower_s <= (ended - began) / 1e9 <= outage.upper_s
        assert abs(outage.estimate_s - (ended - began) / 1e9) <= 0.025
        assert outage.upper_s - outage.lower_s <= 0.07
        assert outage.over


def test_healthy_attempts_are_no_outage() -> None:
    assert outages(_history(_attempts([], "refuse", 1, end=2000 * MS)), "primary") == []


def test_an_outage_that_never_ends_is_open_and_judged_so() -> None:
    rows = _attempts([(500 * MS, 10**15)], "refuse", 3, end=2000 * MS)
    history = _history(rows)
    (outage,) = outages(history, "primary")
    assert not outage.over
    assert outage.first_ack is None
    assert within(history, [outage], 1.0, "primary").outcome == "violated"
    assert within(history, [outage], 9.0, "primary").outcome == "unknown"


def test_a_run_that_begins_in_an_outage_tells_it() -> None:
    rows = _attempts([(0, 600 * MS)], "refuse", 3, end=1500 * MS)
    (outage,) = outages(_history(rows), "primary")
    assert outage.last_ack is None
    assert outage.over
    assert 0.55 < outage.lower_s <= 0.6 <= outage.upper_s < 0.65


def test_the_budget_decides_only_what_was_measured() -> None:
    rows = _attempts([(500 * MS, 1500 * MS)], "refuse", 3, end=2500 * MS)
    history = _history(rows)
    found = outages(history, "primary")
    assert within(history, found, 1.2, "primary").outcome == "holds"
    violated = within(history, found, 0.8, "primary")
    assert violated.outcome == "violated"
    assert [line.split(":")[0] for line in violated.operations] == [
        "last acknowledged",
        "first failed",
        "last failed",
        "first acknowledged",
    ]
    assert within(history, found, found[0].estimate_s, "primary").outcome == "unknown"
    assert within(history, [], 0.1, "primary").outcome == "holds"


def test_kinds_of_session_are_told_apart() -> None:
    outage = (500 * MS, 1500 * MS)
    rows = _attempts([outage], "refuse", 3, end=2500 * MS)
    rows += [r | {"session": PACED, "client": 2} for r in _attempts([], "refuse", 4, end=2500 * MS)]
    pinned = list(_attempts([], "refuse", 5, end=900 * MS))
    rows += [r | {"session": PINNED, "client": 3} for r in pinned]
    event = {"kind": "pinned-ended", "client": 3, "at": 900 * MS, "path": "primary", "reason": "x"}
    history = _history(rows, (event,))
    assert len(outages(history, "primary", session=SCOUT)) == 1
    assert outages(history, "primary", session=PACED) == []
    (gone,) = outages(history, "primary", session=PINNED, client=3)
    assert not gone.over
    assert 1.55 < gone.lower_s <= gone.upper_s < 1.65
    assert {o.session for o in every_outage(history)} == {"scout", "pinned"}
    with pytest.raises(BrokenHistory, match="no path 'other'"):
        outages(history, "other")
    with pytest.raises(BrokenHistory, match="no scout session"):
        outages(_history([r | {"session": PACED} for r in rows]), "primary")
