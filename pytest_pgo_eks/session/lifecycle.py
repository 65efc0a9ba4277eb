"""The controller's part: it opens the run, and whatever happens it removes the cluster and reports."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry
from pytest_pgo_eks.errors import PgoEksError, UsageProblem
from pytest_pgo_eks.gherkin.selection import uses_cluster
from pytest_pgo_eks.report import allure, summary, views
from pytest_pgo_eks.report import document as verdicts
from pytest_pgo_eks.report.gate.decision import lines as decision_lines
from pytest_pgo_eks.report.verdict import EXIT_GATE, exit_status
from pytest_pgo_eks.session import circumstances, ledger, operators
from pytest_pgo_eks.session.console import Console, Follower
from pytest_pgo_eks.session.gate import Gate, write_decision
from pytest_pgo_eks.session.run import Run, forget_directory
from pytest_pgo_eks.session.shared import is_usage
from pytest_pgo_eks.session.subject import declared_version, refuse_manifest

PROGRESS_FILE = "progress.log"


class Controller:
    """Lives in the process that the user started: the only one, or xdist's controller."""

    def __init__(
        self, run: Run, console: Console, *, parallel: bool, gate: Gate | None = None
    ) -> None:
        self._run = run
        self._gate = gate
        self._console = console
        self._parallel = parallel
        self._in_use: ledger.InUse | None = None
        self._old_handler: Any = None
        self._follower = Follower(run.shared.folder / PROGRESS_FILE, console)
        self._document: dict[str, Any] | None = None
        self._failed: set[str] = set()
        self._record: dict[str, Any] = {}
        self._interrupted = False
        self._handle: ClusterHandle | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._console.open(session.config)
        self._obey_sigterm()
        run = self._run
        for line in ledger.sweep(run.settings, run.providers, run.progress):
            self._console.line(f"pgo: {line}")
        for line in self._gate.announcement() if self._gate else ():
            self._console.line(f"pgo: {line}")
        try:
            if run.settings.reuse:
                self._in_use = ledger.InUse(run.settings)
            if self._parallel:
                # The controller of xdist collects nothing, so it cannot know what is needed.
                self._look_ahead(())
        except UsageProblem as problem:
            self._forget()
            raise pytest.UsageError(f"pgo: {problem}") from None
        if self._parallel:
            self._follower.start()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker which run it belongs to."""
        node.workerinput["pgo"] = {
            "run_dir": str(self._run.run_dir),
            "ledger": str(self._run.ledger),
        }

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self._parallel or session.testsfailed:
            return
        if not any(uses_cluster(item) for item in session.items):
            return
        try:
            self._look_ahead(session.items)
        except UsageProblem as problem:
            raise pytest.UsageError(f"pgo: {problem}") from None

    def _look_ahead(self, items: Sequence[pytest.Item]) -> None:
        """Refuse what cannot work while nothing is created yet."""
        run = self._run
        refuse_manifest(run.settings, items)
        operators.refuse(run.settings)
        if run.settings.reuse is None:
            # A version that a user's manifest declares has to be there before anything is made.
            declared = declared_version(run.settings)
            run.provider.preflight(replace(run.settings, postgres_version=declared))
        else:
            run.cluster()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_keyboard_interrupt(self) -> None:
        self._interrupted = True

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        if self._interrupted and self._begun():
            self._console.line(
                "pgo: interrupted: ending the scenario, then the cluster (again: the cluster at once)"
            )
        try:
            yield  # fixtures are torn down in here, and xdist ends its workers
        except KeyboardInterrupt:
            # Passed on it would skip the summary, and with it the line that removes a kept cluster.
            self._interrupted = True
            session.exitstatus = pytest.ExitCode.INTERRUPTED
        if self._parallel:
            self._follower.stop()
        try:
            self._end_cluster(session)
        finally:
            self._ask_provider()
            self._report(session)
            self._forget()

    def _begun(self) -> bool:
        """Whether a cluster is there or on its way: pytest calls a failed collection interrupted too."""
        run = self._run
        return run.made() is not None or bool(LedgerEntry.read(run.ledger).name)

    def _end_cluster(self, session: pytest.Session) -> None:
        run = self._run
        handle = self._handle = run.made()
        if handle is not None and (run.settings.keep or run.settings.reuse):
            # The summary says how to remove it.
            run.ledger.unlink(missing_ok=True)
            return
        entry = LedgerEntry.read(run.ledger)
        if not entry.name and handle is None:
            return
        try:
            if handle is not None:
                run.provider.destroy(handle, run.progress)
                record = operators.record_of(run.ledger)
                for line in operators.remove(record, handle.provider, run.progress):
                    self._console.line(f"pgo: {line}")
            elif run.provider.sweep(entry, run.progress) == "left":
                self._say_how_to_remove(entry)
                return
        except PgoEksError as error:
            self._console.line(f"pgo: {error}")
            self._say_how_to_remove(entry)
            return
        except KeyboardInterrupt:
            self._say_how_to_remove(entry)
            session.exitstatus = pytest.ExitCode.INTERRUPTED
            return
        run.ledger.unlink(missing_ok=True)

    def _ask_provider(self) -> None:
        """Keep what the provider tells of the cluster; asked when it is gone, or left."""
        record = getattr(self._run.provider, "record", None)
        if record is None or self._handle is None:
            return
        try:
            told = record(self._handle)
        except PgoEksError as error:
            self._console.line(f"pgo: the provider cannot say what the cluster cost: {error}")
            return
        self._record = told.as_json() if told is not None else {}

    def _say_how_to_remove(self, entry: LedgerEntry) -> None:
        self._console.line(f"pgo: cluster {entry.name} may still run; remove it: {entry.remove}")

    def _report(self, session: pytest.Session) -> None:
        run = self._run
        if not any(run.run_dir.glob("scenarios/*/scenario.json")):
            return
        deselected = (run.shared.found("deselected") or {}).get("scenarios", ())
        facts = run.shared.found("facts") or {}
        self._document = verdicts.write(
            verdicts.Run(
                subject=_subject(run, self._handle, facts),
                began=run.began,
                rerun=run.rerun(),
                commit=circumstances.commit(),
                deselected=tuple(deselected),
                interrupted=self._interrupted,
                name=run.run_dir.name,
                seed=run.seed,
                settings=circumstances.settings(run.settings),
                environment=circumstances.environment(),
                executor=circumstances.executor(os.environ),
                provider_record=self._record,
                took_s=run.took_s(),
            ),
            run.run_dir,
            self._gate.decide if self._gate else None,
        )
        if self._gate:
            write_decision(self._document["gate"], run.run_dir)
        self._views(self._document)
        if folder := getattr(session.config.option, "allure_report_dir", None):
            allure.write(self._document, Path(folder))
        session.config.hook.pytest_pgo_report(
            verdict=self._document, run_dir=run.run_dir, settings=run.settings
        )
        session.exitstatus = self._exit_status(int(session.exitstatus), self._document)

    def _views(self, document: dict[str, Any]) -> None:
        """Write every view; one that fails is told and changes neither verdict nor exit status."""
        run_dir = self._run.run_dir
        for view in views.VIEWS:
            try:
                views.write_view(view, document, run_dir, run_dir)
            except Exception as error:  # noqa: BLE001 - the verdict stands beside it, whatever this is
                trouble = f"{type(error).__name__}: {error}"
                self._console.line(f"pgo: {view.file} could not be written: {trouble}")
        if summary_file := os.environ.get("GITHUB_STEP_SUMMARY"):
            try:
                views.append_summary(run_dir, Path(summary_file))
            except OSError as error:
                self._console.line(f"pgo: GITHUB_STEP_SUMMARY: {error.strerror}")

    def _exit_status(self, status: int, document: dict[str, Any]) -> int:
        """Return pytest's own status unless the verdict says more (DESIGN 5: 6 and 7; 4 for usage).

        A failed test that is no scenario keeps the run at 1.
        """
        if is_usage(self._run.failure()):
            return int(pytest.ExitCode.USAGE_ERROR)
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return status
        if self._failed - {scenario["id"] for scenario in document["scenarios"]}:
            return status
        found = exit_status(document["verdict"])
        gate_met = (document.get("gate") or {}).get("met", True)
        return found or (0 if gate_met else EXIT_GATE)

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._document is not None:
            terminalreporter.section("verdict")
            for line in summary.lines(self._document, self._run.run_dir):
                terminalreporter.write_line(line)
            if decision := self._document["gate"]:
                terminalreporter.section("gate")
                for line in decision_lines(decision):
                    terminalreporter.write_line(line)
        handle, settings = self._handle, self._run.settings
        if handle is not None and (settings.keep or settings.reuse):
            terminalreporter.section(f"cluster {handle.name} is kept")
            for hint in (
                *handle.hints[:-1],
                _here(self._run.rerun(reuse=handle.name), terminalreporter.config),
                *handle.hints[-1:],
            ):
                terminalreporter.write_line(hint)

    def pytest_unconfigure(self) -> None:
        self._forget()
        self._console.close()

    def _forget(self) -> None:
        """Undo what this object holds outside pytest; once is enough, twice does no harm."""
        if self._in_use is not None:
            self._in_use.release()
            self._in_use = None
        if self._old_handler is not None:
            signal.signal(signal.SIGTERM, self._old_handler)
            self._old_handler = None
        shutil.rmtree(self._run.shared.folder, ignore_errors=True)
        forget_directory(self._run.run_dir)
        if self._run.ledger.exists() and not LedgerEntry.read(self._run.ledger).name:
            self._run.ledger.unlink()

    def _obey_sigterm(self) -> None:
        """Make SIGTERM end the run as Ctrl-C does: fixtures torn down, cluster removed."""
        if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
            return

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            raise KeyboardInterrupt("terminated")

        self._old_handler = signal.signal(signal.SIGTERM, interrupt)


def _here(rerun: str, config: pytest.Config) -> str:
    """Return the command so that it works when pasted: this environment's pytest, the same arguments."""
    ours = Path(sys.executable).parent
    if Path(shutil.which("pytest") or "").parent != ours:
        rerun = f"{shlex.quote(sys.executable)} -m {rerun}"
    named = config.args if config.args_source is config.ArgsSource.ARGS else []
    return shlex.join([*shlex.split(rerun), *named])


def _subject(run: Run, handle: ClusterHandle | None, facts: dict[str, Any]) -> verdicts.Subject:
    return verdicts.Subject(
        provider=run.settings.provider,
        stand_in=handle.stand_in if handle else run.settings.provider == "local",
        kubernetes=handle.kubernetes_version if handle else None,
        pgo=facts.get("pgo") or (handle.operator_version if handle else None),
        postgresql=facts.get("postgresql"),
        patroni=facts.get("patroni"),
        namespace=run.settings.namespace,
        cluster=handle.name if handle else None,
        manifest_sha256=facts.get("manifest_sha256"),
        capabilities=tuple(sorted(handle.capabilities)) if handle else (),
        images=tuple(facts.get("images") or ()),
    )
