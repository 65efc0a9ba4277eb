"""Ctrl-C and SIGTERM remove the cluster in every phase; after SIGKILL the next start does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .castles import Project

WITHIN_S = 60.0

CHILD = ("-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:allure_pytest", "-p", "no:timeout")


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    """Start pytest on the project in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, *CHILD, "--cluster=fake", "features", *arguments],
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until_said(process: subprocess.Popen[str], fifo: Path) -> None:
    """Wait until the run reaches its phase: it then opens ``fifo`` to write."""
    with fifo.open(encoding="utf-8") as said:
        assert said.read() == "here"
    assert process.poll() is None


@pytest.fixture
def fifo(project: Project) -> Path:
    path = project.path / "fifo"
    os.mkfifo(path)
    project.write(
        "features/conftest.py",
        """
        import signal
        from pathlib import Path
        from pytest_bdd import when

        @when("somebody waits")
        def _():
            (Path(__file__).parent.parent / "fifo").write_text("here")
            signal.pause()
        """,
    )
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_run_that_is_stopped_removes_its_cluster(
    project: Project, fifo: Path, number: signal.Signals, workers: tuple[str, ...]
) -> None:
    project.write(
        "features/f.feature",
        "Feature: F\n  Scenario: S\n    Given a cluster\n    When somebody waits\n",
    )
    with start(project, *workers) as process:
        until_said(process, fifo)
        if number == signal.SIGINT:  # Ctrl-C reaches the whole group, a supervisor's SIGTERM one
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        output, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert project.log()[-1] == "destroy", output
    assert not list((project.path / "state/pytest-pgo-eks/runs").iterdir())
    assert '"interrupted": true' in (project.run_dir() / "verdict.json").read_text("utf-8")


def test_a_creation_that_is_stopped_is_cleaned_up_by_the_ledger(
    project: Project, fifo: Path
) -> None:
    project.write("features/f.feature", "Feature: F\n  Scenario: S\n    Given a cluster\n")
    project.write("stuck", "")
    with start(project) as process:
        until_said(process, fifo)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert project.log()[-1] == "sweep castle", output


def test_a_way_back_that_is_stopped_as_well_ends_with_the_clusters_removal(
    project: Project, fifo: Path
) -> None:
    project.write(
        "features/conftest.py",
        (project.path / "features/conftest.py").read_text("utf-8")
        + """
import pytest

@pytest.fixture(autouse=True)
def slow_way_back():
    yield
    _()
""",
    )
    project.write(
        "features/f.feature",
        "Feature: F\n  Scenario: S\n    Given a cluster\n    When somebody waits\n",
    )
    with start(project) as process:
        for _ in range(2):
            until_said(process, fifo)
            os.killpg(process.pid, signal.SIGINT)
        output, _errors = process.communicate(timeout=WITHIN_S)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert project.log()[-1] == "destroy", output
    assert not list((project.path / "state/pytest-pgo-eks/runs").iterdir())
    assert '"interrupted": true' in (project.run_dir() / "verdict.json").read_text("utf-8")
    assert "Traceback" not in output


def test_what_a_killed_run_left_is_found_by_the_next(project: Project, fifo: Path) -> None:
    project.write(
        "features/f.feature",
        "Feature: F\n  Scenario: S\n    Given a cluster\n    When somebody waits\n",
    )
    with start(project) as process:
        until_said(process, fifo)
        process.kill()
        process.communicate(timeout=WITHIN_S)
    assert "destroy" not in project.log()
    project.write("features/f.feature", "Feature: F\n  Scenario: S\n    Given nothing\n")
    result = project.run("--cluster=fake", "features")
    assert "sweep castle" in project.log()
    assert "removed cluster castle" in result.stdout.str()


def test_a_removal_that_is_stopped_leaves_the_line_that_removes(
    project: Project, fifo: Path
) -> None:
    project.write("features/f.feature", "Feature: F\n  Scenario: S\n    Given a cluster\n")
    project.write("slow", "")
    with start(project) as process:
        until_said(process, fifo)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=WITHIN_S)
    assert "cluster castle may still run; remove it: blow castle" in output
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert '"verdict": "pass"' in (project.run_dir() / "verdict.json").read_text("utf-8")
    assert list((project.path / "state/pytest-pgo-eks/runs").iterdir()), "the next start finds it"
