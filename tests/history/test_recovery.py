"""When writes count as acknowledged again: judged on histories, no cluster needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_pgo_eks.errors import BrokenHistory
from pytest_pgo_eks.history.history import FAIL, OK, PACED, WRITE, History, Table
from pytest_pgo_eks.history.recovery import again, calm, in_time

S = 1_000_000_000
PATH = "the primary Service"


def history(
    *gaps: tuple[float, float], end_s: float = 60.0, faults: tuple[float, ...] = (10.0,)
) -> History:
    """Return a run that wrote every 20 ms but failed within each gap; times in seconds."""
    ops: list[dict[str, Any]] = []
    at = 0.0
    while at < end_s:
        out = any(begin <= at < end for begin, end in gaps)
        begin = int(at * S)
        ops.append(
            {
                "op": len(ops) + 1,
                "kind": WRITE,
                "outcome": FAIL if out else OK,
                "session": PACED,
                "path": 1,
                "key": 0,
                "value": len(ops) + 1,
                "invoke": begin,
                "done": begin + 2_000_000,
            }
        )
        at += 0.02
    events = tuple(
        {"kind": "mark", "name": f"fault begins: pod-deleted {n}", "at": int(fault * S)}
        for n, fault in enumerate(faults)
    )
    return History(ops=Table.rows("ops", ops), events=events, paths={1: PATH})


def judged(of: History, since_s: float, budget_s: float) -> tuple[str, dict[str, Any]]:
    finding = in_time(of, PATH, int(since_s * S), budget_s)
    return finding.outcome, dict(finding.numbers)


def test_the_budget_counts_from_the_fault_to_the_end_of_the_outage() -> None:
    outcome, numbers = judged(history((12, 16)), 10, 30)
    assert outcome == "holds"
    assert numbers["lower_s"] == pytest.approx(6.0, abs=0.05)
    assert numbers["upper_s"] == pytest.approx(6.0, abs=0.05)


def test_too_late_is_a_violation_and_on_the_edge_is_unknown() -> None:
    assert judged(history((12, 42)), 10, 30)[0] == "violated"
    _, numbers = judged(history((12, 16)), 10, 30)
    edge = (numbers["lower_s"] + numbers["upper_s"]) / 2
    assert judged(history((12, 16)), 10, edge)[0] == "unknown"


def test_writes_that_never_come_back_are_a_violation() -> None:
    assert judged(history((12, 99)), 10, 30)[0] == "violated"
    assert judged(history((10, 99)), 10, 300)[0] != "holds"


def test_a_second_outage_counts_too() -> None:
    assert judged(history((12, 14), (38, 41)), 10, 30)[0] == "violated"


def test_noise_is_no_outage_and_an_earlier_fault_raises_no_threshold() -> None:
    assert judged(history((12, 12.2)), 10, 1)[0] == "holds"
    twice = history((12, 27), (40, 43), faults=(10.0, 38.0))
    outcome, numbers = judged(twice, 38, 30)
    assert outcome == "holds"
    assert numbers["upper_s"] == pytest.approx(5.0, abs=0.05)


def test_calm_is_an_outage_that_ended_and_writes_that_went_on() -> None:
    since = 10 * S
    assert not calm(history(end_s=30), PATH, since), "nothing happened yet"
    assert not calm(history((12, 99), end_s=30), PATH, since), "it is not over"
    assert not calm(history((12, 28), end_s=29), PATH, since), "only just over"
    assert calm(history((12, 16), end_s=30), PATH, since)


def test_what_was_judged_under_way_is_judged_the_same_when_all_is_known() -> None:
    """Later outages do not count: the finding says how many operations there were."""
    whole = history((12, 16), (40, 58))
    seen = History(ops=whole.ops[: 25 * 50], events=whole.events, paths=whole.paths)
    told = in_time(seen, PATH, 10 * S, 30)
    assert told.outcome == "holds"
    assert again(whole, told.numbers) == told
    assert in_time(whole, PATH, 10 * S, 30).outcome == "violated"


@pytest.mark.parametrize(
    "gap", [(12.0, 12.1), (12.0, 42.0), (10.0, 99.0)], ids=["never", "too late", "not over"]
)
def test_every_kind_of_answer_can_be_judged_again(gap: tuple[float, float]) -> None:
    whole = history(gap)
    told = in_time(whole, PATH, 10 * S, 30)
    assert again(whole, told.numbers) == told


def test_what_does_not_say_what_was_asked_is_not_judged_again() -> None:
    whole = history((12, 16))
    assert again(whole, {"budget_s": 30.0, "upper_s": 6.0}) is None
    numbers = dict(in_time(whole, PATH, 10 * S, 30).numbers)
    with pytest.raises(BrokenHistory, match="3000 are recorded"):
        again(whole, {**numbers, "judged_operations": 10**6})
    with pytest.raises(BrokenHistory, match="no kind of session"):
        again(whole, {**numbers, "asked_sessions": "scout walker"})
    assert again(whole, {**numbers, "judged_operations": True}) is None
    with pytest.raises(BrokenHistory, match="the last fault began at 10000000000, not at 12"):
        again(whole, {**numbers, "since_ns": 12 * S})


def test_of_several_faults_the_last_one_by_then_starts_the_clock() -> None:
    whole = history((12, 14), (40, 43), faults=(10.0, 38.0))
    first = in_time(replace(whole, ops=whole.ops[: 25 * 50]), PATH, 10 * S, 30)
    assert again(whole, first.numbers) == first
    second = in_time(whole, PATH, 38 * S, 30)
    assert again(whole, second.numbers) == second
    with pytest.raises(BrokenHistory, match="the last fault"):
        again(whole, {**second.numbers, "since_ns": 10 * S})
