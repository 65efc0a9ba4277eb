"""A policy says what it means, or is refused with one line that says where and what instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pytest_pgo_eks.clusters.eks.deviations import DEVIATIONS
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.__main__ import main
from pytest_pgo_eks.report.gate import policy as policies
from pytest_pgo_eks.report.gate.catalogue import scenarios_below, shipped_scenarios
from pytest_pgo_eks.report.gate.deciding import decide
from pytest_pgo_eks.report.gate.policy import SHIPPED, load, matches, refuse_unknown, shipped_text

from .runs import run_document, scenario

Json = dict[str, Any]


def smoke() -> Json:
    found: Json = yaml.safe_load(shipped_text("smoke.yaml"))
    return found


def written(place: Path, value: object) -> Path:
    file = place / "policy.yaml"
    file.write_text(value if isinstance(value, str) else yaml.safe_dump(value), "utf-8")
    return file


@pytest.mark.parametrize("name", SHIPPED)
def test_what_comes_with_the_package_is_right(name: str, tmp_path: Path) -> None:
    policy = load(name)
    jsonschema.validate(policy.value, policies.schema())
    refuse_unknown(policy, shipped_scenarios())
    assert policy.name == name
    first = shipped_text(f"{name}.yaml").splitlines()[0]
    assert first == "# yaml-language-server: $schema=policy.schema.json"
    assert (policy.value["evidence"]["stand_in"] == "refused") == (name != "smoke")
    copy = tmp_path / "mine.yaml"
    copy.write_text(shipped_text(f"{name}.yaml"), "utf-8")
    assert load(copy).value == policy.value


def test_the_release_policy_forgives_nothing_and_takes_no_other_place() -> None:
    value = load("release").value
    assert value["evidence"]["providers"] == ["eks"]
    assert value["evidence"]["repeats"] >= 3
    required = value["outcomes"]["required"]
    assert {required[k] for k in ("missing", "deselected", "skipped", "unable")} == {"fail"}
    assert not value["quarantine"]
    by_id = {one["id"]: one for one in value["deviations"]["accepted"]}
    assert set(by_id) == {one.id for one in DEVIATIONS}
    assert by_id["D13"]["where"] == "provider", "nobody may get in as superuser without a password"


def test_the_schema_is_one_and_describes_everything_to_an_editor() -> None:
    schema = policies.schema()
    jsonschema.Draft202012Validator.check_schema(schema)

    def bare(of: Json, place: str) -> list[str]:
        inner = {**of.get("properties", {}), **({"items": of["items"]} if "items" in of else {})}
        found = [] if "description" in of else [place]
        if of.get("type") == "object" and of.get("additionalProperties") is not False:
            found.append(f"{place} takes anything")
        return found + [
            line for name, one in inner.items() for line in bare(one, f"{place}.{name}")
        ]

    assert bare(dict(schema), "") == []


def misspell(*path: str | int, to: str) -> Callable[[Json], None]:
    def change(value: Json) -> None:
        inner: Any = value
        for step in path[:-1]:
            inner = inner[step]
        inner[to] = inner.pop(path[-1])

    return change


def put(*path: Any) -> Callable[[Json], None]:
    """Set the place that all but the last argument name to the last one."""

    def change(value: Json) -> None:
        inner: Any = value
        for step in path[:-2]:
            inner = inner[step]
        inner[path[-2]] = path[-1]

    return change


QUARANTINE = {
    "scenario": "A wrong password is refused",
    "outcomes": ["violation"],
    "reason": "a known trouble of the proxy",
    "expires": "2026-12-31",
}
BUDGET = {"measure": "rto_s", "at_most": 5}
REGRESSION: Json = yaml.safe_load(shipped_text("nightly.yaml"))["regression"]

WRONG: dict[str, tuple[Callable[[Json], Any], str]] = {
    "a misspelt section": (
        misspell("evidence", to="evidense"),
        "'evidense' is not known (did you mean 'evidence'?)",
    ),
    "a misspelt key": (
        misspell("evidence", "providers", to="provider"),
        "'provider' is not known in evidence (did you mean 'providers'?)",
    ),
    "a misspelt selector": (
        put("required", [{"tags": "smoke"}]),
        "'tags' is not known in required[0] (did you mean 'tag'?)",
    ),
    "a misspelt decision": (put("outcomes", "required", "missing", "ignore"), "'ignore'"),
    "a decision left out": (
        lambda v: v["outcomes"]["required"].pop("missing"),
        "outcomes.required.missing is missing",
    ),
    "nothing required": (put("required", []), "required is empty"),
    "two selectors in one": (
        put("required", [{"tag": "smoke", "level": 1}]),
        "exactly one of scenario, tag, level, requirement has to be there; tag and level is",
    ),
    "no selector": (put("required", [{"repeats": 2}]), "none is"),
    "a level that is none": (put("required", [{"level": 7}]), "more than 4"),
    "no repeat": (put("evidence", "repeats", 0), "less than 1"),
    "a text for a number": (put("evidence", "repeats", "three"), "not integer"),
    "the stand-in without the words": (put("evidence", "stand_in", "allowed"), "'allowed'"),
    "a scenario that does not exist": (
        put("required", [{"scenario": "A wrong pasword is refused"}]),
        "there is no scenario 'A wrong pasword is refused' (did you mean 'A wrong password",
    ),
    "a pattern that means nothing": (
        put("required", [{"scenario": "Mars *"}]),
        "no scenario 'Mars *'",
    ),
    "a tag that nothing carries": (
        put("required", [{"tag": "failovr"}]),
        "no scenario carries tag 'failovr' (did you mean 'failover'?)",
    ),
    "a requirement that does not exist": (
        put("required", [{"requirement": "S99"}]),
        "there is no requirement 'S99'",
    ),
    "a quarantine of nobody": (
        put("quarantine", [{**QUARANTINE, "scenario": "Gone"}]),
        "there is no scenario 'Gone'",
    ),
    "an excuse for nobody": (
        put("excused", [{"scenario": "Gone", "outcomes": ["skipped"], "reason": "does not apply"}]),
        "there is no scenario 'Gone'",
    ),
    "a quarantine without a reason": (
        put("quarantine", [{**QUARANTINE, "reason": "x"}]),
        "too short",
    ),
    "a quarantine for ever": (
        put("quarantine", [{k: v for k, v in QUARANTINE.items() if k != "expires"}]),
        "quarantine[0].expires is missing",
    ),
    "a day that does not exist": (
        put("quarantine", [{**QUARANTINE, "expires": "2026-02-30"}]),
        "'2026-02-30' is no date",
    ),
    "a budget for nobody": (put("budgets", [{**BUDGET, "scenario": "Gone"}]), "no scenario 'Gone'"),
    "a measure that does not exist": (put("budgets", [{**BUDGET, "measure": "rto"}]), "'rto'"),
    "a bound below nothing": (put("budgets", [{**BUDGET, "at_most": -1}]), "less than 0"),
    "a regression half told": (
        put("regression", {k: v for k, v in REGRESSION.items() if k != "too_few"}),
        "regression.too_few is missing",
    ),
    "another version": (put("version", 2), "is not 1"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_refused_with_one_line_that_says_where(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, told = WRONG[wrong]
    value = smoke()
    change(value)
    file = written(tmp_path, value)
    assert main(["policy", "--check", str(file)]) == 4
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert f"{file}:" in said


def test_the_line_is_the_one_of_the_trouble(tmp_path: Path) -> None:
    text = shipped_text("smoke.yaml").replace("  repeats: 1", "  repeets: 1")
    line = next(n for n, one in enumerate(text.splitlines(), 1) if "repeets" in one)
    with pytest.raises(UsageProblem, match=rf"policy\.yaml:{line}: 'repeets' is not known"):
        load(written(tmp_path, text))


NOT_YAML: dict[str, tuple[str, str]] = {
    "empty": ("", "empty"),
    "a list": ("- a\n- b\n", "is list, not object"),
    "broken": ("version: [1\n", "not YAML"),
    "a tab": ("evidence:\n\tproviders: []\n", "not YAML"),
    "a key twice": ("version: 1\nversion: 1\n", "policy.yaml:2: 'version' stands here twice"),
    "an anchor": ("version: &one 1\nname: *one\n", "policy.yaml:1: anchors and aliases"),
    "laughter": (
        "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\n",
        "anchors and aliases",
    ),
    "an object of Python": (
        "version: !!python/object/apply:os.system ['true']\n",
        "tags .* have no use",
    ),
    "a time": ("version: 2026-01-01 10:00:00\n", "is a timestamp"),
    "deep": ("version: " + "[" * 500 + "]" * 500 + "\n", "nested too deeply"),
    "very deep": ("version: " + "[" * 20000 + "]" * 20000 + "\n", "nested too deeply"),
    "a control character": ("version: \x01\n", "not YAML"),
}


@pytest.mark.parametrize("name", NOT_YAML)
def test_what_is_no_policy_is_refused(name: str, tmp_path: Path) -> None:
    text, told = NOT_YAML[name]
    with pytest.raises(UsageProblem, match=told) as refused:
        load(written(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="larger than"):
        load(written(tmp_path, "# " + "x" * 300_000))
    with pytest.raises(UsageProblem, match="did you mean 'release'"):
        load("relase")
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"name: \xff\n")
    with pytest.raises(UsageProblem, match="not UTF-8"):
        load(file)


@pytest.mark.parametrize(
    ("pattern", "text", "meant"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("a*", "ab", True),
        ("*b", "ab", True),
        ("a*b", "ab", True),
        ("ab*b", "ab", False),
        ("*", "", True),
        ("a*c*e", "abcde", True),
        ("a*d*c*e", "abcde", False),
        (None, "x", True),
        ("[a]", "[a]", True),
        ("*" + "a*" * 30 + "b", "a" * 5000, False),
    ],
)
def test_a_star_stands_for_anything(pattern: str | None, text: str, meant: bool) -> None:
    assert matches(pattern, text) is meant


def test_the_catalogue_knows_what_pytest_collects(pytester: pytest.Pytester) -> None:
    """Ids, names and levels come from the files alone; a collected suite says the same."""
    root = Path(__file__).parents[2]
    listed = pytester.runpytest_subprocess(
        "--collect-only", "-q", "-p", "no:hypothesispytest", "-p", "no:cacheprovider",
        f"--rootdir={root}", f"-c{root / 'pyproject.toml'}", str(root / "features"),
    )  # fmt: skip
    collected = {
        f"features/{line.partition('features/')[2]}"
        for line in listed.outlines
        if ".feature::" in line
    }
    mine = shipped_scenarios()
    assert collected
    assert {one.id for one in mine} == collected
    assert len({one.key for one in mine}) == len(mine), "a feature and a name tell scenarios apart"
    by_name = {one.name: one for one in mine}
    nearest = by_name["With asynchronous replication, the primary pod is force-deleted"]
    assert nearest.level == 4, "the row's own level, not the default"
    assert {"failover", "disruptive"} <= nearest.tags


def test_features_of_ones_own_may_be_named(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "mine.feature").write_text(
        "Feature: Mine\n  @level-1 @S12\n  Scenario: Rows arrive\n    Given a\n", "utf-8"
    )
    (tmp_path / "broken.feature").write_text("Feature\n", "utf-8")
    (one,) = scenarios_below([tmp_path])
    assert (one.name, one.level, one.requirements) == ("Rows arrive", 1, ("S12",))
    value = smoke()
    value["required"] = [{"scenario": "Rows arrive"}, {"requirement": "S12"}]
    file = written(tmp_path, value)
    assert main(["policy", "--check", str(file)]) == 4
    assert main(["policy", "--check", str(file), "--features", str(tmp_path)]) == 0
    assert "Mine – Rows arrive" in capsys.readouterr().out


def test_policies_and_schema_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "release"]) == 0
    assert capsys.readouterr().out == shipped_text("release.yaml")
    assert main(["policy", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == policies.schema()
    assert main(["policy"]) == 4
    assert main(["policy", "release", "--schema"]) == 4


def whole_run(day: int, provider: str = "eks") -> Json:
    """Return a run on which everything ran that can run there, and passed."""
    excused = {"An adopted cluster carries nothing of a run"}
    scenarios = []
    for one in shipped_scenarios():
        if one.level > 3:
            continue  # deselected at the usual level
        runs = one.name not in excused and "aws-faults" not in one.tags
        found = scenario(
            one.name,
            "pass" if runs else "skipped",
            feature=one.feature,
            tags=sorted(one.tags),
            level=one.level,
            requirements=one.requirements,
            reason="" if runs else "does not apply",
            faults=("switchover",) if "switched over" in one.name else ("pod-deleted",),
            rto={"the primary Service": (2.0, 2.5)} if "failover" in one.tags else None,
            lost=0 if "failover" in one.tags else None,
            stale_s=1.0 if "failover" in one.tags else None,
            skip="aws-faults" if "aws-faults" in one.tags else None,
        )
        scenarios.append(found)
    run = run_document(scenarios, provider=provider, day=day)
    told = [{**vars(one), "scenarios": []} for one in DEVIATIONS]
    return {**run, "deviations": told}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_comes_with_the_package_can_be_met_and_is_not_met_by_less(name: str) -> None:
    policy, today = load(name), date(2026, 3, 4)
    runs = [whole_run(day) for day in range(3)]
    found = decide(policy, runs, today=today, earlier=[])
    assert found["reasons"] == []
    assert found["exit_status"] == 0
    worse = whole_run(0)
    victim = next(one for one in worse["scenarios"] if one["level"] == 0)
    victim.update(verdict="violation", reason="no")
    assert decide(policy, [worse, *runs[1:]], today=today, earlier=[])["exit_status"] == 1
    fewer = [{**run, "scenarios": run["scenarios"][:20], "left_out": []} for run in runs]
    assert decide(policy, fewer, today=today, earlier=[])["exit_status"] == 7
    local = decide(policy, [whole_run(0, "local")], today=today, earlier=[])
    assert local["exit_status"] == (0 if name == "smoke" else 7)
    assert "not evidence about PGO" in local["disclaimer"]
