"""The gate: every reason to fail is shown failing, beside one run that passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pytest_pgo_eks.report.__main__ import main
from pytest_pgo_eks.report.gate import deciding, decision
from pytest_pgo_eks.report.gate.catalogue import Listed
from pytest_pgo_eks.report.gate.deciding import decide
from pytest_pgo_eks.report.gate.policy import Policy, load

from .runs import Json, edit, run_document, run_folder, scenario, write_run

TODAY = date(2026, 3, 2)
SCHEMA = json.loads(
    Path(decision.__file__).with_name("gate.schema.json").read_text(encoding="utf-8")
)
REQUIRED = "The primary pod is deleted"
OTHER = "A checkpointer is frozen"
RTO = {"the primary Service": (1.9, 2.0), "PgBouncer": (15.0, 15.8)}

POLICY: Json = yaml.safe_load("""
version: 1
name: mine
what: it may go out
evidence:
  providers: [eks]
  stand_in: refused
  repeats: 1
  interrupted: fail
  leftovers: fail
required:
  - tag: failover
outcomes:
  required: {missing: fail, deselected: fail, skipped: fail, unable: fail, inconclusive: fail}
  others: {deselected: fail, skipped: fail, unable: fail, inconclusive: fail}
budgets:
  - {measure: rto_s, at_most: 20}
  - {measure: rto_s, at_most: 5, path: the primary Service, fault: pod-*}
  - {measure: lost_writes, at_most: 0, replication: [sync]}
  - {measure: staleness_s, at_most: 10}
  - {measure: duration_s, at_most: 300, scenario: "The primary*"}
deviations:
  others: fail
  accepted:
    - {id: D13, reason: agreed to with the users}
""")


@pytest.fixture(autouse=True)
def _two_scenarios(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the suite were two scenarios, of which one is required."""
    listed = [
        Listed("f::1", "Failover", REQUIRED, frozenset({"failover", "level-1"}), 1, ("C2",)),
        Listed("f::2", "Replication", OTHER, frozenset({"replication"}), 2, ()),
    ]
    monkeypatch.setattr(deciding, "shipped_scenarios", lambda: listed)


def good(**changes: Any) -> Json:
    given: Json = {"rto": RTO, "lost": 0, "stale_s": 1.5, "deviations": ["D13"]}
    return scenario(REQUIRED, tags=("failover", "level-1"), **{**given, **changes})


def other(verdict: Any = "pass", **changes: Any) -> Json:
    plain: Json = {"tags": ("replication",), "feature": "Replication", "faults": ("frozen",)}
    return scenario(OTHER, verdict, **{**plain, **changes})


def run(*scenarios: Json, **of_run: Any) -> Json:
    return run_document(list(scenarios) or [good(), other()], **of_run)


def policy(tmp_path: Path, change: Callable[[Json], Any] | None = None) -> Policy:
    value: Json = json.loads(json.dumps(POLICY))
    if change:
        change(value)
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(value), "utf-8")
    return load(file)


def left_out(one: Json, name: str) -> Json:
    """Let a run tell of a scenario that it deselected."""
    entry = {k: one[k] for k in ("id", "feature", "rule", "name", "tags", "level", "requirements")}
    return {**entry, "kind": "deselected", "reason": name, "capability": None}


def without(*scenarios: Json, deselected: Json) -> Json:
    found = run(*scenarios)
    found["left_out"].append(left_out(deselected, "above level 0"))
    found["deselected"].append(deselected["id"])
    return found


def set_to(*path: Any) -> Callable[[Json], Any]:
    def change(value: Json) -> None:
        inner: Any = value
        for step in path[:-2]:
            inner = inner[step]
        inner[path[-2]] = path[-1]

    return change


def quarantine(*outcomes: str, expires: str = "2026-04-01") -> Callable[[Json], Any]:
    entry = {
        "scenario": "The primary*",
        "outcomes": list(outcomes),
        "reason": "the proxy is looked into",
        "expires": expires,
    }
    return set_to("quarantine", [entry])


