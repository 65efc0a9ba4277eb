"""A project of somebody else's, with a provider that makes clusters out of nothing."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

CONFTEST = '''
from pathlib import Path

import pytest
from pytest_bdd import given, parsers, then, when

from pytest_pgo_eks.clusters.base import ClusterHandle, note_intent
from pytest_pgo_eks.errors import ApiProblem, ClusterProblem, UsageProblem, Violation

HERE = Path(__file__).parent


def log(line):
    with (HERE / "log").open("a") as file:
        file.write(line + "\\n")


class Fake:
    name = "fake"
    never = {"real-eks": "it is made of nothing"}

    def preflight(self, settings):
        log("preflight")
        if (HERE / "refuse").exists():
            raise UsageProblem("this machine has no imagination")

    def create(self, settings, progress, ledger):
        log("create")
        note_intent(ledger, name="castle", remove="blow castle")
        trouble = HERE / "trouble"
        if trouble.exists():
            raise {"usage": UsageProblem, "cluster": ClusterProblem}[trouble.read_text()]("no air")
        if (HERE / "stuck").exists():
            import signal
            (HERE / "fifo").write_text("here")
            signal.pause()
        return self.handle()

    def adopt(self, settings, progress):
        log(f"adopt {settings.reuse}")
        return self.handle()

    def handle(self):
        return ClusterHandle(
            "castle", "fake", HERE / "kubeconfig", capabilities=frozenset({"zones"}),
            kubernetes_version="v1.34.0+fake", hints=("look at castle", "blow castle"),
        )

    def destroy(self, handle, progress):
        log("destroy")
        if (HERE / "slow").exists():
            import signal
            (HERE / "fifo").write_text("here")
            signal.pause()
        if (HERE / "sticky").exists():
            raise ClusterProblem("the castle sticks")

    def sweep(self, entry, progress):
        log(f"sweep {entry.name}")
        return "removed"


def pytest_pgo_providers():
    return [Fake()]


def pytest_pgo_operator(cluster, first):
    log(f"operator first={first}")
    return "operator of " + cluster.name


def pytest_pgo_postgres(cluster, operator, first):
    log(f"postgres first={first}")
    return "postgres of " + cluster.name


def pytest_pgo_prove_healthy(postgres, before):
    log(f"healthy {postgres} {before}")
    if before and (HERE / "sick").exists():
        raise Violation("another system identifier")
    return "identity"


def pytest_pgo_diagnostics(cluster, folder, error):
    folder.mkdir(parents=True)
    (folder / "why.txt").write_text(f"{type(error).__name__}: {error}")


@given("a cluster")
def _(pgo_postgres):
    """Somebody built one."""


@given("nothing")
def _():
    pass


@when("it dies")
def _():
    pass


@when("the network goes away")
def _():
    raise ApiProblem("no route")


@then("it is fine")
def _():
    """All is well."""


@then(parsers.parse("there are {count:d} of them"))
def _(count):
    assert count < 3


@then("it is over")
def _():
    raise Violation("a row was lost")


@then("we skip the rest")
def _():
    pytest.skip("not today")
'''


# Plugins that have no part in it; Hypothesis alone would take two seconds of each run to import.
_WITHOUT_OTHERS = ("-p", "no:hypothesispytest", "-p", "no:allure_pytest", "-p", "no:timeout")


class Project:
    """Writes a project's files and runs pytest on them."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.write("conftest.py", CONFTEST)

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), "utf-8")
        return path

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run in this process: fast, and warnings of ours become errors here."""
        return self.pytester.runpytest_inprocess(*_WITHOUT_OTHERS, *arguments)

    def log(self) -> list[str]:
        path = self.path / "log"
        return path.read_text("utf-8").splitlines() if path.exists() else []

    def run_dir(self) -> Path:
        """Return the folder of the only run."""
        (found,) = (p for p in (self.path / "reports").iterdir() if not p.is_symlink())
        assert (self.path / "reports" / "latest").resolve() == found
        return found


TWO = """
    Feature: Castles
      Rule: Castles stand

        @smoke @routing
        Scenario: A castle stands
          Given a cluster
          Then it is fine

      @failover
      Scenario Outline: Castles have <count> towers
        Given a cluster
        Then there are <count> of them

        Examples:
          | count |
          | 2     |
          | 3     |
"""
