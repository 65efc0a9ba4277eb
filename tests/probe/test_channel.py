"""Questions go through one open exec; what happens to it is told, and never asked twice."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from shell_here import Local

from pytest_pgo_eks.errors import ExecProblem
from pytest_pgo_eks.probe.channel import Channel
from pytest_pgo_eks.probe.control import Installed


class Scripted:
    """A running command that says one thing after another, and keeps what it is told."""

    def __init__(self, *says: bytes | type[TimeoutError] | None) -> None:
        self.says = list(says)
        self.told: list[dict[str, object]] = []
        self.closed = False

    def read(self, timeout_s: float) -> tuple[str, bytes] | None:
        one = self.says.pop(0)
        if one is TimeoutError:
            raise TimeoutError
        assert not isinstance(one, type)
        return None if one is None else ("stdout", one)

    def write(self, data: bytes) -> None:
        self.told.append(json.loads(data))

    def close(self) -> None:
        self.closed = True


class Scripts(Local):
    def __init__(self, *running: Scripted) -> None:
        super().__init__()
        self.running = list(running)

    def open_exec(  # type: ignore[override]
        self, namespace: str, pod: str, command: Sequence[str], *, stdin: bool = False
    ) -> Scripted:
        assert stdin
        return self.running.pop(0)


READY = b'{"ready": 1}\n'


def channel(*running: Scripted) -> Channel:
    return Channel(Scripts(*running), "n", "p", ["agent"], "the probe in n/p")


def test_answers_that_come_in_pieces_belong_to_their_question() -> None:
    one = Scripted(READY, b'{"id": 1, "answ', b'ers": [7]}\n{"id": 2, "answers": [8]}\n')
    asked = channel(one)
    assert asked.ask("mark", stdin={"x": 1}) == [7]
    assert asked.ask("status") == [8]
    assert [told["do"] for told in one.told] == ["mark", "status"]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (None, "the agent ended: no word"),
        (TimeoutError, "no answer in time; it may still come"),
        (b"not JSON\n", "Expecting value"),
        (b"[1]\n", r"no answer: \[1\]"),
    ],
)
def test_a_question_without_an_answer_is_not_asked_again(
    trouble: bytes | type[TimeoutError] | None, said: str
) -> None:
    broken, fresh = Scripted(READY, trouble), Scripted(READY, b'{"id": 2, "answers": [8]}\n')
    asked = channel(broken, fresh)
    with pytest.raises(ExecProblem, match=said):
        asked.ask("mark")
    assert broken.closed
    assert asked.ask("status") == [8]
    assert [told["do"] for told in fresh.told] == ["status"]


def test_a_connection_that_was_idle_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_pgo_eks.probe.channel._IDLE_S", -1.0)
    dead = Scripted(READY, b'{"id": 1, "answers": [7]}\n', TimeoutError)
    fresh = Scripted(READY, b'{"id": 3, "answers": [8]}\n')
    asked = channel(dead, fresh)
    assert asked.ask("mark") == [7]
    assert asked.ask("status") == [8]
    assert [told["do"] for told in dead.told] == ["mark", "ping"]
    assert [told["do"] for told in fresh.told] == ["status"]


def test_a_refusal_is_told_and_the_connection_stays() -> None:
    one = Scripted(READY, b'{"id": 1, "failed": "ValueError: no"}\n', b'{"id": 2, "answers": []}\n')
    asked = channel(one)
    with pytest.raises(ExecProblem, match="the probe in n/p: run: ValueError: no"):
        asked.ask("run")
    assert asked.ask("ask") == []
    asked.close()
    assert one.closed


def test_an_agent_that_dies_is_replaced(installed: Installed, tmp_path: Path) -> None:
    assert installed.call("ping")[0]["at"] > 0
    pids = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _serves(entry, tmp_path)
    ]
    assert len(pids) == 1
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(ExecProblem, match=r"the agent ended|not sent"):
        installed.call("status", str(tmp_path))
    assert installed.call("ping")[0]["at"] > 0
    with pytest.raises(ExecProblem, match="no probe runs in"):
        installed.call("ctl", str(tmp_path), stdin={"do": "status"})
    with pytest.raises(ExecProblem, match="unknown command 'dance'"):
        installed.call("dance")


def _serves(entry: Path, home: Path) -> bool:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"serve" in words and any(word.startswith(str(home).encode()) for word in words)
