"""Scenarios in Allure, through ``allure-pytest`` and this bridge.

``allure-pytest-bdd`` loses skipped scenarios and errors of the set-up and prints the ``repr`` of every
fixture that a step asks for; ``allure-pytest`` alone knows no steps. So the steps are opened here
while they run (what a step attaches lands in it), and everything else that the evidence knows is
added when a result is written: the verdict, title, feature, story, parameters, files. What is
written goes through the secret filter.

It leans on the file logger's ``_report_item``; ``tests/session/test_allure.py`` guards it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from allure_commons import hookimpl, plugin_manager
from allure_commons.logger import AllureFileLogger
from allure_commons.model2 import Attachment, Label, Parameter, TestResult, TestResultContainer

from pytest_pgo_eks.gherkin.collector import TEMPLATE
from pytest_pgo_eks.report.evidence import ScenarioEvidence
from pytest_pgo_eks.secrets import filter_file, filtered, masked
from pytest_pgo_eks.session.evidence import EVIDENCE

_OPEN = pytest.StashKey[list[str]]()
_STATUS = {"pass": "passed", "violation": "failed", "inconclusive": "broken", "skipped": "skipped"}
_SEVERITY = ("blocker", "critical", "normal", "minor", "trivial")
_NAME = "pgo-allure"
_EPIC = "PGO conformance"
# pytest-bdd makes a fixture of every step and of every row: noise beside what set the scenario up.
_NOISE = ("pytestbdd_stepdef_", "_pytest_bdd_example")
_ROW = "_pytest_bdd_example"
_KINDS = {".svg": "image/svg+xml", ".json": "application/json", ".txt": "text/plain"}
_FILES = 40
_FILE_BYTES = 4 << 20


class AllureBridge:
    """Registered with pytest and with Allure, where ``--alluredir`` is given."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._item: pytest.Item | None = None
        # Allure ships no types.
        self._logger: Any = None
        self._write: Callable[[object], None] = lambda _: None

    def pytest_sessionstart(self) -> None:
        """Step between Allure and its file logger, which is there by now."""
        self._logger = next(
            one for one in plugin_manager.get_plugins() if isinstance(one, AllureFileLogger)
        )
        self._write = self._logger._report_item  # noqa: SLF001 - the one way in, see above
        self._logger._report_item = self._report  # noqa: SLF001
        plugin_manager.register(self, _NAME)

    def pytest_unconfigure(self) -> None:
        """Step back."""
        if self._logger is not None:
            plugin_manager.unregister(name=_NAME)
            self._logger._report_item = self._write  # noqa: SLF001

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._item = item
        try:
            return (yield)
        finally:
            self._item = None

    def pytest_bdd_before_step(self, request: pytest.FixtureRequest, step: Any) -> None:
        uuid = str(uuid4())
        request.node.stash.setdefault(_OPEN, []).append(uuid)
        title = f"{step.keyword.strip()} {step.name}"
        plugin_manager.hook.start_step(uuid=uuid, title=title, params={})

    def pytest_bdd_after_step(self, request: pytest.FixtureRequest) -> None:
        _close_steps(request.node, None)

    def pytest_bdd_step_error(
        self, request: pytest.FixtureRequest, exception: BaseException
    ) -> None:
        _close_steps(request.node, exception)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        try:
            return (yield)
        except BaseException as error:
            # A step that skips the rest reaches neither hook above.
            _close_steps(item, error)
            raise

    @hookimpl(trylast=True)
    def report_attached_data(self, body: object, file_name: str) -> None:
        """Filter what somebody attached, once the logger has written it."""
        del body
        self._filter(file_name)

    @hookimpl(trylast=True)
    def report_attached_file(self, source: object, file_name: str) -> None:
        del source
        self._filter(file_name)

    def _filter(self, file_name: str) -> None:
        filter_file(self._logger._report_dir / file_name)  # noqa: SLF001 - where it has just written to

    def _report(self, thing: object) -> None:
        """Complete and clean what the logger is about to write."""
        if isinstance(thing, TestResultContainer):
            thing.befores = [one for one in thing.befores if not one.name.startswith(_NOISE)]
            thing.afters = [one for one in thing.afters if not one.name.startswith(_NOISE)]
            if not thing.befores and not thing.afters:
                return
        if isinstance(thing, TestResult) and self._item is not None:
            evidence = self._item.stash.get(EVIDENCE, None)
            if evidence is not None:
                self._complete(thing, self._item, evidence)
        _clean(thing)
        self._write(thing)

    def _complete(self, result: TestResult, item: pytest.Item, evidence: ScenarioEvidence) -> None:
        who = evidence.identity
        result.name = who.name
        template = item.stash.get(TEMPLATE, None)
        if template is not None:
            told = "\n\n".join(filter(None, [who.rule, template.description.strip()]))
            result.description = told or None
            result.parameters = [p for p in result.parameters if p.name != _ROW]
            row = getattr(getattr(item, "callspec", None), "params", {}).get(_ROW, {})
            result.parameters += [Parameter(name, value) for name, value in row.items()]
        tags = sorted({one.value for one in result.labels if one.name == "tag"})
        result.labels = [one for one in result.labels if one.name != "tag"]
        result.labels += [
            *(Label("tag", name) for name in tags),
            Label("epic", _EPIC),
            Label("feature", who.feature),
            *([Label("story", who.rule)] if who.rule else []),
            Label("severity", _SEVERITY[who.level]),
            *(Label("requirement", name) for name in who.requirements),
        ]
        verdict = evidence.verdict or "inconclusive"
        result.status = _STATUS[verdict]
        if result.statusDetails is not None and evidence.reason:
            result.statusDetails.message = evidence.reason
        for step in result.steps:
            if step.status in {"failed", "broken"} and verdict in {"violation", "inconclusive"}:
                # Allure tells them apart by the exception's class alone.
                step.status = _STATUS[verdict]
        self._attach(result, evidence)

    def _attach(self, result: TestResult, evidence: ScenarioEvidence) -> None:
        told = findings_text(evidence)
        if told:
            name = f"{uuid4()}-attachment.txt"
            self._logger.report_attached_data(body=told, file_name=name)
            result.attachments.append(Attachment("findings", name, "text/plain"))
        shown = [name for name in evidence.attachments if Path(name).suffix in _KINDS]
        for name in shown[:_FILES]:
            path = self._run_dir / name
            if not path.is_file() or path.stat().st_size > _FILE_BYTES:
                continue
            copy = f"{uuid4()}-attachment{path.suffix}"
            self._logger.report_attached_file(source=path, file_name=copy)
            self._filter(copy)
            place = path.relative_to(evidence.folder).as_posix()
            result.attachments.append(Attachment(place, copy, _KINDS[path.suffix]))


def findings_text(evidence: ScenarioEvidence) -> str:
    """Return faults with their proof and findings with theirs, as text; empty without either."""
    lines = [
        f"fault {fault.kind} at {fault.target} after {fault.began_s:.2f} s: {fault.proof}"
        for fault in evidence.faults
    ]
    lines += [f"{finding.outcome}: {finding}" for finding in evidence.findings]
    return filtered("\n".join(lines) + "\n") if lines else ""


def _close_steps(node: pytest.Item, error: BaseException | None) -> None:
    stack = node.stash.get(_OPEN, [])
    while stack:
        plugin_manager.hook.stop_step(
            uuid=stack.pop(),
            exc_type=type(error) if error else None,
            exc_val=error,
            exc_tb=error.__traceback__ if error else None,
        )


def _clean(thing: Any) -> None:
    """Filter every text in a result, however deep: names, messages, traces, parameters."""
    for name, value in vars(thing).items():
        if isinstance(value, str | dict):
            setattr(thing, name, masked(value))
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                if hasattr(inner, "__dict__"):
                    _clean(inner)
                else:
                    value[number] = masked(inner)
        elif hasattr(value, "__dict__"):
            _clean(value)
