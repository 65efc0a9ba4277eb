from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from pytest_pgo_eks.errors import ApiProblem, Inconclusive, Violation, WaitTimeout
from pytest_pgo_eks.findings import Finding, demand
from pytest_pgo_eks.report import document, summary
from pytest_pgo_eks.report.evidence import (
    ScenarioEvidence,
    ScenarioIdentity,
    Verdict,
    folder_name,
    read_scenarios,
)
from pytest_pgo_eks.report.verdict import classify, exit_status, run_verdict
from pytest_pgo_eks.secrets import Secret

from .documents import built, hostile, scenario

When = Literal["setup", "call", "teardown"]


@pytest.mark.parametrize(
    ("error", "step", "when", "expected"),
    [
        (Violation("x"), "then", "call", "violation"),
        (Violation("x"), None, "teardown", "violation"),
        (WaitTimeout("x", looked=True), "then", "call", "violation"),
        (WaitTimeout("x", looked=False), "then", "call", "inconclusive"),
        (WaitTimeout("x", looked=True), "given", "call", "inconclusive"),
        (WaitTimeout("x", looked=True), "then", "setup", "inconclusive"),
        (ApiProblem("gone"), "then", "call", "inconclusive"),
        (AssertionError("x"), "then", "call", "violation"),
        (AssertionError("x"), "when", "call", "inconclusive"),
        (AssertionError("x"), "then", "teardown", "inconclusive"),
        (ZeroDivisionError(), "then", "call", "inconclusive"),
        (KeyboardInterrupt(), "then", "call", "inconclusive"),
    ],
)
def test_an_exception_is_a_violation_only_where_a_promise_was_seen_broken(
    error: BaseException, step: str | None, when: When, expected: Verdict
) -> None:
    assert classify(error, step=step, when=when) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected", "status"),
    [
        (["pass", "pass"], "pass", 0),
        (["pass", "skipped"], "pass", 0),
        (["pass", "inconclusive"], "inconclusive", 6),
        (["inconclusive", "violation", "pass"], "violation", 1),
        (["skipped"], "inconclusive", 6),
        ([], "inconclusive", 6),
    ],
)
def test_the_run_is_as_good_as_its_worst_scenario_and_never_good_for_nothing(
    verdicts: list[str], expected: Verdict, status: int
) -> None:
    assert run_verdict([{"verdict": v} for v in verdicts]) == expected
    assert exit_status(expected) == status


def evidence(tmp_path: Path, name: str = "It holds") -> ScenarioEvidence:
    identity = ScenarioIdentity(f"features/a/b.feature::{name}", "B", "A rule", name)
    return ScenarioEvidence(identity, tmp_path)


def run_of(*, stand_in: bool = True, interrupted: bool = False) -> document.Run:
    subject = document.Subject("local", stand_in=stand_in, postgresql="17.2")
    return document.Run(
        subject, datetime.now(UTC), "pytest --cluster=local", interrupted=interrupted
    )


def test_a_scenario_that_never_concluded_is_inconclusive(tmp_path: Path) -> None:
    evidence(tmp_path).write()
    found = document.write(run_of(), tmp_path)
    assert found["scenarios"][0]["verdict"] == "inconclusive"
    assert "did not come to its end" in found["scenarios"][0]["reason"]


def test_a_later_violation_replaces_a_pass_and_nothing_replaces_a_violation(tmp_path: Path) -> None:
    kept = evidence(tmp_path)
    kept.conclude("pass")
    kept.conclude("violation", "two primaries")
    kept.conclude("inconclusive", "and then the disk was full")
    assert kept.verdict == "violation"
    assert kept.reason == "two primaries"


def test_an_interrupted_run_does_not_pass(tmp_path: Path) -> None:
    evidence(tmp_path).conclude("pass")
    assert document.write(run_of(interrupted=True), tmp_path)["verdict"] == "inconclusive"


