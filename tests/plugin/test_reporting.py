"""What a run leaves behind, as the plugin writes it: the same serially and in parallel."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pytest_pgo_eks.report import views
from pytest_pgo_eks.report.reading import load

from .castles import CONFTEST, Project

FEATURE = """
    @failover
    Feature: Reports
      Rule: Everything is told

        @S10 @C2 @smoke
        Scenario: It passes
          Given a cluster
          Then it is fine

      Scenario Outline: There are <count>
        Given a cluster
        Then there are <count> of them

        Examples:
          | count |
          | 2     |
          | 3     |

      Scenario: Nobody can look
        When the network goes away

      @real-eks @S2
      Scenario: It needs another cluster
        Given a cluster

      @level-4 @C6
      Scenario: It takes hours
        Given a cluster

      @disruptive
      Scenario: It is disturbed
        Given a cluster
        When it dies
        Then it is fine
"""
RECORD = """

def _record(self, handle):
    from pytest_pgo_eks.clusters.record import Cost, CostLine, Deviation, ProviderRecord

    log(f"record {handle.name}")
    return ProviderRecord(
        "us-east-1",
        Cost((CostLine("3 castles", 1.5, 2.25),), 2.25, 3.0, "2026-11-01"),
        ("moat: drain moat",),
        (Deviation("D5", "three", "six", "as configured"),),
    )

