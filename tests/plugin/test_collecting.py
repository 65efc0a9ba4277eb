"""``.feature`` files behave like test modules: selection, node ids, reruns, workers, JUnit."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from .castles import TWO, Project

STANDS = "features/castles.feature::A castle stands"
TWO_TOWERS = "features/castles.feature::Castles have <count> towers[2]"
THREE_TOWERS = "features/castles.feature::Castles have <count> towers[3]"


@pytest.fixture(autouse=True)
def castles(project: Project) -> None:
    project.write("features/castles.feature", TWO)


@pytest.mark.parametrize(
    "arguments",
    [
        ("features",),
        ("features/castles.feature",),
        (".",),
        (),
    ],
)
def test_a_directory_a_file_and_a_bare_run_collect_every_scenario(
    project: Project, arguments: tuple[str, ...]
) -> None:
    result = project.run("--cluster=fake", "--collect-only", "-q", *arguments)
    result.stdout.fnmatch_lines(
        [name.replace("[", "[[]") for name in (STANDS, TWO_TOWERS, THREE_TOWERS)]
    )
    assert project.log() == [], "listing must create nothing"
    assert not (project.path / "reports").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("-k", "stands"), {STANDS}),
        (("-k", "towers and 2"), {TWO_TOWERS}),
        (("-m", "smoke"), {STANDS}),
        (("-m", "failover and not smoke"), {TWO_TOWERS, THREE_TOWERS}),
        ((STANDS,), {STANDS}),
        ((TWO_TOWERS,), {TWO_TOWERS}),
        (("features/castles.feature::Castles have <count> towers",), {TWO_TOWERS, THREE_TOWERS}),
    ],
)
def test_scenarios_are_selected_as_functions_are(
    project: Project, arguments: tuple[str, ...], expected: set[str]
) -> None:
    result = project.run("--cluster=fake", "--collect-only", "-q", *arguments)
    assert {line for line in result.outlines if "::" in line} == expected


def test_a_scenario_that_does_not_exist_is_an_error(project: Project) -> None:
    result = project.run("--cluster=fake", "features/castles.feature::A castle falls")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert project.log() == []


def test_only_the_failed_row_runs_again(project: Project) -> None:
    first = project.run("--cluster=fake", "features")
    first.assert_outcomes(passed=2, failed=1)
    again = project.run("--cluster=fake", "features", "--lf", "-v")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines([f"*{THREE_TOWERS.replace('[', '[[]')} FAILED*"])


def test_two_workers_run_what_one_does(project: Project) -> None:
    result = project.run("--cluster=fake", "features", "-n2")
    result.assert_outcomes(passed=2, failed=1)


def test_junit_names_feature_and_scenario(project: Project) -> None:
    project.run("--cluster=fake", "features", "--junitxml=junit.xml")
    cases = ET.parse(project.path / "junit.xml").getroot().iter("testcase")
    assert [(case.get("classname"), case.get("name")) for case in cases] == [
        ("features.castles.feature", "A castle stands"),
        ("features.castles.feature", "Castles have <count> towers[2]"),
        ("features.castles.feature", "Castles have <count> towers[3]"),
    ]


def test_a_failure_points_at_the_feature_and_shows_no_foreign_code(project: Project) -> None:
    result = project.run("--cluster=fake", THREE_TOWERS)
    result.stdout.fnmatch_lines(["*Castles: Castles have <count> towers[[]3]*", "E*assert 3 < 3*"])
    text = result.stdout.str()
    assert "call_fixture_func" not in text
    assert "scenario_wrapper" not in text


def test_steps_in_a_conftest_beside_the_features_are_found(project: Project) -> None:
    project.write(
        "features/near/conftest.py", "from pytest_bdd import given\n@given('near')\ndef _(): ...\n"
    )
    project.write("features/near/n.feature", "Feature: N\n  Scenario: S\n    Given near\n")
    project.run("--cluster=fake", "features/near").assert_outcomes(passed=1)


class TestWithoutCluster:
    def test_features_are_deselected_with_one_line_that_says_how_to_run_them(
        self, project: Project
    ) -> None:
        result = project.run("features")
        result.assert_outcomes(deselected=3)
        hints = [line for line in result.outlines if line.startswith("pgo:")]
        assert len(hints) == 1
        assert "3 scenarios" in hints[0]
        assert "--cluster=local" in hints[0]
        assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED

    def test_the_line_is_there_with_workers_too(self, project: Project) -> None:
        result = project.run("features", "-n1")
        assert "--cluster=local" in result.stdout.str()

    def test_listing_lists_them(self, project: Project) -> None:
        assert STANDS in project.run("features", "--collect-only", "-q").outlines

    def test_other_tests_run(self, project: Project) -> None:
        project.write("features/test_other.py", "def test_other(): pass\n")
        project.write("pytest.ini", "[pytest]\npgo_features = features\n")
        project.run().assert_outcomes(passed=1, deselected=3)

    def test_a_plain_test_that_needs_a_cluster_is_skipped_with_the_reason(
        self, project: Project
    ) -> None:
        project.write("test_plain.py", "def test_it(pgo_cluster): pass\n")
        result = project.run("test_plain.py", "-rs")
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["SKIPPED*--cluster=local*"])


class TestOtherPeoplesProjects:
    """A project that merely has the package installed sees no change."""

    BOUND = "from pytest_bdd import scenarios\nscenarios('.')\n"

    @pytest.mark.parametrize("arguments", [(), ("features",), (".",)])
    def test_features_bound_by_the_project_run_once(
        self, project: Project, arguments: tuple[str, ...]
    ) -> None:
        (project.path / "features/castles.feature").unlink()
        project.write("features/own.feature", "Feature: O\n  Scenario: S\n    Given nothing\n")
        project.write("features/test_own.py", self.BOUND)
        result = project.run(*arguments)
        result.assert_outcomes(passed=1)
        assert "pgo" not in result.stdout.str().replace("plugins: pgo-eks", "")

    def test_a_bare_run_does_not_collect_features(self, project: Project) -> None:
        project.write("test_other.py", "def test_other(): pass\n")
        project.run().assert_outcomes(passed=1)

    def test_broken_settings_in_the_environment_harm_nobody(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGO_TIMEOUT_SCALE", "abc")
        project.write("test_other.py", "def test_other(): pass\n")
        project.run("test_other.py").assert_outcomes(passed=1)

    def test_it_works_without_pytest_bdd(self, project: Project) -> None:
        project.write("conftest.py", "")
        project.write("test_other.py", "def test_other(): pass\n")
        project.run("-p", "no:pytest-bdd", "test_other.py").assert_outcomes(passed=1)


def test_the_ini_list_names_directories(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\npgo_features = features\n")
    project.write("elsewhere/b.feature", "Feature: B\n  Scenario: B\n    Given nothing\n")
    result = project.run("--cluster=fake", "--collect-only", "-q")
    assert {line for line in result.outlines if "::" in line} == {STANDS, TWO_TOWERS, THREE_TOWERS}


def test_own_features_stand_beside_the_shipped_ones(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\npgo_features =\n    shipped\n    features\n")
    result = project.run("--cluster=fake", "--collect-only", "-q", "--pgo-level=4")
    assert {STANDS, TWO_TOWERS, THREE_TOWERS} < set(result.outlines)
    assert any("The primary Service leads only to the primary" in line for line in result.outlines)


def test_shipped_sentences_serve_own_features(project: Project) -> None:
    project.write(
        "features/own.feature",
        "Feature: O\n  Scenario: S\n    Given a PostgresCluster with 3 instances\n",
    )
    result = project.run("--collect-only", "-q", "features/own.feature")
    assert "features/own.feature::S" in result.outlines


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_file_outside_the_root_directory_is_named_by_its_whole_path(
    project: Project, tmp_path_factory: pytest.TempPathFactory, workers: tuple[str, ...]
) -> None:
    project.write("pytest.ini", "[pytest]\n")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "mine.feature"
    elsewhere.write_text("Feature: F\n  Scenario: Mine\n    Given a place of its own\n", "utf-8")
    (elsewhere.parent / "conftest.py").write_text(
        "from pytest_bdd import given\n\n@given('a place of its own')\ndef _(): ...\n", "utf-8"
    )
    named = f"{elsewhere}::Mine"
    result = project.run("--cluster=fake", *workers, "-v", STANDS, str(elsewhere))
    result.assert_outcomes(passed=2)
    assert any(named in line for line in result.outlines)
    project.run("--cluster=fake", STANDS, named).assert_outcomes(passed=2)
