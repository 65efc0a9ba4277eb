"""Nothing the runner was told is lost: cuts, a killed agent, a full disk, a damaged line."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest
from shell_here import Local

from pytest_pgo_eks.errors import BrokenHistory, ExecProblem, WaitTimeout
from pytest_pgo_eks.history.history import OK, WRITE, History
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.probe.agent import records
from pytest_pgo_eks.probe.agent.main import Spool, without_secrets
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login, PathSpec
from pytest_pgo_eks.probe.stream import Stream


def test_a_stream_cut_again_and_again_loses_nothing(login: Login, tmp_path: Path) -> None:
    counter = itertools.count()
    shell = Local(cut=lambda: next(counter) % 7 == 6)
    agent = Installed(shell, "here", "this", python=sys.executable, home=str(tmp_path / "pod"))
    agent.install()
    agent.prepare(login, counters=8)
    with (
        closing(agent),
        agent.start([PathSpec("primary", login, workers=3)], tmp_path / "h.jsonl.gz") as probe,
    ):
        for _ in range(20):
            probe.stream.wait(len(probe.stream.lines), 0.2)
        probe.quiet()
        probe.read_back("primary", login)
    assert probe.cuts > 3
    history = History.load(tmp_path / "h.jsonl.gz")
    assert history.end == "stopped"
    assert {f.outcome for f in judge(history, "sync")} == {"holds"}
    written = (Path(probe.directory) / "stream.jsonl").read_bytes()
    assert b"".join(probe.stream.lines) == written


def test_a_killed_agent_leaves_a_history_that_blames_nobody(
    installed: Installed, login: Login, tmp_path: Path
) -> None:
    installed.prepare(login, counters=8)
    path = PathSpec("primary", login, workers=4, pace_s=0.0, scout_every_s=0.02)
    with installed.start([path], tmp_path / "h.jsonl.gz") as probe:
        probe.wait_for_ack("primary", probe.mark("begin"), 10)
        os.kill(int((Path(probe.directory) / "pid").read_text()), signal.SIGKILL)
        probe.stream.wait(10**6, 5)
        with pytest.raises(ExecProblem, match="no probe runs"):
            probe.mark("too late")
        with pytest.raises(WaitTimeout, match="no write through primary"):
            probe.wait_for_ack("primary", 10**18, 5)
    history = History.load(tmp_path / "h.jsonl.gz")
    assert history.end == "killed"
    assert not history.is_complete
    # Another agent reads the tables back; what the first one had under way may be there.
    with installed.start([], tmp_path / "r.jsonl.gz") as reader:
        reader.read_back("primary", login)
    whole = history.with_read_back(History.load(tmp_path / "r.jsonl.gz"))
    findings = judge(whole, "sync")
    assert {f.outcome for f in findings} == {"holds"}, "\n".join(map(str, findings))
    told = (history.ops.kind == WRITE) & (history.ops.outcome == OK)
    assert (whole.rows.op > 0).sum() > told.sum(), (
        "writes without a record, or the test is too tame"
    )


def test_a_full_disk_holds_lines_back_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "s")
    room = 30

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if offset >= room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: room - offset], offset)

    real = os.pwrite
    assert spool.write(b"x" * 19 + b"\n")
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert not spool.write(b"y" * 19 + b"\n")
    assert not spool.write(b"z" * 9 + b"\n")
    assert spool.waiting_bytes == 30
    assert "of 20 bytes fitted" in spool.error
    assert (tmp_path / "s").read_bytes() == b"x" * 19 + b"\n", "a torn line must not stay"
    monkeypatch.setattr(os, "pwrite", real)
    assert spool.write(None)
    spool.close()
    assert (tmp_path / "s").read_bytes().split(b"\n") == [b"x" * 19, b"y" * 19, b"z" * 9, b""]


def _lines() -> list[bytes]:
    recorder = records.Recorder("r", {})
    out = [recorder.header()]
    for _ in range(4):
        recorder.event("mark", name="m")
        out.append(recorder.cut() or b"")
    return out


def test_a_hole_is_seen(tmp_path: Path) -> None:
    lines = _lines()
    with closing(Stream(tmp_path / "part")) as stream:
        stream.feed(lines[0] + lines[1])
        with pytest.raises(BrokenHistory, match="after line 1 came line 3"):
            stream.feed(lines[3])


def test_an_edited_line_is_seen(tmp_path: Path) -> None:
    lines = _lines()
    with closing(Stream(tmp_path / "part")) as stream:
        stream.feed(lines[0])
        stream.feed(lines[1].replace(b'"m"', b'"n"', 1))
        with pytest.raises(BrokenHistory, match="follows another line"):
            stream.feed(lines[2])


def test_bytes_torn_anywhere_make_the_same_lines(tmp_path: Path) -> None:
    data = b"".join(_lines())
    for size in (1, 7, 100, 4096):
        stream = Stream(tmp_path / f"part{size}")
        for at in range(0, len(data), size):
            stream.feed(data[at : at + size])
        assert b"".join(stream.lines) == data == (tmp_path / f"part{size}").read_bytes()
        stream.close()


def test_no_secret_reaches_the_stream() -> None:
    told = {"paths": [{"target": {"password": "geheim", "user": "u", "ca_pem": "x"}}], "token": "t"}
    assert "geheim" not in json.dumps(without_secrets(told))
    assert without_secrets(told)["paths"][0]["target"]["user"] == "u"
    assert without_secrets(told)["token"] == "********"


def test_an_agent_that_nobody_listens_to_stops(
    installed: Installed, login: Login, tmp_path: Path
) -> None:
    installed.prepare(login, counters=8)
    directory = str(tmp_path / "pod" / "alone")
    document = PathSpec("primary", login, workers=1).document(0)
    told = {"run": "alone", "paths": [document], "abandoned_s": 1.0}
    installed.call("run", directory, stdin=told)
    stream = tmp_path / "pod" / "alone" / "stream.jsonl"
    with closing(Stream(tmp_path / "part")) as lines:
        for _ in range(100):
            lines.wait(10**6, 0.1)
            if b'"end":' in stream.read_bytes():
                break
        lines.feed(stream.read_bytes())
        assert lines.end == "abandoned"
    assert History.of(lines.lines).is_complete
