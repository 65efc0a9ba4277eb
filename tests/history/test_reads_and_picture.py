"""Forks, staleness, exposure, the matrix, and the picture of a run."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from pytest_pgo_eks.history.exposure import check_exposure, misrouted, unreplicated
from pytest_pgo_eks.history.history import FAIL, OK, READ, SCOUT, WRITE, History, Table, lsn_number
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.history.matrix import ALWAYS, LEVELS, MODES, allows_loss, promise
from pytest_pgo_eks.history.outage import Outage
from pytest_pgo_eks.history.reads import check_long_fork, check_read_your_writes, staleness
from pytest_pgo_eks.history.timeline import facts, svg

MS = 1_000_000
Row = dict[str, int]


def _reads(*seen: tuple[int, int, int, int], writes: list[Row] | None = None) -> History:
    """Make reads of (begin ms, on a replica?, counter 0, counter 1)."""
    ops = [
        {
            "op": i + 1,
            "kind": READ,
            "path": 1,
            "invoke": at * MS,
            "done": at * MS + 100_000,
            "recovery": replica,
            "server": 1 + replica,
        }
        for i, (at, replica, _, _) in enumerate(seen)
    ]
    cells = [
        {"op": i + 1, "key": key, "value": values[key]}
        for i, (_, _, *values) in enumerate(seen)
        for key in (0, 1)
    ]
    return History(
        ops=Table.rows("ops", ops + (writes or [])),
        cells=Table.rows("cells", cells),
        paths={1: "p"},
    )


def test_a_long_fork_is_found_and_expected() -> None:
    fork = _reads((1, 0, 5, 3), (2, 1, 4, 4))
    found = check_long_fork(fork)
    assert found.outcome == "expected"
    assert found.numbers["forks"] == 1
    assert len(found.operations) == 2
    ordered = _reads((1, 0, 5, 4), (2, 1, 4, 3), (3, 1, 5, 4))
    assert check_long_fork(ordered).outcome == "holds"
    one_backend = _reads((1, 0, 5, 3), (2, 0, 4, 4))
    assert check_long_fork(one_backend).numbers["forks"] == 0


def test_long_forks_are_found_as_by_comparing_all_pairs() -> None:
    chance = random.Random(3)
    for _ in range(60):
        seen = [
            (i, chance.randrange(2), chance.randrange(4), chance.randrange(4)) for i in range(9)
        ]
        forks = sum(
            any((a - c) * (b - d) < 0 for _, r, a, b in seen if not r)
            for _, replica, c, d in seen
            if replica
        )
        assert check_long_fork(_reads(*seen)).numbers["forks"] == forks


def test_a_read_that_missed_a_write_is_stale_and_breaks_read_your_writes() -> None:
    write = {
        "op": 50,
        "kind": WRITE,
        "path": 1,
        "key": 0,
        "value": 3,
        "invoke": 1 * MS,
        "done": 2 * MS,
    }
    history = _reads((1, 1, 2, 0), (10, 1, 2, 0), (12, 1, 3, 0), writes=[write])
    stale = staleness(history)
    assert stale.versions.tolist() == [0, 1, 0]
    assert stale.age_s.tolist() == [0.0, 0.008, 0.0]
    found = check_read_your_writes(history, stale.index, promised=True)
    assert found.outcome == "violated"
    assert "8.0 ms earlier" in found.operations[0]
    assert check_read_your_writes(history, stale.index, promised=False).outcome == "expected"
    assert check_read_your_writes(history, stale.index[:0], promised=True).outcome == "unknown"


def test_exposure_is_what_two_looks_say_and_no_more() -> None:
    looks = [
        {"asked": at * MS, "told": at * MS + 1, "monitor": 1, "server": 1, "names": names}
        for at, names in ((0, 1), (100, 0), (200, 0), (300, 0), (400, 1), (500, 0))
    ]
    writes = [
        {
            "op": i,
            "kind": WRITE,
            "server": 1,
            "path": 1,
            "level": 4,
            "invoke": at * MS,
            "done": at * MS + MS,
        }
        for i, at in enumerate((50, 150, 250, 350, 450), 1)
    ]
    history = History(
        ops=Table.rows("ops", writes), looks=Table.rows("looks", looks), paths={1: "p"}
    )
    (window,) = unreplicated(history)
    assert (window.began, window.ended) == (100 * MS + 1, 300 * MS)
    found = check_exposure(history, strict=True)
    assert found.outcome == "violated"
    assert found.numbers["acknowledged_meanwhile"] == 2
    assert {f.rule: f.outcome for f in judge(history, "strict")}[found.rule] == "violated"
    assert {f.rule: f.outcome for f in judge(history, "sync")}[found.rule] == "expected"
    assert check_exposure(History(ops=history.ops), strict=True).outcome == "unknown"


def test_misrouting_is_measured_per_stretch() -> None:
    rows = [
        {
            "op": i,
            "kind": WRITE,
            "path": 1,
            "outcome": FAIL,
            "code": 7,
            "invoke": at * MS,
            "done": at * MS + MS,
        }
        for i, at in enumerate((0, 100, 200, 9000, 9100), 1)
    ]
    found = misrouted(History(ops=Table.rows("ops", rows), words={7: "25006"}, paths={1: "p"}))
    assert found.numbers == {"refused": 5, "longest_s": 0.201, "total_s": 0.302}


def test_the_matrix_says_what_it_must() -> None:
    for mode in MODES:
        for level in LEVELS:
            told = promise(mode, level)
            assert set(ALWAYS) <= set(told.must)
            assert "long-fork" in told.expected
            assert not set(told.must) & set(told.expected)
            assert allows_loss(mode, level) == (mode == "async" or level in {"local", "off"})
    assert "no-unreplicated-acknowledgement" in promise("strict", "on").must
    assert "no-unreplicated-acknowledgement" in promise("sync", "on").expected
    rule = "read-your-writes-on-the-synchronous-standby"
    assert rule in promise("sync", "remote_apply").must
    assert rule not in promise("sync", "on").must


@pytest.mark.parametrize("count", [1, 300, 10_000])
def test_the_picture_is_small_whole_and_without_scripts(count: int) -> None:
    chance = random.Random(count)
    ops = [
        {
            "op": i,
            "kind": WRITE,
            "path": 1,
            "session": SCOUT,
            "invoke": i * 5 * MS,
            "done": i * 5 * MS + chance.randrange(MS, 400 * MS),
            "outcome": chance.choice([OK, OK, OK, 1, FAIL, 3]),
            "server": 1 + (i > count // 2),
            "timeline": 1 + (i > count // 2),
            "value": i,
        }
        for i in range(1, count + 1)
    ]
    events = tuple(
        {"at": i * 100 * MS, "kind": "mark", "name": f'fault <{i}> & "more"'} for i in range(60)
    )
    history = History(
        ops=Table.rows("ops", ops), events=events, paths={1: "a<b"}, servers={1: {"name": "x&y"}}
    )
    picture = svg(history, "<title> & more")
    root = ET.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not root.findall(".//{http://www.w3.org/2000/svg}script")
    assert "prefers-color-scheme:dark" in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
    assert len(picture.encode()) <= 200 * 1024
    assert "… and 20 less important events" in picture
    told = facts(history)
    assert told["operations"] == count
    assert sum(told["writes"].values()) == count


def test_what_was_done_and_who_leads_is_drawn_before_anything_else() -> None:
    def pod(at: int) -> dict[str, Any]:
        what = f"pod p{at}: ready True → False"
        return {"at": at * MS, "kind": "cluster", "object": "pod/p", "what": what, "was": "x"}

    late: list[dict[str, Any]] = [
        {"at": 900 * MS, "kind": "cluster", "object": "endpoints/e", "was": "x",
         "what": "endpoints e: leader a → b"},
        {"at": 901 * MS, "kind": "mark", "name": "fault undone"},
    ]  # fmt: skip
    events = (*(pod(at) for at in range(60)), *late)
    ops = [{"op": 1, "kind": WRITE, "path": 1, "session": SCOUT, "invoke": MS, "done": 999 * MS}]
    picture = svg(History(ops=Table.rows("ops", ops), events=events, paths={1: "a"}))
    assert "40.  0.901 s  fault undone" in picture
    assert "39.  0.900 s  endpoints e: leader a → b" in picture
    assert "pod p37:" in picture
    assert "pod p38:" not in picture


def test_the_head_has_the_worst_of_each_path_and_new_sessions_first() -> None:
    def outage(path: str, session: str, lasted_s: int, *, reads: bool = False) -> Outage:
        span = (0, lasted_s * 1000 * MS)
        return Outage(path, session, reads, (0, 0), (span[1], span[1]), 0, None, None, 0, 1)

    found = [
        outage("a", "pinned", 90),
        outage("a", "paced", 8),
        outage("a", "scout", 2),
        outage("a", "scout", 5),
        outage("r", "paced", 30, reads=True),
        outage("calm", "scout", 0),
    ]
    ops = [{"op": 1, "kind": WRITE, "path": 1, "invoke": MS, "done": 2 * MS}]
    picture = svg(History(ops=Table.rows("ops", ops), paths={1: "a"}), "", found)
    lines = [text for text in picture.split("<text") if " sessions: no " in text]
    assert [line.split(">")[1].split(" sessions")[0] for line in lines] == [
        "a, scout", "a, paced", "r, paced", "a, pinned",
    ]  # fmt: skip
    assert "5.00 s" in lines[0]


def test_wal_positions_are_read_as_printed() -> None:
    assert lsn_number("16/B374D848") == 0x16B374D848
