"""Things made once for many processes, the cluster's lock, the ledger, progress from workers."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry, note_intent
from pytest_pgo_eks.errors import ApiProblem, ClusterProblem, UsageProblem, Violation
from pytest_pgo_eks.progress import silent
from pytest_pgo_eks.session import ledger
from pytest_pgo_eks.session.console import Console, Follower, worker_progress
from pytest_pgo_eks.session.locks import ClusterLock
from pytest_pgo_eks.session.shared import Shared
from pytest_pgo_eks.settings import Settings


class TestShared:
    def test_the_first_makes_and_the_others_read(self, tmp_path: Path) -> None:
        made: list[int] = []

        def make() -> dict[str, Any]:
            made.append(1)
            return {"n": len(made)}

        shared = [Shared(tmp_path / "run") for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda one: one.once("thing", make), shared))
        assert found == [{"n": 1}] * 8

    @pytest.mark.parametrize("error", [UsageProblem, ClusterProblem, Violation, ApiProblem])
    def test_a_failure_is_the_same_everywhere(self, tmp_path: Path, error: type[Exception]) -> None:
        tries: list[int] = []

        def make() -> dict[str, Any]:
            tries.append(1)
            raise error("no luck")

        for _ in range(3):
            with pytest.raises(error, match=r"^no luck$") as caught:
                Shared(tmp_path).once("thing", make)
            assert type(caught.value) is error
        assert len(tries) == 1

    def test_a_foreign_error_becomes_ours_with_its_name(self, tmp_path: Path) -> None:
        def make() -> dict[str, Any]:
            raise ZeroDivisionError("by nought")

        with pytest.raises(ClusterProblem, match=r"^ZeroDivisionError: by nought$"):
            Shared(tmp_path).once("thing", make)

    def test_a_maker_that_died_is_not_followed(self, tmp_path: Path) -> None:
        code = """
            import os, sys
            from pathlib import Path
            from pytest_pgo_eks.session.shared import Shared
            Shared(Path(sys.argv[1])).once("thing", lambda: os._exit(9))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=False
        )
        assert done.returncode == 9
        for _ in range(2):
            with pytest.raises(ClusterProblem, match=r"^process \d+ died while it made the thing$"):
                Shared(tmp_path).once("thing", lambda: {"never": True})

    def test_a_question_is_asked_first_once(self, tmp_path: Path) -> None:
        assert [Shared(tmp_path).first("x") for _ in range(3)] == [True, False, False]


HOLD = """
    import sys
    from pathlib import Path
    from pytest_pgo_eks.session.locks import ClusterLock
    lock = ClusterLock(Path(sys.argv[1]))
    with lock.shared() if sys.argv[2] == "shared" else lock.exclusive("somebody"):
        print("held", flush=True)
        sys.stdin.read()
"""


class TestClusterLock:
    """Against another process, as between xdist's workers."""

    def other(self, folder: Path, how: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(HOLD), str(folder), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    def takes(self, folder: Path, how: str, got: threading.Event) -> threading.Thread:
        def take() -> None:
            lock = ClusterLock(folder)
            with lock.shared() if how == "shared" else lock.exclusive("me"):
                got.set()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        return thread

    def test_readers_share(self, tmp_path: Path) -> None:
        with self.other(tmp_path, "shared") as other:
            with ClusterLock(tmp_path).shared():
                pass
            other.communicate("")

    @pytest.mark.parametrize(
        ("held", "wanted"), [("exclusive", "shared"), ("shared", "exclusive"), ("exclusive",) * 2]
    )
    def test_a_writer_is_alone(self, tmp_path: Path, held: str, wanted: str) -> None:
        got = threading.Event()
        with self.other(tmp_path, held) as other:
            thread = self.takes(tmp_path, wanted, got)
            assert not got.wait(0.3)
            other.communicate("")
            assert got.wait(10)
            thread.join()

    def test_a_killed_holder_holds_nothing(self, tmp_path: Path) -> None:
        with self.other(tmp_path, "exclusive") as other:
            other.kill()
            other.communicate()
        got = threading.Event()
        self.takes(tmp_path, "exclusive", got).join(10)
        assert got.is_set()

    def test_a_waiting_writer_is_not_starved_by_readers(self, tmp_path: Path) -> None:
        writer, reader = threading.Event(), threading.Event()
        with self.other(tmp_path, "shared") as other:
            first = self.takes(tmp_path, "exclusive", writer)
            assert not writer.wait(0.2)
            second = self.takes(tmp_path, "shared", reader)
            assert not reader.wait(0.3), "who comes after the writer waits for it"
            other.communicate("")
            assert writer.wait(10)
            assert reader.wait(10)
            first.join()
            second.join()

    def test_those_who_wait_learn_for_whom(self, tmp_path: Path) -> None:
        lock = ClusterLock(tmp_path)
        assert lock.holder() is None
        with lock.exclusive("The primary is killed"):
            assert lock.holder() == "The primary is killed"
        assert lock.holder() is None


class TestLedger:
    def test_an_entry_names_the_owner_before_the_cluster(self, tmp_path: Path) -> None:
        path = ledger.open_entry(Settings("local", state_dir=tmp_path), "r1")
        entry = LedgerEntry.read(path)
        assert (entry.owner_pid, entry.name) == (os.getpid(), "")
        assert ledger.alive(entry.owner_pid, entry.owner_started)
        note_intent(path, name="c1", remove="rm c1")
        assert LedgerEntry.read(path).name == "c1"

    def test_a_reused_process_number_is_no_owner(self) -> None:
        assert ledger.started(os.getpid()) > 0
        assert not ledger.alive(os.getpid(), ledger.started(os.getpid()) - 1)

    def test_foreign_files_are_left_alone(self, tmp_path: Path) -> None:
        settings = Settings("local", state_dir=tmp_path)
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "x.json").write_text("not JSON")
        assert not list(ledger.sweep(settings, {}, silent()))
        assert (tmp_path / "runs" / "x.json").exists()

    def test_a_provider_that_is_gone_leaves_the_line(self, tmp_path: Path) -> None:
        settings = Settings("local", state_dir=tmp_path)
        LedgerEntry("gone", 1, 1, name="c1", remove="rm c1").write(tmp_path / "runs" / "x.json")
        (line,) = ledger.sweep(settings, {}, silent())
        assert line.endswith("remove it: rm c1")


def test_a_handle_survives_json(tmp_path: Path) -> None:
    handle = ClusterHandle(
        "c", "local", tmp_path / "k", capabilities=frozenset({"a", "b"}), hints=("x",)
    )
    assert ClusterHandle.from_json(json.loads(json.dumps(handle.as_json()))) == handle


def test_what_workers_say_is_shown_by_the_controller(tmp_path: Path) -> None:
    console, out = Console(tmp_path / "run.log"), io.StringIO()
    console._out = out
    follower = Follower(tmp_path / "run" / "progress", console)
    follower.start()
    worker_progress(tmp_path / "run" / "progress", "gw1").say("castle: 3 s – ümläut")
    worker_progress(tmp_path / "run" / "progress", "gw0").say("tower")
    follower.stop()
    assert out.getvalue().splitlines() == ["[gw1] castle: 3 s – ümläut", "[gw0] tower"]
    assert (tmp_path / "run.log").read_text("utf-8").splitlines()[1].endswith("+00:00 [gw0] tower")