Fake.record = _record
"""


def verdict(project: Project) -> dict[str, Any]:
    return load(project.run_dir())


def comparable(document: dict[str, Any]) -> Any:
    """Leave out what has to differ between two runs."""
    dropped = {"run", "began", "ended", "took_s", "began_s", "folder", "attachments"}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items() if name not in dropped}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    found = {**document, "scenarios": sorted(document["scenarios"], key=lambda one: one["id"])}
    # The checkout may be committed to between two runs.
    found["suite"] = None
    found["left_out"] = sorted(found["left_out"], key=lambda one: str(one["id"]))
    return plain(found)


def test_a_parallel_run_writes_the_same_document_and_the_same_junit(project: Project) -> None:
    project.write("features/reports.feature", FEATURE)
    seen = []
    for workers in ((), ("-n2",)):
        arguments = ("-k", "passes or disturbed or another or hours", "--junitxml=out.xml")
        project.run("--cluster=fake", "features", "--pgo-seed=7", *arguments, *workers)
        cases = ET.parse(project.path / "out.xml").iter("testcase")
        told = {
            case.attrib["name"]: sorted(
                (one.attrib["name"], one.attrib["value"]) for one in case.iter("property")
            )
            for case in cases
        }
        seen.append((comparable(verdict(project)), told))
        for path in sorted((project.path / "reports").rglob("*"), reverse=True):
            path.unlink() if path.is_symlink() or path.is_file() else path.rmdir()
    assert seen[0] == seen[1]
    document, properties = seen[0]
    assert {one["verdict"] for one in document["scenarios"]} == {"pass", "skipped"}
    assert [one["kind"] for one in document["left_out"]].count("deselected") == 4
    assert len({one["seed"] for one in document["scenarios"]} - {None}) == 3
    assert "--pgo-seed=7" in document["scenarios"][0]["rerun"]
    passed = dict(properties["It passes"])
    assert re.fullmatch(r"report\.html#s-it-passes-[0-9a-f]{8}", passed["link"])
    assert passed["level"] == "0"
    cited = [value for name, value in properties["It passes"] if name == "requirement"]
    assert cited == ["C2", "S10", "S15"]


def test_every_view_lies_beside_the_verdict_and_the_job_s_summary_is_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("features/reports.feature", FEATURE)
    summary = project.write("summary", "of the step before\n")
    for name, value in {
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "17",
        "GITHUB_RUN_NUMBER": "3",
        "GITHUB_SHA": "c0ffee",
        "GITHUB_REF_NAME": "main",
    }.items():
        monkeypatch.setenv(name, value)
    result = project.run("--cluster=fake", "features")
    assert {view.file for view in views.VIEWS} <= {
        path.name for path in project.run_dir().iterdir()
    }
    told = summary.read_text("utf-8")
    assert told.startswith("of the step before\n# ❌ Violation: PGO conformance\n")
    result.stdout.fnmatch_lines(
        [
            "VIOLATION: A promise was broken in 1 of 5 scenarios.",
            "*report: */report.html",
        ]
    )
    assert verdict(project)["executor"] == {
        "name": "GitHub Actions",
        "build": "3",
        "url": "https://github.example/o/r/actions/runs/17",
        "repository": "o/r",
        "commit": "c0ffee",
        "branch": "main",
    }


def test_what_did_not_run_is_listed_with_its_reason(project: Project) -> None:
    project.write("features/reports.feature", FEATURE)
    project.run("--cluster=fake", "features", "-k", "not passes")
    found = verdict(project)
    told = {
        one["name"]: (one["kind"], one["reason"], one["requirements"]) for one in found["left_out"]
    }
    assert told == {
        "It needs another cluster": (
            "missing-capability",
            "needs real-eks (the cluster runs on Amazon EKS): it is made of nothing",
            ["S2"],
        ),
        "It takes hours": ("deselected", "level 4 is above 3", ["S15", "C6"]),
        "It passes": ("deselected", "not chosen by -k", ["S10", "S15", "C2"]),
    }
    (skipped,) = (one for one in found["scenarios"] if one["verdict"] == "skipped")
    assert skipped["skip"] == {"kind": "missing-capability", "capability": "real-eks"}
    covered = {one["id"]: one["verdict"] for one in found["requirements"]}
    assert covered["S2"] == "skipped"
    assert covered["C6"] == "uncovered"


def test_what_the_provider_tells_is_part_of_the_document(project: Project) -> None:
    project.write("conftest.py", CONFTEST + RECORD)
    project.write("features/reports.feature", FEATURE)
    result = project.run("--cluster=fake", "features", "-k", "passes")
    found = verdict(project)
    assert found["subject"]["region"] == "us-east-1"
    assert found["cost"]["lines"] == [{"what": "3 castles", "hours": 1.5, "usd": 2.25}]
    assert found["leftovers"] == ["moat: drain moat"]
    assert [one["id"] for one in found["deviations"]] == ["D5"]
    assert project.log()[-2:] == ["destroy", "record castle"]
    result.stdout.fnmatch_lines(
        ["cost: about 2.25 USD (prices of 2026-11-01)", "left behind: moat: drain moat"]
    )


def test_a_view_that_fails_is_told_and_changes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("features/reports.feature", FEATURE)
    broken = views.View("broken.txt", "no view", "nowhere:nothing")
    monkeypatch.setattr(views, "VIEWS", (broken, *views.VIEWS))
    result = project.run("--cluster=fake", "features", "-k", "passes")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*broken.txt could not be written: ModuleNotFoundError*"])
    assert (project.run_dir() / "report.html").is_file()
    assert verdict(project)["verdict"] == "pass"


def test_no_credential_of_the_environment_reaches_any_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASTLE_TOKEN", "canary-token-4711")
    monkeypatch.setenv("PGPASSWORD", "canary'\"pass-4711")
    project.write(
        "features/reports.feature",
        "Feature: F\n  Scenario: S\n    Given a cluster\n    When it leaks\n",
    )
    leak = """

@when("it leaks")
def _(pgo_evidence):
    import os

    said = f"{os.environ['CASTLE_TOKEN']} {os.environ['PGPASSWORD']!r}"
    pgo_evidence.attach("env.txt", said)
    raise ApiProblem(f"401 with {said}")
"""
    project.write("conftest.py", CONFTEST + leak)
    project.run("--cluster=fake", "features")
    files = [path for path in project.run_dir().rglob("*") if path.is_file()]
    told = {path.name: path.read_text("utf-8") for path in files}
    assert {"report.html", "verdict.json", "env.txt", "why.txt", "junit.xml"} <= told.keys()
    assert not [name for name, text in told.items() if "4711" in text]
    assert "401 with ********" in json.loads(told["verdict.json"])["scenarios"][0]["reason"]


def test_the_page_of_a_run_holds_to_the_rules(project: Project) -> None:
    import importlib.util

    project.write("features/reports.feature", FEATURE)
    project.run("--cluster=fake", "features")
    place = Path(__file__).parents[1] / "report" / "accessible.py"
    spec = importlib.util.spec_from_file_location("accessible_rules", place)
    assert spec is not None
    assert spec.loader is not None
    rules = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = rules
    spec.loader.exec_module(rules)
    assert rules.problems((project.run_dir() / "report.html").read_text("utf-8")) == []
