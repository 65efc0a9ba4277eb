"""What pytest-bdd would lose in silence is an error at collection, all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pgo_eks.gherkin.audit import readable
from pytest_pgo_eks.gherkin.source import problems

from .castles import TWO, Project


def errors(project: Project, text: str) -> list[str]:
    """Return the audit's lines for a feature, each without its ``file:`` in front."""
    project.write("features/a.feature", text)
    result = project.run("--cluster=fake", "features")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert project.log() == [], "the audit comes before anything is created"
    place = "features/a.feature:"
    found = [line.removeprefix("E").strip() for line in result.outlines]
    return [line.removeprefix(place) for line in found if line.startswith(place)]


def test_all_findings_of_all_files_are_told_at_once(project: Project) -> None:
    project.write("features/b.feature", "")
    project.write("features/good.feature", TWO)
    found = errors(
        project,
        """
        @smok
        Feature: A
          Scenario: One
            Given a cluster

          Scenario: One
            Given a clutser
            When it dies
            Then it was fine

          Scenario: With::colons
            When it is fine

          Scenario: Empty
        """,
    )
    assert [line.partition(":")[0] for line in found] == ["1", "6", "7", "9", "11", "12", "14"]
    text = "\n".join(found)
    assert "@smok is not registered (did you mean 'smoke'?)" in text
    assert "no step definition for 'Given a clutser'; nearest are: 'a cluster'" in text
    assert "no step definition for 'Then it was fine'; nearest are: 'it is fine'" in text
    assert "'One' is already used in line 3" in text
    assert "'When it is fine'; the sentence exists, but as Then, not as When" in text
    assert "'With::colons' contains '::'" in text
    assert "'Empty' has no steps" in text


def test_an_empty_file_is_named(project: Project) -> None:
    assert errors(project, "") == ["1: the file is empty"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("# only a comment\n", "1: there is no Feature: in it", id="no feature"),
        pytest.param("Feature: A\n", "1: there is no scenario in it", id="no scenario"),
        pytest.param(
            "Feature: A\n  Scenario: One\n    Given a cluster\n    Them it is fine\n",
            "4: not Gherkin: ",
            id="misspelt later step",
        ),
        pytest.param(
            "Feature: A\n  Scenario: One\n    Given a cluster\n\n  # why\n  Scenari: Two\n"
            "    Given a cluster\n",
            "6: not Gherkin: 'Scenari: Two' cannot stand here: did you mean 'Scenario' instead of "
            "'Scenari'?",
            id="misspelt scenario after a step",
        ),
        pytest.param(
            "Feature: A\n\n  # why\n  Scenari: Two\n    Given a cluster\n  Scenario: One\n"
            "    Given a cluster\n",
            "4: 'Scenari: Two' reads as prose: did you mean 'Scenario' instead of 'Scenari'?",
            id="misspelt first scenario",
        ),
        pytest.param(
            "Feature: A\n  Scenario: One\n    Givn a cluster\n    Then it is fine\n",
            "3: 'Givn a cluster' reads as prose: did you mean 'Given' instead of 'Givn'?",
            id="misspelt first step",
        ),
        pytest.param(
            "Feature: A\n  Rule: R\n    Backgrund:\n      Given a cluster\n    Scenario: One\n"
            "      Given a cluster\n",
            "3: 'Backgrund:' reads as prose: did you mean 'Background' instead of 'Backgrund'?",
            id="misspelt background",
        ),
        pytest.param(
            "Feature: A\n  Scenario: One\n    And a cluster\n",
            "3: First step in a scenario or background must start with",
            id="starts with And",
        ),
        pytest.param(
            "Feature: A\n  Scenario:\n    Given a cluster\n",
            "2: the scenario has no name",
            id="no name",
        ),
        pytest.param(
            "Feature: A\n  Scenario: One [1]\n    Given a cluster\n",
            "2: scenario name 'One [1]' contains '['",
            id="bracket",
        ),
        pytest.param(
            "Feature: A\n  Rule: R\n    Scenario: One\n      Given a cluster\n  Rule: S\n"
            "    Scenario: One\n      Given a cluster\n",
            "6: scenario name 'One' is already used in line 3",
            id="same name in another rule",
        ),
        pytest.param(
            "Feature: A\n  Scenario Outline: One\n    Given a cluster\n",
            "2: outline 'One' has no row of examples",
            id="outline without examples",
        ),
        pytest.param(
            "Feature: A\n  Scenario Outline: One\n    Given a cluster\n    Examples:\n      | n |\n",
            "2: outline 'One' has no row of examples",
            id="outline without rows",
        ),
        pytest.param(
            "Feature: A\n  Scenario Outline: One\n    Then there are <cont> of them\n    Examples:\n"
            "      | count |\n      | 1 |\n",
            "3: <cont> is no column of the examples in line 4 (did you mean 'count'?)",
            id="unknown column",
        ),
        pytest.param(
            "Feature: A\n  Scenario Outline: One\n    Then there are <n> of them\n    Examples:\n"
            "      | n |\n      | 1 |\n      | 1 |\n",
            "7: the row repeats line 6",
            id="repeated row",
        ),
    ],
)
def test_text_that_would_be_dropped_is_refused(project: Project, text: str, expected: str) -> None:
    found = errors(project, text)
    assert any(line.startswith(expected) for line in found), found


