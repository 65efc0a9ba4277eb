"""Scenarios in Allure: the same results serially and in parallel, nothing lost, nothing shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .castles import CONFTEST

FEATURE = """\
@failover
Feature: Allure
  Rule: Everything is told

    @S10 @C2 @smoke
    Scenario: It passes
      Given a cluster
      And an attachment
      Then it is fine

    Scenario Outline: There are <count>
      Given a cluster
      Then there are <count> of them

      Examples:
        | count |
        | 2     |
        | 3     |

  Scenario: A promise is broken
    Given a cluster
    Then it is over

  Scenario: Nobody can look
    When the network goes away

  Scenario: The rest is skipped
    Given a cluster
    Then we skip the rest

  @real-eks
  Scenario: It needs another cluster
    Given a cluster

  @disruptive
  Scenario: It leaves the cluster sick
    Given a cluster
    Then it is fine
"""
MORE = """

import allure
from pytest_pgo_eks.secrets import Secret

CANARY = Secret('canary"\\\\<&>é-4711')


@given("an attachment")
def _(pgo_evidence):
    allure.attach(f"by the step, {CANARY}", "note")
    print(f"seen on stdout: {CANARY}")
    pgo_evidence.attach("timeline.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")
    pgo_evidence.attach("secret.txt", f"password={CANARY}")
    pgo_evidence.fault("pod-deleted", "castle-0", f"its UID is gone {CANARY}")


@when("the keeper shouts")
def _():
    raise ApiProblem(f"postgresql://app:{CANARY}@castle/db refused {CANARY}")
"""


@pytest.fixture(scope="module")
def shout() -> str:
    return FEATURE + "\n  Scenario: The keeper shouts\n    When the keeper shouts\n"


Runner = Callable[..., tuple[int, Path]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, shout: str) -> Runner:
    def run(*arguments: str) -> tuple[int, Path]:
        place = tmp_path_factory.mktemp("castle")
        (place / "conftest.py").write_text(CONFTEST + MORE)
        (place / "sick").touch()
        (place / "allure.feature").write_text(shout)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PGO_", "PYTEST_"))}
        without = ("-p", "no:hypothesispytest", "-p", "no:timeout", "-p", "no:cacheprovider")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "--cluster=fake",
                "--alluredir=allure",
                *without,
                *arguments,
            ],
            cwd=place,
            env=environment | {"XDG_STATE_HOME": str(place / "state")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        (place / "printed").write_text(done.stdout + done.stderr)
        return done.returncode, place

    return run


@pytest.fixture(scope="module")
def serial(ran: Runner) -> Path:
    status, place = ran("-p", "no:xdist")
    assert status == 1, (place / "printed").read_text()
    return place


def results(place: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (place / "allure").glob("*-result.json")]
    return {one["fullName"] + str(one.get("parameters", "")): one for one in found}


def by_name(place: Path) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in results(place).values()}


def comparable(place: Path) -> dict[str, Any]:
    """Leave out what has to differ: identities, times, the machine and its processes."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            dropped = {"uuid", "start", "stop", "source", "trace"}
            return {name: plain(inner) for name, inner in value.items() if name not in dropped}
        if isinstance(value, list):
            told = [
                one for one in value if not (isinstance(one, dict) and one.get("name") == "thread")
            ]
            return [plain(inner) for inner in told]
        if isinstance(value, str):
            return re.sub(r"castle\d+|after \d+\.\d+ s", "", value)
        return value

    return {name: plain(one) for name, one in results(place).items()}


def labels(result: dict[str, Any], name: str) -> list[str]:
    return [label["value"] for label in result["labels"] if label["name"] == name]


def test_the_results_are_the_same_in_parallel(ran: Runner, serial: Path) -> None:
    status, parallel = ran("-n2")
    assert status == 1
    one, other = comparable(serial), comparable(parallel)
    assert len(one) == 9
    assert one == other


def test_every_outcome_arrives_as_what_it_is(serial: Path) -> None:
    status = {name: one["status"] for name, one in by_name(serial).items()}
    assert status == {
        "It passes": "passed",
        "There are 2": "passed",
        "There are 3": "failed",
        "A promise is broken": "failed",
        "Nobody can look": "broken",
        "The rest is skipped": "skipped",
        "It needs another cluster": "skipped",
        "It leaves the cluster sick": "failed",
        "The keeper shouts": "broken",
    }