def test_no_secret_reaches_any_file(tmp_path: Path) -> None:
    canary = Secret("canary-Xy12-value")
    kept = evidence(tmp_path)
    kept.add(Finding("r", "violated", f"password was {canary}"))
    kept.attach("log.txt", f"connected with {canary} and postgresql://u:hunter2222@h/db")
    kept.conclude("violation", f"because {canary}")
    document.write(run_of(), tmp_path)
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) == 3
    assert not any(canary in text or "hunter2222" in text for text in texts)
    assert "canary" not in repr(canary)


def test_scenarios_are_read_back_in_the_order_they_began(tmp_path: Path) -> None:
    for name in ("second comes first", "alpha"):
        evidence(tmp_path, name).conclude("pass")
    assert [s["name"] for s in read_scenarios(tmp_path)] == ["second comes first", "alpha"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00"])
def test_evidence_that_cannot_be_read_is_inconclusive_and_not_forgotten(
    text: str, tmp_path: Path
) -> None:
    evidence(tmp_path, "Good").conclude("pass")
    broken = tmp_path / "scenarios" / "a-broken-one"
    broken.mkdir()
    (broken / "scenario.json").write_text(text)
    found = document.write(run_of(), tmp_path)
    assert found["verdict"] == "inconclusive"
    (told,) = (one for one in found["scenarios"] if one["name"] == "a-broken-one")
    assert told["reason"].startswith("scenario.json cannot be read: ")
    assert found["counts"]["pass"] == 1


def test_folder_names_are_readable_and_differ_where_only_punctuation_does() -> None:
    one, other = folder_name("features/f/x.feature::A b"), folder_name("features/f/x.feature::A-b")
    assert folder_name("::test_mine").startswith("test-mine-")
    assert one.startswith("f-x-a-b-")
    assert one != other


def text_of(found: dict[str, Any], tmp_path: Path) -> str:
    return "\n".join(summary.lines(found, tmp_path))


def test_the_summary_says_what_broke_where_and_how_to_run_it_again(tmp_path: Path) -> None:
    kept = evidence(tmp_path)
    kept.step_begins("then", "no acknowledged write is lost")
    kept.step_ends("failed")
    kept.attach("diagnostics/README.txt", "look here")
    kept.conclude("violation", "3 acknowledged writes are gone")
    text = text_of(document.write(run_of(), tmp_path), tmp_path)
    assert text.startswith("VIOLATION")
    assert "Then no acknowledged write is lost" in text
    assert "3 acknowledged writes are gone" in text
    assert "README.txt" in text
    assert "again: pytest --cluster=local 'features/a/b.feature::It holds'" in text
    assert "not evidence about PGO" in text


def test_the_summary_names_what_was_skipped_and_why(tmp_path: Path) -> None:
    evidence(tmp_path, "One").conclude("pass")
    evidence(tmp_path, "Two").conclude("skipped", "the cluster has no volume-expansion")
    text = text_of(document.write(run_of(stand_in=False), tmp_path), tmp_path)
    assert "skipped: the cluster has no volume-expansion: Two" in text
    assert "not evidence" not in text


def test_demand_tells_violations_from_what_could_not_be_judged() -> None:
    good, bad = Finding("a", "holds", "fine"), Finding("b", "violated", "broken", {"lost": 3})
    unsure = Finding("c", "unknown", "a hole in the history")
    demand([good, Finding("d", "expected", "a long fork")])
    with pytest.raises(Violation, match="broken"):
        demand([unsure, good, bad])
    with pytest.raises(Inconclusive, match="hole"):
        demand([good, unsure])
    with pytest.raises(Inconclusive, match="nothing was judged"):
        demand([])


def test_the_terminal_shows_no_control_character_of_others(tmp_path: Path) -> None:
    told = list(summary.lines(hostile(), tmp_path))
    assert not [one for one in told if re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u202e]", one)]
    assert any("emoji 🐘" in one for one in told)
    assert len(told) < 200


def test_ten_thousand_failures_are_told_in_a_screenful(tmp_path: Path) -> None:
    made = [scenario(f"Number {n}", "violation", reason=f"because of {n}") for n in range(10_000)]
    told = list(summary.lines(built(made), tmp_path))
    assert len(told) < 80
    assert "… and 9,990 more reasons in the report" in told
    assert told[0] == "VIOLATION: A promise was broken in 10,000 of 10,000 scenarios."
