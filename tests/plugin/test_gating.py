"""``--pgo-gate``: a policy that is wrong costs nothing, and one that is not met ends with 7."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .castles import TWO, Project

POLICY = """
    version: 1
    name: castles
    what: castles stand
    evidence:
      providers: [fake]
      stand_in: refused
      repeats: 1
      interrupted: fail
      leftovers: fail
    required:
      - scenario: A castle stands
    outcomes:
      required: {missing: fail, deselected: fail, skipped: fail, unable: fail, inconclusive: fail}
      others: {deselected: allow, skipped: allow, unable: allow, inconclusive: allow}
    deviations: {others: fail, accepted: []}
"""
STANDS = """
    Feature: Castles
      @smoke @routing
      Scenario: A castle stands
        Given a cluster
        Then it is fine
      Scenario: Another stands
        Given nothing
"""


@pytest.fixture
def castle(project: Project) -> Project:
    project.write("features/castles.feature", STANDS)
    project.write("policy.yaml", POLICY)
    return project


def decision(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.run_dir() / "gate.json").read_text("utf-8"))
    verdict = json.loads((project.run_dir() / "verdict.json").read_text("utf-8"))
    assert verdict["gate"] == found
    return found


def test_what_was_required_and_passed_ends_well(castle: Project) -> None:
    result = castle.run("--cluster=fake", "--pgo-gate=policy.yaml", "features")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["GATE MET: castles (1 required scenarios, 1 run)"])
    assert decision(castle)["met"]


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_what_was_required_and_deselected_ends_with_7(
    castle: Project, workers: tuple[str, ...]
) -> None:
    arguments = ("--cluster=fake", "--pgo-gate=policy.yaml", "features", "-k", "Another", *workers)
    result = castle.run(*arguments)
    result.assert_outcomes(passed=1, deselected=0 if workers else 1)
    assert result.ret == 7
    result.stdout.fnmatch_lines(["*required: “A castle stands” was deselected*"])
    assert decision(castle)["exit_status"] == 7


def test_a_violation_stays_1_and_the_inconclusive_6(castle: Project) -> None:
    castle.write("features/castles.feature", STANDS.replace("Then it is fine", "Then it is over"))
    assert castle.run("--cluster=fake", "--pgo-gate=policy.yaml", "features").ret == 1
    assert decision(castle)["exit_status"] == 1


def test_infrastructure_stays_6(castle: Project) -> None:
    broken = STANDS.replace("Then it is fine", "When the network goes away")
    castle.write("features/castles.feature", broken)
    assert castle.run("--cluster=fake", "--pgo-gate=policy.yaml", "features").ret == 6
    assert decision(castle)["exit_status"] == 6


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("none.yaml", None, "there is no such policy"),
        ("policy.yaml", POLICY.replace("repeats", "repeets"), "did you mean 'repeats'"),
        ("policy.yaml", POLICY.replace("A castle stands", "A castle stinks"), "no scenario"),
        ("policy.yaml", POLICY + "    regression: {}\n", "is missing"),
    ],
)
def test_a_policy_that_is_wrong_creates_nothing(
    castle: Project, name: str, text: str | None, told: str
) -> None:
    if text is not None:
        castle.write(name, text)
    result = castle.run("--cluster=fake", f"--pgo-gate={name}", "features")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: pgo: --pgo-gate: *{told}*"])
    assert castle.log() == []
    assert not (castle.path / "reports").exists()


def test_a_provider_that_the_policy_does_not_take_is_told_at_once(castle: Project) -> None:
    castle.write("policy.yaml", POLICY.replace("[fake]", "[eks]"))
    result = castle.run("--cluster=fake", "--pgo-gate=policy.yaml", "features")
    assert result.ret == 7
    told = result.stdout.str()
    early = told.index("policy castles takes no runs on fake, only on eks")
    assert early < told.index("collected")
    assert [reason["code"] for reason in decision(castle)["reasons"]] == ["provider"]


def test_without_a_gate_nothing_is_decided(castle: Project) -> None:
    castle.write("features/two.feature", TWO)
    castle.run("--cluster=fake", "features/castles.feature").assert_outcomes(passed=2)
    assert not (castle.run_dir() / "gate.json").exists()
