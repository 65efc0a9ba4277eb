"""Documents of any age and of anybody are read, or refused with one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report import __main__ as program
from pytest_pgo_eks.report.reading import checked, load, verdict_file
from pytest_pgo_eks.report.schema import problems, verdict_schema
from pytest_pgo_eks.report.story import longest
from pytest_pgo_eks.report.views import VIEWS, write_views

from .documents import FIRST, built, disruptive, everything, finding, hostile, scenario


def test_a_file_of_the_first_version_has_every_field_of_today() -> None:
    found = load(FIRST)
    jsonschema.validate(found, dict(verdict_schema()))
    assert found["scenarios"][0].keys() == built([scenario()])["scenarios"][0].keys()
    late = next(one for one in found["scenarios"] if "rewind" in one["name"])
    assert [(row["path"], row["sessions"], row["upper_s"]) for row in late["rto"]] == [
        ("the primary Service", "new sessions", 22.999),
        ("PgBouncer", "reconnecting clients", 25.47),
    ]
    assert late["loss"]["lost"] == 2917
    assert late["folder"].startswith("scenarios/failover-asynchronous")
    assert [one["kind"] for one in found["left_out"]] == ["deselected"]


def test_every_view_of_a_first_version_is_written(tmp_path: Path) -> None:
    paths = list(write_views(load(FIRST), FIRST.parent, tmp_path))
    assert [path.name for path in paths] == [view.file for view in VIEWS]
    assert all(path.stat().st_size > 100 for path in paths)


@pytest.mark.parametrize("make", [everything, hostile], ids=["everything", "hostile"])
def test_what_is_built_is_what_the_schema_says(make: Any) -> None:
    jsonschema.validate(make(), dict(verdict_schema()))


def test_every_field_of_the_schema_occurs_and_is_described() -> None:
    """So that no field is promised that nobody writes."""
    schema = verdict_schema()
    document = everything()
    assert document.keys() == schema["properties"].keys()
    scenarios = schema["properties"]["scenarios"]["items"]["properties"]
    assert document["scenarios"][0].keys() == scenarios.keys()
    missing = [
        name
        for name, field in scenarios.items()
        if not field.keys() & {"description", "enum", "items"}
    ]
    assert missing == ["line"]


def test_our_own_check_finds_what_the_schema_forbids_and_lets_new_fields_through() -> None:
    schema = verdict_schema()
    assert not list(problems({**everything(), "news": 1}, schema))
    for spoil, told in (
        ({"verdict": "maybe"}, "verdict is 'maybe'"),
        ({"took_s": "long"}, "took_s is str, not number"),
        ({"took_s": True}, "took_s is bool"),
        ({"took_s": -1}, "took_s is -1, less than 0"),
        ({"scenarios": {}}, "scenarios is dict, not array"),
        ({"scenarios": [{"id": "x"}]}, r"scenarios[0].feature is missing"),
        ({"settings": {"a": []}}, "settings.a is list"),
    ):
        first = next(problems({**everything(), **spoil}, schema))
        assert first.startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON, or cut off"),
        ('{"schema": "pytest-pgo-eks/verdict/1", "scenar', "not JSON, or cut off"),
        ("[]", "not a verdict of pytest-pgo-eks/verdict/1 but 'list'"),
        ('{"schema": "pytest-pgo-eks/verdict/2"}', "but 'pytest-pgo-eks/verdict/2'"),
        ('{"schema": "pytest-pgo-eks/verdict/1"}', "suite is missing"),
        ("[" * 200_000, "nested too deeply"),
        ("NaN", "not a verdict"),
    ],
    ids=["empty", "cut off", "a list", "version 2", "hollow", "deep", "not a number"],
)
def test_what_is_no_verdict_is_refused_with_one_line(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verdict.json"
    file.write_text(text)
    with pytest.raises(UsageProblem, match=r"verdict\.json: ") as caught:
        load(file)
    assert told in str(caught.value)
    assert program.main(["render", str(tmp_path)]) == 4
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert list(tmp_path.iterdir()) == [file]


def test_a_verdict_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    text = FIRST.read_text("utf-8")
    file = tmp_path / "verdict.json"
    for end in range(0, len(text) - 2, 997):
        file.write_text(text[:end])
        with pytest.raises(UsageProblem):
            load(file)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageProblem, match="not UTF-8 at byte 0"):
        load(tmp_path)


def test_a_verdict_is_found_by_its_folder_by_itself_and_as_the_latest(tmp_path: Path) -> None:
    run = tmp_path / "20261123T203146Z-local-1"
    run.mkdir()
    file = run / "verdict.json"
    file.write_text(json.dumps(everything()))
    (tmp_path / "latest").symlink_to(run.name)
    assert verdict_file(file) == verdict_file(run) == file
    assert verdict_file(tmp_path).resolve() == file
    with pytest.raises(UsageProblem, match=r"there is no verdict\.json here"):
        verdict_file(run / "nowhere")


def test_the_commands_are_listed_and_a_misspelt_one_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert program.main(["rendr", "x"]) == 4
    assert "invalid choice: 'rendr'" in capsys.readouterr().err
    assert "render" in program.known()


def test_render_writes_the_views_again_from_the_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "kept.json"
    file.write_text(json.dumps(everything()))
    assert program.main(["render", str(file), "--to", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.split()
    assert sorted(Path(name).name for name in printed) == sorted(view.file for view in VIEWS)
    assert "It breaks" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_render_says_where_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verdict.json"
    file.write_text(json.dumps(everything()))
    assert program.main(["render", str(file), "--to", str(file / "inside")]) == 4
    assert "cannot be written" in capsys.readouterr().err


def test_numbers_that_are_none_are_not_taken_for_figures() -> None:
    found = disruptive()
    found["findings"][0]["numbers"] |= {"lower_s": True, "upper_s": float("nan")}
    row = built([found])["scenarios"][0]["rto"][0]
    assert row["lower_s"] is None
    assert row["upper_s"] is None


def test_what_counts_from_the_end_of_a_fault_says_so() -> None:
    found = disruptive(findings=[finding("acknowledged-again-in-time", after_s=0.3, budget_s=40.0)])
    (row,) = built([found])["scenarios"][0]["rto"]
    assert (row["lower_s"], row["upper_s"]) == (0.3, 0.3)
    assert row["sessions"] == "begun when the fault was taken back"
    assert longest(built([found])) is None, "that is no interruption"


def test_of_several_judgements_the_worst_is_told() -> None:
    lost = [
        finding("no-acknowledged-write-lost", outcome, acknowledged=10, lost=count)
        for outcome, count in (("holds", 0), ("violated", 2), ("expected", 9))
    ]
    stale = [
        finding("replica-staleness", "expected", reads=5, stale=1, max_s=most)
        for most in (0.1, 2.0)
    ]
    (made,) = built([disruptive(findings=[*lost, *stale])])["scenarios"]
    assert made["loss"]["outcome"] == "violated"
    assert made["loss"]["lost"] == 2
    assert made["staleness"]["max_s"] == 2.0


def test_a_clock_that_was_set_back_makes_no_negative_time() -> None:
    from datetime import timedelta

    from .documents import BEGAN

    later = BEGAN + timedelta(days=40_000)
    assert built([scenario()], began=later, took_s=None)["took_s"] == 0


def test_another_schema_is_refused_by_name() -> None:
    with pytest.raises(UsageProblem, match="the tape: not a verdict"):
        checked({"schema": "other"}, "the tape")
