"""Feeds each scenario's evidence from the hooks of pytest and pytest-bdd, in every process."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from _pytest.outcomes import Failed
from pytest_bdd.parser import ScenarioTemplate

from pytest_pgo_eks.errors import ClusterProblem, PgoEksError, UsageProblem
from pytest_pgo_eks.gherkin import tags
from pytest_pgo_eks.gherkin.collector import TEMPLATE, all_tags, level
from pytest_pgo_eks.gherkin.selection import WHY, lacking, uses_cluster
from pytest_pgo_eks.pattern import requirements
from pytest_pgo_eks.report.evidence import ScenarioEvidence, ScenarioIdentity
from pytest_pgo_eks.report.links import anchor
from pytest_pgo_eks.report.verdict import classify
from pytest_pgo_eks.report.views import PAGE
from pytest_pgo_eks.secrets import filter_file
from pytest_pgo_eks.session.run import Run
from pytest_pgo_eks.session.subject import refuse_manifest

EVIDENCE = pytest.StashKey[ScenarioEvidence]()
_TELLING = 6
_BEFORE = pytest.StashKey[object]()


class Witness:
    """Gives every scenario its lock, its proof of health, its evidence and its conclusion."""

    def __init__(self, run: Run, *, worker: bool) -> None:
        self._run = run
        self._worker = worker
        self._left_out: dict[str, dict[str, Any]] = {}
        self._latest: ScenarioEvidence | None = None

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Note for the controller, which under xdist collects nothing, what was left out and why."""
        for item in items:
            who = asdict(identity(item))
            del who["line"]
            reason = item.stash.get(WHY, None) or chosen(item.config)
            self._left_out[item.nodeid] = {**who, "reason": reason}
        left_out = [self._left_out[name] for name in sorted(self._left_out)]
        self._run.shared.note("deselected", {"scenarios": left_out})

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """With several workers, let those who can share the cluster go first.

        Mixed, each disruptive scenario would have every other worker wait twice: for its end, and
        before its begin, as it waits for those that are reading.
        """
        if self._worker:
            items.sort(key=lambda item: uses_cluster(item) and _disruptive(item))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """In a worker of xdist, refuse a manifest that its scenarios cannot work with.

        An error raised here would end xdist with a traceback of its own; so whoever asks for the
        cluster gets it instead, and nothing is created.
        """
        if self._worker:
            try:
                refuse_manifest(self._run.settings, session.items)
            except UsageProblem as problem:
                self._run.refuse(problem)

    # First, so that no other plugin's clock (pytest-timeout) runs while a scenario waits its turn.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        if not uses_cluster(item):
            return (yield)
        with ExitStack() as held:
            who = identity(item)
            if item.get_closest_marker("skip") is None:
                self._lock(who.name, held, alone=_disruptive(item))
            evidence = self._latest = ScenarioEvidence(who, self._run.run_dir)
            evidence.seed = self._run.seed_of(who.id)
            # For pytest's own --junitxml; set on the item, they survive xdist.
            item.user_properties += [("requirement", name) for name in who.requirements]
            item.user_properties += [("level", who.level), ("link", f"{PAGE}#{anchor(who.id)}")]
            item.stash[EVIDENCE] = evidence
            # A worker that dies leaves at least that the scenario began.
            evidence.write()
            return (yield)

    def _lock(self, name: str, held: ExitStack, *, alone: bool) -> None:
        lock = self._run.lock
        holder = lock.holder()
        waiting = f"“{name}” waits for the cluster" + (f", held by {holder}" if holder else "")
        with self._run.progress.phase(waiting):
            held.enter_context(lock.exclusive(f"“{name}”") if alone else lock.shared())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        if EVIDENCE in item.stash:
            self._skip_what_is_lacking(item)
        yield
        if EVIDENCE in item.stash and _disruptive(item):
            item.stash[_BEFORE] = self._healthy(item, None)

    def _skip_what_is_lacking(self, item: pytest.Item) -> None:
        needed = tags.needed(all_tags(item))
        if not needed or item.get_closest_marker("skip"):
            return
        try:
            cluster = self._run.cluster()
        except PgoEksError as error:
            raise Unavailable(error) from None
        for name in needed:
            if name not in cluster.capabilities:
                told = cluster.lacks.get(name)
                why = f": {told}" if told else " does not have it"
                pytest.skip(lacking(name, f"cluster {cluster.name}{why}"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        yield
        if _BEFORE in item.stash:
            self._healthy(item, item.stash[_BEFORE])

    def _healthy(self, item: pytest.Item, before: object | None) -> object:
        postgres = getattr(item, "funcargs", {}).get("pgo_postgres")
        when = "before" if before is None else "after"
        with self._run.progress.phase(f"proving the cluster healthy {when} {item.name}"):
            answer = item.ihook.pytest_pgo_prove_healthy(
                postgres=postgres, settings=self._run.settings, before=before
            )
        if answer is None:
            raise ClusterProblem(f"nothing installed here can prove {postgres!r} healthy")
        return answer

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        evidence = item.stash.get(EVIDENCE, None)
        if evidence is None:
            return report
        if report.skipped:
            evidence.step_ends("skipped")
            evidence.conclude("skipped", _skip_reason(report))
        elif report.failed and call.excinfo is not None:
            evidence.step_ends("failed")
            self._judge(item, evidence, report, cause(call.excinfo.value))
        elif report.when == "teardown" and evidence.verdict is None:
            evidence.conclude("pass")
        return report

    def _judge(
        self,
        item: pytest.Item,
        evidence: ScenarioEvidence,
        report: pytest.TestReport,
        error: BaseException,
    ) -> None:
        # A plain test has no sentences: its asserts are the promises that it checks.
        plain_test = item.stash.get(TEMPLATE, None) is None
        step = evidence.steps[-1].kind if evidence.steps else "then" if plain_test else None
        verdict = classify(error, step=step, when=report.when)
        evidence.conclude(verdict, f"{error}" or type(error).__name__)
        self._diagnose(item, evidence, error)
        telling = _telling(evidence.folder / "diagnostics" / "README.txt")
        if telling:
            report.sections.append(("what to look at first", telling))

    def _diagnose(
        self, item: pytest.Item, evidence: ScenarioEvidence, error: BaseException
    ) -> None:
        cluster = self._run.made()
        # What did not come up fails every scenario in the same way: one explanation serves all.
        if cluster is None or (self._run.failure() and not self._run.shared.first("diagnosis")):
            return
        folder = evidence.folder / "diagnostics"
        try:
            with self._run.progress.phase(f"collecting what explains the failure of {item.name}"):
                item.ihook.pytest_pgo_diagnostics(
                    cluster=cluster, settings=self._run.settings, folder=folder, error=error
                )
        except Exception as trouble:  # noqa: BLE001 - it must never hide the failure it explains
            evidence.attach("diagnostics-failed.txt", f"{type(trouble).__name__}: {trouble}\n")
        # Users' hooks write here as well.
        for path in folder.rglob("*"):
            filter_file(path)
        for path in sorted(folder.glob("*.txt"), key=lambda path: path.name != "README.txt"):
            evidence.attached(path)
        evidence.write()

    def pytest_keyboard_interrupt(self) -> None:
        """Spare the interrupted scenario its way back where nobody will use the cluster again."""
        settings, cluster = self._run.settings, self._run.made()
        kept = settings.keep or settings.reuse
        if self._latest is not None and cluster is not None and cluster.stand_in and not kept:
            self._latest.abandoned = True

    def pytest_bdd_before_step(self, request: pytest.FixtureRequest, step: Any) -> None:
        if evidence := request.node.stash.get(EVIDENCE, None):
            evidence.step_begins(step.type, step.name)

    def pytest_bdd_after_step(self, request: pytest.FixtureRequest) -> None:
        if evidence := request.node.stash.get(EVIDENCE, None):
            evidence.step_ends("passed")

    def pytest_bdd_step_error(self, request: pytest.FixtureRequest) -> None:
        if evidence := request.node.stash.get(EVIDENCE, None):
            evidence.step_ends("failed")


class Unavailable(Failed):
    """Fails a test with an error's message alone.

    The traceback of a cluster that did not come up leads through our fixtures and helps nobody, and
    pytest would print it for a cause as well; so the error is an attribute.
    """

    # As pytest's own outcomes have it: the summary of a run then shows the name alone.
    __module__ = "builtins"

    def __init__(self, error: PgoEksError) -> None:
        super().__init__(str(error), pytrace=False)
        self.error = error


def _telling(readme: Path) -> str:
    """Return the most telling lines of a collection: a few, for the failure message itself."""
    try:
        lines = readme.read_text("utf-8").splitlines()
    except OSError:
        return ""
    try:
        begins = lines.index("Look at first:") + 1
    except ValueError:
        return ""
    told = [one.strip() for one in lines[begins : lines.index("", begins)]]
    return "\n".join([*told[:_TELLING], f"more in {readme.parent}"])


def cause(error: BaseException) -> BaseException:
    """Return what the verdict is to be drawn from.

    ``pytest.fail`` in a step is how a person writes an assertion without a comparison; the one that
    pytest-timeout calls is none.
    """
    if isinstance(error, Unavailable):
        return error.error
    if isinstance(error, Failed) and "pytest-timeout" not in str(error):
        return AssertionError(str(error))
    return error


def identity(item: pytest.Item) -> ScenarioIdentity:
    template = item.stash.get(TEMPLATE, None)
    names = tuple(sorted(all_tags(item) & tags.names()))
    cited = requirements(names)
    if template is None:
        path, line, _ = item.location
        number = (line or 0) + 1
        return ScenarioIdentity(item.nodeid, path, "", item.name, names, number, level(item), cited)
    return ScenarioIdentity(
        id=item.nodeid,
        feature=template.feature.name or "",
        rule=template.rule.name if template.rule else "",
        name=_title(item, template),
        tags=names,
        line=template.line_number,
        level=level(item),
        requirements=cited,
    )


def chosen(config: pytest.Config) -> str:
    """Say what on the command line may have left a test out."""
    given = {"-k": "keyword", "-m": "markexpr", "--deselect": "deselect", "--lf": "lf"}
    used = [flag for flag, name in given.items() if getattr(config.option, name, None)]
    return f"not chosen by {', '.join(used)}" if used else "left out by a plugin"


def _title(item: pytest.Item, template: ScenarioTemplate) -> str:
    """Return the scenario's name with its row filled in; the row behind it if it is not named."""
    row = getattr(item, "callspec", None)
    if row is None:
        return item.name
    title = template.render(row.params["_pytest_bdd_example"]).name
    return title if title != template.name else item.name


def _disruptive(item: pytest.Item) -> bool:
    return item.get_closest_marker(tags.DISRUPTIVE) is not None


def _skip_reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(getattr(report, "wasxfail", "")) or str(report.longrepr or "")