def excuse(*outcomes: str) -> Json:
    return {
        "scenario": "The primary pod*",
        "outcomes": list(outcomes),
        "reason": "it does not apply here",
    }


def never() -> Json:
    """A recovery that never came, in a scenario that was let through."""
    one = good()
    row = one["findings"][0]
    row["outcome"] = "violated"
    row["numbers"] = {"path": "the primary Service", "budget_s": 30.0}
    return one


def twice_told() -> Json:
    bad = good(lost=3)
    bad.update(verdict="violation", reason="3 writes are gone")
    return run(bad, good(), other())


Case = tuple[Callable[[], Any], Callable[[Json], Any] | None, int, str, str]
CASES: dict[str, Case] = {
    # what ran, how the policy differs, exit status, code of the reason, what it says
    "a violation": (
        lambda: run(good(lost=3) | {"verdict": "violation", "reason": "3 writes are gone\nmore"}, other()),
        None, 1, "violation", "“The primary pod is deleted” is a violation: 3 writes are gone",
    ),
    "a violation of what nobody required": (
        lambda: run(good(), other("violation", reason="two primaries")),
        None, 1, "violation", "“A checkpointer is frozen” is a violation: two primaries",
    ),
    "a violation beside a pass of the same scenario": (twice_told, None, 1, "violation", "3 writes"),
    "a violation outside of its quarantine's outcomes": (
        lambda: run(good() | {"verdict": "violation", "reason": "x"}, other()),
        quarantine("inconclusive"), 1, "violation", "is a violation",
    ),
    "an inconclusive one": (
        lambda: run(good() | {"verdict": "inconclusive", "reason": "no route"}, other()),
        None, 6, "inconclusive", "“The primary pod is deleted” is inconclusive: no route",
    ),
    "an inconclusive one that nothing outweighs": (
        lambda: run(good() | {"verdict": "inconclusive", "reason": "no route"}, other()),
        set_to("outcomes", "required", "inconclusive", "outweighed"), 6, "inconclusive", "no route",
    ),
    "an inconclusive one that nobody required": (
        lambda: run(good(), other("inconclusive", reason="disk full")),
        None, 6, "inconclusive", "disk full",
    ),
    "a missing one": (
        lambda: run(other()), set_to("budgets", []), 7, "missing",
        "required: “The primary pod is deleted” is in none of the runs",
    ),
    "a deselected one": (
        lambda: without(other(), deselected=good()), set_to("budgets", []), 7, "deselected",
        "was deselected (above level 0)",
    ),
    "a skipped one": (
        lambda: run(good() | {"verdict": "skipped", "reason": "not today",
                              "skip": {"kind": "skipped", "capability": None}}, other()),
        set_to("budgets", []), 7, "skipped", "was skipped (not today)",
    ),
    "one that is excused for something else": (
        lambda: run(good() | {"verdict": "skipped", "reason": "not today",
                              "skip": {"kind": "skipped", "capability": None}}, other()),
        lambda v: v.update(excused=[excuse("missing", "unable", "deselected")], budgets=[]),
        7, "skipped", "was skipped (not today)",
    ),
    "one that the cluster cannot run": (
        lambda: run(good() | {"verdict": "skipped", "reason": "needs zones (…): none",
                              "skip": {"kind": "missing-capability", "capability": "zones"}}, other()),
        set_to("budgets", []), 7, "unable", "lacks a capability (needs zones",
    ),
    "another deselected one": (
        lambda: without(good(), deselected=other()), None, 7, "deselected",
        "“A checkpointer is frozen” was deselected",
    ),
    "another skipped one": (
        lambda: run(good(), other("skipped", reason="not today")), None, 7, "skipped", "not today",
    ),
    "another that the cluster cannot run": (
        lambda: run(good(), other("skipped", reason="needs delay (…)", skip="delay")),
        None, 7, "unable", "lacks a capability",
    ),
    "too few repeats": (
        run, set_to("evidence", "repeats", 3), 7, "repeats",
        "ran in 1 of the 3 runs asked for",
    ),
    "too few repeats of one": (
        run, set_to("required", [{"level": 4}, {"scenario": REQUIRED, "repeats": 2}]),
        7, "repeats", "ran in 1 of the 2 runs",
    ),
    "the stand-in": (
        lambda: run(provider="local"), set_to("evidence", "providers", ["eks", "local"]),
        7, "stand-in", "is of the stand-in cluster, which this policy refuses",
    ),
    "another provider": (
        lambda: run(provider="kind"), None, 7, "provider",
        "took place on 'kind'; this policy takes eks",
    ),
    "another version": (
        run, set_to("evidence", "subject", {"postgresql": "18*"}), 7, "subject",
        "judged postgresql '17.2'; asked for is '18*'",
    ),
    "a version that was never learnt": (
        lambda: run(patroni=None), set_to("evidence", "subject", {"patroni": "4*"}),
        7, "subject", "judged patroni None",
    ),
    "a run of last month": (
        lambda: run(day=-31), set_to("evidence", "max_age_days", 30), 7, "age",
        "began on 2026-01-30; this policy takes runs of the last 30 days",
    ),
    "a run of next month": (
        lambda: run(day=31), set_to("evidence", "max_age_days", 30), 7, "age", "began on 2026-04-02",
    ),
    "a run of no time": (
        lambda: {**run(), "began": "last night"}, set_to("evidence", "max_age_days", 30),
        7, "age", "began on last night",
    ),
    "an interrupted run": (
        lambda: run(interrupted=True), None, 7, "interrupted", "was stopped before its end",
    ),
    "leftovers": (
        lambda: {**run(), "leftovers": ["vol-1: aws ec2 delete-volume …"]}, None, 7, "leftovers",
        "left 1 things behind: vol-1",
    ),
    "a recovery over its budget": (
        lambda: run(good(rto={"PgBouncer": (19.0, 20.5)}), other()),
        set_to("budgets", [{"measure": "rto_s", "at_most": 20}]), 7, "budget",
        "rto_s through PgBouncer after pod-deleted is up to 20.5 s, allowed are 20 s",
    ),
    "a recovery over the budget of its path": (
        lambda: run(good(rto={**RTO, "the primary Service": (4.0, 6.0)}), other()), None, 7, "budget",
        "through the primary Service after pod-deleted is up to 6 s, allowed are 5 s",
    ),
    "a recovery that never came": (
        lambda: run(never(), other()), set_to("budgets", [{"measure": "rto_s", "at_most": 900}]),
        7, "budget", "is without end, allowed are 900 s",
    ),
    "loss under synchronous replication": (
        lambda: run(good(lost=2), other()), None, 7, "budget", "lost_writes after pod-deleted is up to 2",
    ),
    "stale reads": (
        lambda: run(good(stale_s=11.0), other()), None, 7, "budget", "staleness_s after pod-deleted is up to 11 s",
    ),
    "a slow scenario": (
        lambda: run(good(took_s=301.0), other()), None, 7, "budget", "duration_s after pod-deleted is up to 301 s",
    ),
    "a budget that nothing was measured for": (
        lambda: run(good(replication="async"), other(replication=None)), None, 7, "budget-unmeasured",
        "nothing was measured that the budget for lost_writes (at_most 0, replication ['sync']) means",
    ),
    "a deviation that is not accepted": (
        lambda: run(good(deviations=["D13", "D4"]), other()), None, 7, "deviation",
        "deviation D4 was met by a scenario and is not accepted: did it otherwise",
    ),
    "a deviation that was accepted until yesterday": (
        run,
        set_to("deviations", "accepted", [{"id": "D13", "reason": "agreed to, for now", "expires": "2026-03-01"}]),
        7, "deviation-expired", "deviation D13 was accepted until 2026-03-01 (agreed to, for now)",
    ),
    "a deviation of the provider's, where a scenario met it": (
        run,
        set_to("deviations", "accepted", [{"id": "D13", "reason": "it is left out", "where": "provider"}]),
        7, "deviation", "deviation D13 was met by a scenario and is not accepted",
    ),
    "an expired quarantine, even of a scenario that passes": (
        run, quarantine("violation", expires="2026-03-01"), 7, "quarantine-expired",
        "the quarantine of “The primary*” expired on 2026-03-01 (the proxy is looked into)",
    ),
    "an expired quarantine of a violation": (
        lambda: run(good() | {"verdict": "violation", "reason": "x"}, other()),
        quarantine("violation", expires="2026-03-01"), 1, "violation", "is a violation: x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_reason_to_fail_fails(name: str, tmp_path: Path) -> None:
    make, change, status, code, sentence = CASES[name]
    found = decide(policy(tmp_path, change), [make()], today=TODAY)
    jsonschema.validate(found, SCHEMA)
    assert found["exit_status"] == status
    assert not found["met"]
    mine = [reason for reason in found["reasons"] if reason["code"] == code]
    assert mine, found["reasons"]
    assert sentence in mine[0]["sentence"]
    assert all("\n" not in reason["sentence"] for reason in found["reasons"])
    assert {reason["code"] for reason in found["reasons"]} <= set(
        SCHEMA["properties"]["reasons"]["items"]["properties"]["code"]["description"]
        .partition(": ")[2]
        .split(", ")
    )


def test_a_run_that_meets_everything_passes(tmp_path: Path) -> None:
    found = decide(policy(tmp_path), [run()], today=TODAY)
    jsonschema.validate(found, SCHEMA)
    assert found["reasons"] == []
    assert (found["met"], found["exit_status"], found["required"]) == (True, 0, 1)
    assert found["disclaimer"] is None
    assert decision.lines(found)[0] == "GATE MET: mine (1 required scenarios, 1 run)"


PASSING: dict[str, tuple[Callable[[], Any], Callable[[Json], Any], str]] = {
    "a quarantined violation": (
        lambda: run(good() | {"verdict": "violation", "reason": "x"}, other()),
        quarantine("violation"),
        "“The primary pod is deleted” is quarantined: violation",
    ),
    "a run of thirty days ago": (
        lambda: run(day=-30),
        set_to("evidence", "max_age_days", 30),
        "",
    ),
    "a quarantine on its last day": (
        lambda: run(good() | {"verdict": "violation", "reason": "x"}, other()),
        quarantine("violation", expires="2026-03-02"),
        "is quarantined",
    ),
    "a quarantined inconclusive one": (
        lambda: run(good() | {"verdict": "inconclusive"}, other()),
        lambda v: (quarantine("inconclusive")(v), v.update(budgets=[])),
        "is quarantined: inconclusive",
    ),
    "a skip that is allowed": (
        lambda: run(good(), other("skipped", reason="not today")),
        set_to("outcomes", "others", "skipped", "allow"),
        "",
    ),
    "a required one that is excused": (
        lambda: run(
            good()
            | {
                "verdict": "skipped",
                "reason": "not today",
                "skip": {"kind": "skipped", "capability": None},
            },
            other(),
        ),
        lambda v: v.update(excused=[excuse("skipped")], budgets=[]),
        "“The primary pod is deleted” was skipped: it does not apply here",
    ),
    "a missing one that is allowed": (
        lambda: run(other()),
        lambda v: (v["outcomes"]["required"].update(missing="allow"), v.update(budgets=[])),
        "is in none of the runs",
    ),
    "a deviation of any kind": (
        lambda: run(good(deviations=["D1"]), other()),
        set_to("deviations", "others", "allow"),
        "deviation D1 was met by a scenario and is not accepted",
    ),
    "a deviation of the provider's": (
        lambda: {
            **run(good(deviations=[]), other()),
            "deviations": [{"id": "D13", "text": "", "did": "x", "why": "", "scenarios": []}],
        },
        lambda v: v["deviations"]["accepted"][0].update(where="provider"),
        "deviation D13: agreed to with the users",
    ),
    "the stand-in, in words": (
        lambda: run(provider="local"),
        lambda v: v["evidence"].update(
            providers=["local"], stand_in="counts, although it is no evidence about PGO or EKS"
        ),
        "is of the stand-in cluster",
    ),
    "a budget whose measure may be missing": (
        lambda: run(good(stale_s=None), other()),
        lambda v: v["budgets"][3].update(unmeasured="allow"),
        "nothing was measured that the budget for staleness_s",
    ),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_a_policy_lets_through_it_names(name: str, tmp_path: Path) -> None:
    make, change, sentence = PASSING[name]
    found = decide(policy(tmp_path, change), [make()], today=TODAY)
    assert found["reasons"] == []
    assert found["exit_status"] == 0
    assert sentence in " ".join(found["allowed"])


def test_on_the_stand_in_it_always_says_what_it_is_no_evidence_about(tmp_path: Path) -> None:
    allowed = PASSING["the stand-in, in words"][1]
    for change in (allowed, None):
        found = decide(policy(tmp_path, change), [run(provider="local")], today=TODAY)
        assert "not evidence about PGO" in found["disclaimer"]
        assert decision.lines(found)[-1] == found["disclaimer"]


def test_repeats_are_counted_over_runs_of_one_subject(tmp_path: Path) -> None:
    three = policy(tmp_path, set_to("evidence", "repeats", 3))
    runs = [run(day=day) for day in range(3)]
    assert decide(three, runs, today=TODAY)["met"]
    runs[2]["subject"]["postgresql"] = "18.1"
    found = decide(three, runs, today=TODAY)
    assert {reason["code"] for reason in found["reasons"]} == {"repeats"}
    sentences = sorted(reason["sentence"] for reason in found["reasons"])
    assert "PostgreSQL 17.2" in sentences[0]
    assert "ran in 2 of the 3" in sentences[0]
    assert "PostgreSQL 18.1" in sentences[1]
    assert "ran in 1 of the 3" in sentences[1]


def test_enough_verdicts_outweigh_an_inconclusive_one_only_if_the_policy_says_so(
    tmp_path: Path,
) -> None:
    runs = [run(day=day) for day in range(2)]
    runs.append(run(good() | {"verdict": "inconclusive", "reason": "no route"}, other(), day=2))

    def outweighed(value: Json) -> None:
        value["evidence"]["repeats"] = 2
        value["outcomes"]["required"]["inconclusive"] = "outweighed"

    found = decide(policy(tmp_path, outweighed), runs, today=TODAY)
    assert found["met"], found["reasons"]
    assert "is inconclusive in 1 of the runs" in found["allowed"][0]
    assert decide(policy(tmp_path), runs, today=TODAY)["exit_status"] == 6


def test_a_violation_in_one_of_three_repeats_is_one(tmp_path: Path) -> None:
    runs = [run(day=day) for day in range(2)]
    runs.append(run(good() | {"verdict": "violation", "reason": "x"}, other(), day=2))
    assert decide(policy(tmp_path), runs, today=TODAY)["exit_status"] == 1


def test_a_violation_outranks_the_inconclusive_and_that_the_rest(tmp_path: Path) -> None:
    both = run(
        good() | {"verdict": "violation", "reason": "x"}, other("inconclusive"), provider="kind"
    )
    assert decide(policy(tmp_path), [both], today=TODAY)["exit_status"] == 1
    only = run(good(), other("inconclusive"), provider="kind")
    assert decide(policy(tmp_path), [only], today=TODAY)["exit_status"] == 6


def test_what_an_older_run_left_out_is_known_by_its_id(tmp_path: Path) -> None:
    """Runs of version 1 before there was a list of what was left out tell ids alone."""
    found = run(other(), deselected=["f::1"])
    assert found["left_out"][0]["feature"] == ""
    (reason,) = decide(policy(tmp_path, set_to("budgets", [])), [found], today=TODAY)["reasons"]
    assert reason["code"] == "deselected"


# -- regression


def regression(**changes: Any) -> Callable[[Json], Any]:
    rule = {
        "measures": ["rto_s"],
        "chance": 0.05,
        "corrected": False,
        "worse_by_percent": 20,
        "worse_by": 1,
        "least_runs": 5,
        "too_few": "fail",
    }
    return set_to("regression", {**rule, **changes})


def history(count: int, middle: float = 10.0) -> list[Json]:
    """Return earlier runs around ``middle``, a little different each."""
    rows = [{"PgBouncer": (middle + i % 5 / 10, middle + 0.2 + i % 5 / 10)} for i in range(count)]
    return [run(good(rto=row), other(), day=-100 + i) for i, row in enumerate(rows)]


def now(*middles: float) -> list[Json]:
    return [
        run(good(rto={"PgBouncer": (one, one + 0.2)}), other(), day=day)
        for day, one in enumerate(middles)
    ]


def regressed(
    tmp_path: Path, runs: list[Json], earlier: list[Json] | None, **changes: Any
) -> dict[str, str]:
    def change(value: Json) -> None:
        regression(**changes)(value)
        value["budgets"] = []

    found = decide(policy(tmp_path, change), runs, today=TODAY, earlier=earlier)
    jsonschema.validate(found, SCHEMA)
    return {reason["code"]: reason["sentence"] for reason in found["reasons"]}


def test_three_runs_that_are_slower_than_twenty_are_a_regression(tmp_path: Path) -> None:
    found = regressed(tmp_path, now(14, 15, 16), history(20))
    assert found.keys() == {"regression"}
    assert "rto_s, PgBouncer is worse than before: 15 against 10.4" in found["regression"]
    assert "medians of 3 and 20 runs; by chance in 0.00056 of cases" in found["regression"]
    assert regressed(tmp_path, now(14, 15, 16), history(20), corrected=True).keys() == {
        "regression"
    }


def test_as_fast_as_before_and_faster_are_fine(tmp_path: Path) -> None:
    assert not regressed(tmp_path, now(10.1, 10.2, 10.0), history(20))
    assert not regressed(tmp_path, now(2, 2, 2), history(20))


def test_what_is_certain_and_does_not_matter_is_fine(tmp_path: Path) -> None:
    assert not regressed(tmp_path, now(10.9, 10.9, 10.9), history(20))
    assert regressed(tmp_path, now(10.9, 10.9, 10.9), history(20), worse_by_percent=1, worse_by=0.1)


def test_intervals_that_overlap_are_no_difference(tmp_path: Path) -> None:
    wide = [run(good(rto={"PgBouncer": (9.0, 30.0)}), other(), day=day) for day in range(3)]
    assert not regressed(tmp_path, wide, history(20), worse_by=0, worse_by_percent=0)


def test_a_test_that_could_find_nothing_is_said_to_be_none(tmp_path: Path) -> None:
    """Against four runs one run gives 0.2 at best: however slow it is, nothing would be found."""
    found = regressed(tmp_path, now(99), history(4), least_runs=2)
    assert "1 of 1 series have too few earlier runs" in found["baseline-too-small"]
    assert not regressed(tmp_path, now(99), history(4), least_runs=2, too_few="allow")
    assert regressed(tmp_path, now(99), history(19), least_runs=2).keys() == {"regression"}
    assert "baseline-too-small" in regressed(tmp_path, now(99), history(19), least_runs=20)
    assert "no-baseline" in regressed(tmp_path, now(99), None)
    assert "baseline-too-small" in regressed(tmp_path, now(99), [])


def test_runs_of_another_place_and_the_runs_themselves_are_no_baseline(tmp_path: Path) -> None:
    elsewhere = [{**one, "subject": {**one["subject"], "provider": "kind"}} for one in history(20)]
    assert "baseline-too-small" in regressed(tmp_path, now(14, 15, 16), elsewhere)
    mine = now(14, 15, 16)
    assert "baseline-too-small" in regressed(tmp_path, mine, mine * 8)


# -- the command


def test_the_command_writes_says_and_ends_as_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path).text.path
    folder = write_run(tmp_path, run())
    assert main(["gate", str(folder), "--policy", str(file), "--today", "2026-03-02"]) == 0
    assert "GATE MET: mine" in capsys.readouterr().out
    written = json.loads((folder / "gate.json").read_text("utf-8"))
    jsonschema.validate(written, SCHEMA)
    assert written["met"]
    bad = write_run(
        tmp_path, run(good() | {"verdict": "inconclusive", "reason": "x"}, other(), day=1)
    )
    assert main(["gate", str(bad), "--policy", str(file), "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["exit_status"] == 6
    assert main(["gate", str(folder), str(folder), "--policy", str(file)]) == 4
    assert "is given twice" in capsys.readouterr().err
    assert main(["gate", str(folder), "--policy", "none.yaml"]) == 4
    assert main(["gate", str(tmp_path / "nowhere"), "--policy", str(file)]) == 4
    assert main(["gate", str(folder), "--policy", str(file), "--today", "soon"]) == 4


def test_a_baseline_is_read_from_a_folder(tmp_path: Path, capsys: Any) -> None:
    def change(value: Json) -> None:
        regression(least_runs=5, baseline="earlier")(value)
        value["budgets"] = []

    file = policy(tmp_path, change).text.path
    for one in history(20):
        write_run(tmp_path / "earlier", one)
    (tmp_path / "earlier" / "broken").mkdir()
    (tmp_path / "earlier" / "broken" / "verdict.json").write_text("{", "utf-8")
    folder = write_run(tmp_path, now(99)[0])
    assert main(["gate", str(folder), "--policy", str(file)]) == 7
    told = capsys.readouterr().out
    assert "is worse than before: 99 against 10.4" in told
    assert "note: not read: " in told
    assert main(["gate", str(folder), "--policy", str(file), "--baseline", "nowhere"]) == 4


def test_a_bundle_whose_verdict_does_not_follow_meets_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    folder = run_folder(tmp_path)
    bundle = tmp_path / f"{folder.name}.tar.gz"
    assert main(["bundle", str(folder)]) == 0
    before = main(["gate", str(bundle), "--policy", "smoke"])
    assert before == 7, "it has not run what is required"
    assert "does not follow" not in capsys.readouterr().out
    next(folder.glob("scenarios/*/history.jsonl.gz")).unlink()
    assert main(["bundle", str(folder)]) == 0
    assert main(["gate", str(bundle), "--policy", "smoke"]) == 7
    assert "its verdict does not follow from its evidence" in capsys.readouterr().out
    edit(folder / "verdict.json", lambda d: d.update(scenarios=[]))
    assert main(["gate", str(folder), "--policy", "smoke", "--verify"]) == 7
    assert "does not follow" in capsys.readouterr().out


def test_secrets_and_markup_in_names_reach_nobody(tmp_path: Path, capsys: Any) -> None:
    evil = "<script>alert(1)</script>\x1b[31m 💥 password=canary4711"
    bad = good() | {"verdict": "violation", "reason": f"{evil}\nsecond line"}
    folder = write_run(tmp_path, run(bad, other()))
    file = policy(tmp_path).text.path
    assert main(["gate", str(folder), "--policy", str(file)]) == 1
    said = capsys.readouterr().out + (folder / "gate.json").read_text("utf-8")
    assert "canary4711" not in said
    assert "second line" not in said
    assert "\x1b" not in said


def test_thousands_of_scenarios_are_decided_about(tmp_path: Path) -> None:
    many = [
        scenario(f"Scenario {i}", "skipped", reason="needs x", feature="Many") for i in range(3_000)
    ]
    found = decide(
        policy(tmp_path, set_to("required", [{"level": 4}])), [run(good(), *many)], today=TODAY
    )
    assert len(found["reasons"]) >= 3_000
    assert len(decision.lines(found)) < 120