def test_steps_feature_story_and_requirements_are_told(serial: Path) -> None:
    passed = by_name(serial)["It passes"]
    assert [step["name"] for step in passed["steps"]] == [
        "Given a cluster",
        "And an attachment",
        "Then it is fine",
    ]
    assert {step["status"] for step in passed["steps"]} == {"passed"}
    assert labels(passed, "feature") == ["Allure"]
    assert labels(passed, "story") == ["Everything is told"]
    assert labels(passed, "requirement") == ["S10", "S15", "C2"]
    assert labels(passed, "severity") == ["blocker"]
    skipped = by_name(serial)["The rest is skipped"]["steps"]
    assert [step["status"] for step in skipped] == ["passed", "skipped"]
    broken = by_name(serial)["Nobody can look"]["steps"]
    assert [step["status"] for step in broken] == ["broken"]


def test_an_outline_has_a_parameter_for_each_column_and_a_history_for_each_row(
    serial: Path,
) -> None:
    rows = [one for one in results(serial).values() if one["name"].startswith("There are")]
    assert sorted(str(one["parameters"]) for one in rows) == [
        "[{'name': 'count', 'value': '2'}]",
        "[{'name': 'count', 'value': '3'}]",
    ]
    assert len({one["historyId"] for one in rows}) == 2


def test_attachments_lie_where_they_belong(serial: Path) -> None:
    passed = by_name(serial)["It passes"]
    (note,) = passed["steps"][1]["attachments"]
    assert note["name"] == "note"
    kinds = {one["name"]: one["type"] for one in passed["attachments"]}
    assert kinds["timeline.svg"] == "image/svg+xml"
    assert kinds["findings"] == "text/plain"
    failed = by_name(serial)["A promise is broken"]
    assert "diagnostics/why.txt" in {one["name"] for one in failed["attachments"]}
    findings = next(one for one in passed["attachments"] if one["name"] == "findings")
    assert "fault pod-deleted at castle-0" in (serial / "allure" / findings["source"]).read_text()


def test_no_secret_reaches_any_file_of_allure_or_of_the_report(serial: Path) -> None:
    files = [p for top in ("allure", "reports") for p in (serial / top).rglob("*") if p.is_file()]
    assert len(files) > 20
    told = {path: path.read_text("utf-8") for path in files}
    assert not [path.name for path, text in told.items() if "4711" in text]
    assert any("********" in text for text in told.values())


def test_the_fixtures_that_pytest_bdd_makes_of_steps_are_left_out(serial: Path) -> None:
    containers = [json.loads(p.read_text()) for p in (serial / "allure").glob("*-container.json")]
    names = {one["name"] for container in containers for one in container.get("befores", ())}
    assert "pgo_cluster" in names
    assert not [name for name in names if "bdd" in name]


def test_environment_categories_and_executor_lie_beside_the_results(serial: Path) -> None:
    told = (serial / "allure" / "environment.properties").read_text("ascii")
    assert "provider=fake\n" in told
    assert "verdict=violation\n" in told
    assert "kubernetes=v1.34.0+fake\n" in told, "the cluster's version, not the client library's"
    assert "runner.kubernetes\\ client=" in told
    categories = json.loads((serial / "allure" / "categories.json").read_text())
    assert [one["matchedStatuses"] for one in categories] == [
        ["failed"],
        ["broken"],
        ["skipped"],
        ["skipped"],
    ]
    executor = json.loads((serial / "allure" / "executor.json").read_text())
    assert executor["reportName"].startswith("PGO conformance 2")


def test_beside_the_other_adapter_one_line_says_what_to_do(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name alone counts; with both installed pytest itself would not start."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        other="""
        def pytest_addoption(parser):
            parser.addoption("--alluredir", dest="allure_report_dir", default=None)

        def pytest_configure(config):
            pass
        """
    )
    pytester.makepyfile(allure_pytest_bdd="from other import *")
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    monkeypatch.syspath_prepend(pytester.path)
    done = pytester.runpytest_inprocess(
        "-p", "no:allure_pytest", "-p", "allure_pytest_bdd", "-p", "no:hypothesispytest",
        "--cluster=fake", "--alluredir=allure",
    )  # fmt: skip
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*pgo: --alluredir: allure-pytest-bdd loses skipped*"])
    assert not (pytester.path / "allure").exists()


def test_with_both_adapters_installed_one_line_says_which_to_remove(tmp_path: Path) -> None:
    (tmp_path / "allure_pytest_bdd.py").touch()
    (tmp_path / "test_it.py").write_text("def test_it(): pass")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PGO_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "test_it.py"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "pip uninstall allure-pytest-bdd" in done.stderr
    assert done.stderr.strip().count("\n") == 0
