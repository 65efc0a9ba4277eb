"""History files: what is damaged gets one clear line, what is whole is judged and drawn again."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_pgo_eks.errors import BrokenHistory
from pytest_pgo_eks.history.__main__ import main
from pytest_pgo_eks.history.history import History
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.probe.agent import records


def _recorded(count: int = 50) -> list[bytes]:
    """Return the lines of a tiny run: one writer, every write there at the end."""
    recorder = records.Recorder("tiny", {"settings": {"mode": "sync"}})
    lines = [recorder.header()]
    recorder.event("path", number=1, name="primary", reads=False)
    server = recorder.servers.add(b"x", {"addr": "10.0.0.1", "port": 5432, "started_us": 1})
    recorder.event("mark", name="fault begins: <nothing> & more")
    source = recorder.words.number("source:end")
    begin = recorder.events[0]["at"]
    for op in range(1, count + 1):
        at = begin + op * 10_000_000
        told = (op, at, at, at + 900_000, op, 0x3000000 + op * 100, 1, 0, 1, 0, server)
        recorder.ops.rows.append((*told, 0, 0, 1, 0, 4, 0))
        recorder.next_op = op + 1
        recorder.final.rows.append((op, op, 0x3000000 + op * 100, 1, 0, source))
        if op % 20 == 0:
            lines.append(recorder.cut() or b"")
    recorder.final.rows.append((0, count, 0, 1, 0, source))
    recorder.event("read-back", source=source, name="end", in_recovery=False, timeline=1)
    recorder.event("load-ended", under_way=0)
    lines.append(recorder.cut(end="stopped") or b"")
    lines.append(json.dumps({"runner": {"end": "stopped", "cuts": 0}}).encode() + b"\n")
    return lines


def _write(file: Path, lines: list[bytes]) -> Path:
    with gzip.open(file, "wb") as out:
        out.writelines(lines)
    return file


def test_a_whole_file_is_judged_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path / "h.jsonl.gz", _recorded())
    assert main([str(file), "--svg", str(tmp_path / "h.svg")]) == 0
    told = capsys.readouterr().out
    assert "all 50 acknowledged writes are there" in told
    assert "judged as sync, on" in told
    picture = (tmp_path / "h.svg").read_text()
    assert "&lt;nothing&gt; &amp; more" in picture
    assert "<script" not in picture
    assert main([str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["writes"]["ok"] == 50
    assert {f["outcome"] for f in document["findings"]} == {"holds"}


def test_a_lost_write_is_a_violation_or_expected_as_the_mode_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _recorded()
    history = History.of(lines)
    assert (history.ops.value == np.arange(1, 51)).all()
    recorder = records.Recorder("tiny", {"settings": {"mode": "sync"}})
    recorder.event("path", number=1, name="primary", reads=False)
    columns = records.columns("ops", json.loads(lines[1])["t"]["ops"])
    recorder.ops.rows.extend(zip(*columns.values(), strict=True))
    source = recorder.words.number("source:end")
    recorder.final.rows.append((0, 0, 0, 1, 0, source))
    recorder.event("read-back", source=source, name="end", in_recovery=False, timeline=1)
    recorder.event("load-ended", under_way=0)
    file = _write(tmp_path / "h.jsonl.gz", [recorder.header(), recorder.cut(end="stopped") or b""])
    assert main([str(file)]) == 1
    assert "✗ 20 of 20 acknowledged writes are lost" in capsys.readouterr().out
    assert main([str(file), "--mode", "async"]) == 0


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda lines: lines[:1] + lines[2:], "a hole: line 2"),
        (lambda lines: [lines[0], lines[1].replace(b"mark", b"Mark"), *lines[2:]], "edited"),
        (lambda lines: [*lines[:2], lines[2][:100]], "line 3 is cut off"),
        (lambda lines: [lines[0], b"{]\n"], "line 2 is no JSON"),
        (lambda lines: [lines[0], b"[]\n"], "line 2 is no JSON object"),
        (lambda lines: [b'{"format":"other"}\n'], "not a history of the probe"),
        (lambda lines: [lines[0].replace(b'"version":1', b'"version":9')], "format version 9"),
        (lambda _lines: [b'{"runner":{"end":"lost"}}\n'], "no header"),
        (lambda _lines: [], "empty"),
    ],
)
def test_damage_is_named_in_one_line(
    damage: object, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path / "h.jsonl.gz", damage(_recorded()))  # type: ignore[operator]
    with pytest.raises(BrokenHistory, match=says):
        History.load(file)
    assert main([str(file)]) == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert says in told.err


def test_a_file_cut_in_the_middle_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(tmp_path / "h.jsonl.gz", _recorded(2000))
    file.write_bytes(file.read_bytes()[:-2000])
    assert main([str(file)]) == 4
    assert "cannot be read" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 4
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "text.gz").write_text("no gzip at all")
    assert main([str(tmp_path / "text.gz")]) == 4


def test_columns_that_do_not_fit_are_damage() -> None:
    lines = _recorded()
    batch = json.loads(lines[1])
    batch["t"]["ops"][0] += 1
    with pytest.raises(BrokenHistory, match="damaged columns"):
        History.of([lines[0], json.dumps(batch).encode() + b"\n"])


def test_a_run_without_an_end_knows_what_may_have_been_under_way() -> None:
    history = History.of(_recorded()[:3])
    assert history.end is None
    assert history.under_way_from == 41
    assert History.of(_recorded()).under_way_from is None


def test_an_empty_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = records.Recorder("empty", {})
    file = _write(tmp_path / "h.jsonl.gz", [recorder.header()])
    assert main([str(file), "--svg", str(tmp_path / "e.svg")]) == 2
    assert "no operation was recorded" in (tmp_path / "e.svg").read_text()


def test_rows_that_did_not_arrive_are_a_hole_not_a_loss() -> None:
    history = History.of(_recorded())
    (event,) = (e for e in history.events if e["kind"] == "read-back")
    short = replace(history, events=({**event, "rows": 51},))
    with pytest.raises(BrokenHistory, match="had 51 rows and the history has 50"):
        judge(short, "sync")
    bare = replace(history, rows=history.rows[history.rows.op > 0])
    assert {f.rule: f.outcome for f in judge(bare, "sync")}["writes-are-atomic"] == "unknown"


def test_a_table_that_somebody_holds_is_cut_without_losing_rows() -> None:
    recorder = records.Recorder("r", {})
    rows = recorder.final.rows
    rows.append((1, 1, 1, 1, 1, 1))
    lines = [recorder.header(), recorder.cut() or b""]
    rows.append((2, 1, 1, 1, 1, 1))
    lines.append(recorder.cut() or b"")
    assert History.of(lines).rows.op.tolist() == [1, 2]