def test_prose_is_allowed(project: Project) -> None:
    project.write(
        "features/a.feature",
        """
        Feature: A
          The reader learns: this is prose.
          When somebody writes well, others understand.

          Scenario: One
            The castle stands on a hill.
            Where it was built is another story.

            Given a cluster
            Then it is fine
        """,
    )
    project.run("--cluster=fake", "features").assert_outcomes(passed=1)


class TestSteps:
    ONE = "Feature: A\n  Scenario: One\n    Given the answer is 42\n"

    def test_two_definitions_that_match_are_both_named(self, project: Project) -> None:
        project.write(
            "features/conftest.py",
            """
            from pytest_bdd import given, parsers

            @given(parsers.parse("the answer is {n:d}"))
            def _(n): ...

            @given(parsers.parse("the {what} is 42"))
            def _(what): ...
            """,
        )
        (line,) = errors(project, self.ONE)
        assert line.startswith("3: 2 step definitions match 'Given the answer is 42': ")
        assert "'the answer is {n:d}' in features/conftest.py:3" in line
        assert "'the {what} is 42' in features/conftest.py:6" in line

    def test_one_sentence_defined_twice_is_ambiguous(self, project: Project) -> None:
        project.write(
            "features/conftest.py",
            """
            from pytest_bdd import given

            @given("the answer is 42")
            def _(): ...

            @given("the answer is 42")
            def _(): ...
            """,
        )
        (line,) = errors(project, self.ONE)
        assert line.startswith("3: 2 step definitions match")

    def test_a_nearer_conftest_overrides_a_farther_one(self, project: Project) -> None:
        project.write(
            "features/conftest.py",
            "from pytest_bdd import given\n@given('nothing')\ndef _(): raise OSError('near')\n",
        )
        project.write("features/a.feature", "Feature: A\n  Scenario: One\n    Given nothing\n")
        result = project.run("--cluster=fake", "features")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E*OSError: near"])

    def test_an_async_step_is_refused(self, project: Project) -> None:
        project.write(
            "features/conftest.py",
            """
            from pytest_bdd import given

            @given("the answer is 42")
            async def _(): raise AssertionError
            """,
        )
        (line,) = errors(project, self.ONE)
        assert "is an async function in features/conftest.py:3" in line

    def test_every_row_of_an_outline_is_matched(self, project: Project) -> None:
        found = errors(
            project,
            """
            Feature: A
              Scenario Outline: One
                Then there are <n> of them

                Examples:
                  | n    |
                  | 1    |
                  | many |
            """,
        )
        (line,) = found
        assert line.startswith("3: no step definition for 'Then there are many of them'")
        assert line.endswith("nearest are: 'there are {count:d} of them'")

    def test_workers_report_the_same_error(self, project: Project) -> None:
        project.write("features/a.feature", self.ONE)
        result = project.run("--cluster=fake", "features", "-n1")
        assert result.ret != 0
        assert "features/a.feature:3: no step definition" in result.stdout.str()
        assert "INTERNALERROR" not in result.stdout.str()
        assert "create" not in project.log()


def test_a_tag_that_the_project_registered_is_known(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\nmarkers =\n    mine(reason): ours\n")
    project.write("features/a.feature", "@mine\nFeature: A\n  Scenario: One\n    Given nothing\n")
    project.run("--cluster=fake", "features", "-m", "mine").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        (r"(?P<count>\d+) instances", "{count} instances"),
        (r"the (?P<which>ha|primary) Service", "the {which: ha|primary} Service"),
        (r"runs (?:on|in) a (?P<place>node|zone)", "runs (on|in) a {place: node|zone}"),
        (r"within (?P<budget>(?:(?:a|\d+) (?:second|lease)s?)+)", "within {budget}"),
        (r"a plain one", "a plain one"),
        (r"a \(literal (?P<x>.+)", r"a \(literal {x}"),
    ],
)
def test_a_regular_expression_is_shown_as_a_sentence(pattern: str, sentence: str) -> None:
    assert readable(pattern) == sentence


def test_what_follows_from_a_mistyped_keyword_is_not_told_as_well(tmp_path: Path) -> None:
    path = tmp_path / "f.feature"
    path.write_text(
        "Feature: A\n  Scenario: One\n    Given a cluster\n    Wehn it is\n  @smoke\n  Scenari: Two\n"
        "    Given a cluster\n  Scenario: Three\n    Given a cluster\n",
        "utf-8",
    )
    found, parsed = problems(path, frozenset({"smoke"}))
    assert not parsed
    assert [(one.line, "did you mean" in one.text) for one in found] == [(4, True), (6, True)]
