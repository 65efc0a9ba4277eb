"""Whole runs on stand-in clusters of their own: made by workers, removed by whoever is left."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.clusters.local import PROGRAM, LocalProvider
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.kube import eventually
from pytest_pgo_eks.settings import Settings

pytestmark = pytest.mark.cluster

RUN = (sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:allure_pytest")
WITHIN_S = 120.0

TESTS = """
import os, pytest
from pathlib import Path

@pytest.mark.parametrize("n", range(4))
def test_it_answers(pgo_cluster, n):
    from pytest_pgo_eks.kube import Kube
    with Kube(pgo_cluster.kubeconfig) as kube:
        assert len(kube.list("Node")) == 3
    Path(f"seen-{n}").write_text(pgo_cluster.name)

@pytest.mark.skipif("WAIT" not in os.environ, reason="only where somebody kills it")
def test_it_waits(pgo_cluster):
    import signal
    Path("fifo").write_text("here")
    signal.pause()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    try:
        LocalProvider().preflight(Settings("local"))
    except UsageProblem as problem:
        pytest.skip(f"this machine cannot run the stand-in cluster: {problem}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS, "utf-8")
    yield tmp_path
    subprocess.run([*PROGRAM, "down", "--all"], check=True, stdout=subprocess.DEVNULL)


def clusters() -> list[dict[str, Any]]:
    done = subprocess.run(
        [*PROGRAM, "status", "--json"], check=True, capture_output=True, text=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_two_workers_share_one_cluster_and_leave_nothing(place: Path) -> None:
    done = subprocess.run(
        [*RUN, "--cluster=local", "-n2", "test_it.py"],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len({path.read_text() for path in place.glob("seen-*")}) == 1
    verdict = json.loads((place / "reports/latest/verdict.json").read_text("utf-8"))
    assert verdict["counts"]["pass"] == 4
    assert verdict["subject"]["stand_in"] is True
    assert "not evidence about PGO" in done.stdout
    assert clusters() == []


def test_a_kept_cluster_is_reused_and_removed_by_the_printed_line(place: Path) -> None:
    first = subprocess.run(
        [*RUN, "--cluster=local", "--pgo-keep", "test_it.py"],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert first.returncode == 0, first.stdout + first.stderr
    (cluster,) = clusters()
    assert cluster["state"] == "running"
    lines = first.stdout.splitlines()
    (again,) = [line for line in lines if " --pgo-reuse=" in line]
    (remove,) = [line for line in lines if " down --name " in line]
    second = subprocess.run(
        shlex.split(again),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert second.returncode == 0, second.stdout + second.stderr
    assert {path.read_text() for path in place.glob("seen-*")} == {cluster["name"]}
    subprocess.run(remove.split(), check=True, stdout=subprocess.DEVNULL)
    assert clusters() == []


def test_a_killed_run_leaves_no_cluster(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("fifo")
    monkeypatch.setenv("WAIT", "1")
    with subprocess.Popen(
        [*RUN, "--cluster=local", "test_it.py"], stdout=subprocess.DEVNULL
    ) as process:
        alarm = threading.Timer(WITHIN_S, process.kill)
        alarm.start()
        assert Path("fifo").read_text() == "here"
        alarm.cancel()
        assert [cluster["state"] for cluster in clusters()] == ["running"]
        process.send_signal(signal.SIGKILL)
    eventually(
        clusters, accept=lambda found: not found, within_s=30, what="the cluster to remove itself"
    )
    ledgers = place / "state/pytest-pgo-eks/runs"
    assert len(list(ledgers.glob("*.json"))) == 1
    subprocess.run(
        [*RUN, "--cluster=local", "-k", "nothing"], check=False, stdout=subprocess.DEVNULL
    )
    assert not list(ledgers.glob("*.json")), "the next start clears the ledger"
