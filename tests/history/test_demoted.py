"""Reads that an old primary answered after another one wrote: found, timed, and not imagined."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.history.demoted import check_reads_of_demoted
from pytest_pgo_eks.history.history import OK, PACED, PINNED, READ, WRITE, History, Table

SECOND = 1_000_000_000
Row = dict[str, int]


def write(at: int, value: int, timeline: int) -> Row:
    return {
        "op": 1000 + at, "kind": WRITE, "outcome": OK, "path": 1, "key": 0, "value": value,
        "timeline": timeline, "invoke": at * SECOND - 1, "done": at * SECOND,
    }  # fmt: skip


def history(writes: list[Row], *reads: tuple[float, int], **told: int) -> History:
    """Return reads of (second, value seen) beside the writes."""
    ops = [
        {
            "op": number + 1, "kind": READ, "outcome": OK, "session": PINNED, "path": 2,
            "invoke": int(at * SECOND), "done": int(at * SECOND) + SECOND // 10,
        } | told
        for number, (at, _) in enumerate(reads)
    ]  # fmt: skip
    cells = [
        {"op": number + 1, "key": 0, "value": value} for number, (_, value) in enumerate(reads)
    ]
    more: dict[str, Any] = {"paths": {1: "writes", 2: "reads", 3: "replicas"}, "words": {0: ""}}
    return History(
        ops=Table.rows("ops", writes + ops), cells=Table.rows("cells", cells),
        servers={0: {"address": "10.0.0.1", "port": 5432}}, **more,
    )  # fmt: skip


FAILOVER = [write(1, 1, 1), write(10, 2, 2), write(20, 3, 2)]


def test_what_the_old_primary_answers_is_timed_from_the_first_new_acknowledgement() -> None:
    seen = history(FAILOVER, (5, 1), (11, 1), (15, 1), (25, 3))
    found = check_reads_of_demoted(seen, ["reads"], 5.2)
    assert found.outcome == "holds"
    assert (found.numbers["stale"], found.numbers["longest_s"]) == (2, 5.1)
    assert found.numbers["pinned"] == 2
    assert len(found.operations) == 2
    assert check_reads_of_demoted(seen, ["reads"], 5.0).outcome == "violated"


def test_each_failover_has_its_own_clock() -> None:
    twice = [*FAILOVER, write(30, 4, 3)]
    found = check_reads_of_demoted(history(twice, (12, 1), (31, 3)), ["reads"], 3.0)
    assert found.outcome == "holds"
    assert found.numbers["longest_s"] == 2.1


def test_readers_who_see_everything_were_led_to_the_new_primary() -> None:
    found = check_reads_of_demoted(history(FAILOVER, (11, 2), (21, 3)), ["reads"], 0.0)
    assert (found.outcome, found.numbers["stale"]) == ("holds", 0)


def test_reconnecting_readers_count_and_are_told_apart() -> None:
    seen = history(FAILOVER, (11, 1), session=PACED)
    found = check_reads_of_demoted(seen, ["reads"], 9.0)
    assert (found.numbers["stale"], found.numbers["pinned"]) == (1, 0)


def test_replicas_may_be_stale_and_are_not_asked() -> None:
    found = check_reads_of_demoted(history(FAILOVER, (19, 1), path=3), ["reads"], 0.0)
    assert found.outcome == "unknown"


def test_without_a_failover_or_a_read_behind_it_nothing_is_proven() -> None:
    assert check_reads_of_demoted(history(FAILOVER[:1], (5, 1)), ["reads"], 0).outcome == "unknown"
    assert check_reads_of_demoted(history(FAILOVER, (5, 1)), ["reads"], 0).outcome == "unknown"
