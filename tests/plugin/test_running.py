"""One cluster for a run: made once, shared, guarded, removed by the controller, reported."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from .castles import Project

MANY = """
    Feature: Many

      Scenario Outline: Reader <n>
        Given a cluster
        Then it is fine

        Examples:
          | n |
          | 1 |
          | 2 |
          | 3 |
          | 4 |

      @disruptive
      Scenario Outline: Breaker <n>
        Given a cluster
        When it dies
        Then it is fine

        Examples:
          | n |
          | 1 |
          | 2 |
"""


def verdict(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.run_dir() / "verdict.json").read_text("utf-8"))
    return found


def scenario(project: Project, steps: str, tags: str = "", **more: str) -> None:
    """Write a feature of one scenario, and further ones by name."""
    lines = [f"Feature: F\n  {tags}\n  Scenario: One\n    {steps}\n"]
    lines += [f"  Scenario: {name}\n    {text}\n" for name, text in more.items()]
    project.write("features/f.feature", "".join(lines))


class TestOneCluster:
    @pytest.mark.parametrize("workers", [(), ("-n2",)])
    def test_it_is_made_once_and_removed_by_the_controller(
        self, project: Project, workers: tuple[str, ...]
    ) -> None:
        project.write("features/many.feature", MANY)
        result = project.run("--cluster=fake", "features", *workers)
        result.assert_outcomes(passed=6)
        log = Counter(project.log())
        assert log["create"] == log["destroy"] == log["preflight"] == 1
        assert log["operator first=True"] == log["postgres first=True"] == 1
        assert project.log()[-1] == "destroy"
        assert log["healthy postgres of castle None"] == 2, "before each disruptive scenario"
        assert log["healthy postgres of castle identity"] == 2, "and after it"
        assert verdict(project)["verdict"] == "pass"
        assert verdict(project)["counts"]["pass"] == 6
        assert not list((project.path / "state/pytest-pgo-eks/runs").iterdir())
        assert not (project.run_dir() / ".session").exists()

    def test_nothing_is_made_for_scenarios_that_need_nothing(self, project: Project) -> None:
        scenario(project, "Given nothing")
        project.run("--cluster=fake", "features").assert_outcomes(passed=1)
        assert project.log() == ["preflight"]

    def test_plain_tests_share_it(self, project: Project) -> None:
        scenario(project, "Given a cluster")
        project.write(
            "test_plain.py",
            """
            def test_cluster(pgo_cluster, pgo_settings, pgo_evidence):
                assert pgo_cluster.name == "castle"
                assert pgo_settings.provider == "fake"
                pgo_evidence.attach("note.txt", "seen")

            def test_broken(pgo_postgres):
                assert pgo_postgres == "a ruin"
            """,
        )
        result = project.run("--cluster=fake", "features", "test_plain.py")
        result.assert_outcomes(passed=2, failed=1)
        assert project.log().count("create") == 1
        assert {s["name"]: s["verdict"] for s in verdict(project)["scenarios"]} == {
            "One": "pass",
            "test_cluster": "pass",
            "test_broken": "violation",
        }
        assert list(project.run_dir().glob("scenarios/*/note.txt"))

    @pytest.mark.parametrize("workers", [(), ("-n2",)])
    def test_a_failed_creation_is_tried_once_and_told_everywhere_alike(
        self, project: Project, workers: tuple[str, ...]
    ) -> None:
        project.write("features/many.feature", MANY)
        project.write("trouble", "cluster")
        result = project.run("--cluster=fake", "features", *workers)
        result.assert_outcomes(errors=6)
        assert project.log().count("create") == 1
        assert result.ret == 6
        assert {s["reason"] for s in verdict(project)["scenarios"]} == {"no air"}
        assert verdict(project)["verdict"] == "inconclusive"
        text = result.stdout.str()
        assert not {word for word in ("Traceback", "direct cause", "shared.py") if word in text}
        assert "sweep castle" in project.log(), "what was half made is removed"
        assert text.count("\n  no air") == 1, "the summary tells one reason once"
        assert "inconclusive: Many – Reader " in text
        assert "inconclusive: 3 more scenarios for the same reason" in text
        assert "again: pytest --cluster=fake 'features/many.feature::Reader <n>[" in text
        assert "Unavailable: no air" in text

    def test_input_that_turns_out_wrong_ends_with_4(self, project: Project) -> None:
        scenario(project, "Given a cluster")
        project.write("trouble", "usage")
        assert project.run("--cluster=fake", "features").ret == pytest.ExitCode.USAGE_ERROR

    @pytest.mark.parametrize("workers", [(), ("-n1",)])
    def test_a_machine_that_cannot_is_told_in_one_line(
        self, project: Project, workers: tuple[str, ...]
    ) -> None:
        scenario(project, "Given a cluster")
        project.write("refuse", "")
        result = project.run("--cluster=fake", "features", *workers)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: pgo: this machine has no imagination"])
        assert project.log() == ["preflight"]
        assert not list((project.path / "reports").glob("*"))


class TestLocks:
    def test_readers_run_side_by_side_and_breakers_alone(self, project: Project) -> None:
        # Every scenario notes when it holds the cluster; intervals then tell who met whom.
        project.write(
            "features/conftest.py",
            """
            import time
            from pathlib import Path
            from pytest_bdd import when

            @when("somebody looks for a while")
            def _(request):
                began = time.monotonic()
                time.sleep(0.4)
                with (Path(__file__).parent.parent / "times").open("a") as file:
                    file.write(f"{request.node.name} {began} {time.monotonic()}\\n")
            """,
        )
        project.write(
            "features/many.feature",
            MANY.replace("Then it", "When somebody looks for a while\n        Then it"),
        )
        project.run("--cluster=fake", "features", "-n2").assert_outcomes(passed=6)
        times = [line.rsplit(" ", 2) for line in (project.path / "times").read_text().splitlines()]
        spans = [(name, float(began), float(ended)) for name, began, ended in times]
        met = {
            (a[0].partition(" ")[0], b[0].partition(" ")[0])
            for i, a in enumerate(spans)
            for b in spans[i + 1 :]
            if a[1] < b[2] and b[1] < a[2]
        }
        assert met == {("Reader", "Reader")}


class TestSelection:
    def test_levels_above_the_asked_one_are_deselected(self, project: Project) -> None:
        project.write(
            "features/levels.feature",
            """
            @level-4
            Feature: Levels
              @smoke
              Scenario: Zero
                Given nothing
              Rule: Three
                @level-3
                Scenario: Three
                  Given nothing
              Scenario: Four
                Given nothing
            """,
        )
        result = project.run("--cluster=fake", "features")
        result.assert_outcomes(passed=2, deselected=1)
        assert "--pgo-level=4" in result.stdout.str()
        project.run("--cluster=fake", "features", "--pgo-level=0").assert_outcomes(
            passed=1, deselected=2
        )
        project.run("--cluster=fake", "features", "--pgo-level=4").assert_outcomes(passed=3)

    def test_missing_capabilities_skip_visibly(self, project: Project) -> None:
        project.write(
            "features/can.feature",
            """
            Feature: Can
              @zones
              Scenario: Has it
                Given a cluster
              @load-balancer
              Scenario: Lacks it
                Given a cluster
              @real-eks
              Scenario: Never has it
                Given a cluster
            """,
        )
        result = project.run("--cluster=fake", "features", "-rs")
        result.assert_outcomes(passed=1, skipped=2)
        found = {s["name"]: (s["verdict"], s["reason"]) for s in verdict(project)["scenarios"]}
        assert found["Has it"][0] == "pass"
        assert found["Lacks it"][0] == "skipped"
        assert "needs load-balancer" in found["Lacks it"][1]
        assert "castle does not have it" in found["Lacks it"][1]
        assert "it is made of nothing" in found["Never has it"][1]
        assert "Never has it" in result.stdout.str()

    def test_a_run_that_only_skips_proves_nothing(self, project: Project) -> None:
        scenario(project, "Given a cluster", "@partition")
        assert project.run("--cluster=fake", "features").ret == 6


class TestVerdict:
    @pytest.mark.parametrize(
        ("steps", "tags", "expected", "status"),
        [
            ("Given a cluster\n    Then it is fine", "", "pass", 0),
            ("Given a cluster\n    Then it is over", "", "violation", 1),
            ("Given a cluster\n    Then there are 7 of them", "", "violation", 1),
            ("Given a cluster\n    When the network goes away", "", "inconclusive", 6),
            ("Given a cluster\n    Then we skip the rest", "", "skipped", 6),
        ],
    )
    def test_the_exit_status_follows_the_verdict(
        self, project: Project, steps: str, tags: str, expected: str, status: int
    ) -> None:
        scenario(project, steps, tags)
        result = project.run("--cluster=fake", "features")
        assert result.ret == status
        (found,) = verdict(project)["scenarios"]
        assert found["verdict"] == expected
        assert found["steps"][0] | {"began_s": 0, "took_s": 0} == {
            "kind": "given",
            "text": "a cluster",
            "began_s": 0,
            "took_s": 0,
            "outcome": "passed",
        }

    def test_a_violation_outranks_infrastructure(self, project: Project) -> None:
        scenario(
            project,
            "When the network goes away",
            Two="Then it is over",
        )
        assert project.run("--cluster=fake", "features").ret == 1
        assert verdict(project)["verdict"] == "violation"

    def test_a_failing_test_that_is_no_scenario_keeps_pytests_own_status(
        self, project: Project
    ) -> None:
        scenario(project, "When the network goes away")
        project.write("test_other.py", "def test_other(): assert False\n")
        assert project.run("--cluster=fake", "features", "test_other.py").ret == 1

    def test_a_cluster_left_sick_is_an_error_of_the_scenario_that_did_it(
        self, project: Project
    ) -> None:
        scenario(project, "Given a cluster\n    Then it is fine", "@disruptive")
        project.write("sick", "")
        result = project.run("--cluster=fake", "features")
        result.assert_outcomes(passed=1, errors=1)
        assert result.ret == 1
        (found,) = verdict(project)["scenarios"]
        assert (found["verdict"], found["reason"]) == ("violation", "another system identifier")

    def test_what_explains_a_failure_is_collected_before_the_cluster_goes(
        self, project: Project
    ) -> None:
        scenario(project, "Given a cluster\n    Then it is over")
        project.run("--cluster=fake", "features")
        (why,) = project.run_dir().glob("scenarios/*/diagnostics/why.txt")
        assert why.read_text() == "Violation: a row was lost"


class TestAfterwards:
    def test_keep_prints_the_lines_to_look_rerun_and_remove(self, project: Project) -> None:
        scenario(project, "Given a cluster")
        result = project.run("--cluster=fake", "features", "--pgo-keep")
        assert "destroy" not in project.log()
        result.stdout.fnmatch_lines(
            [
                "*cluster castle is kept*",
                "look at castle",
                "*pytest --cluster=fake --pgo-reuse=castle features",
                "blow castle",
            ]
        )

    def test_the_line_that_reruns_says_everything_that_was_said(self, project: Project) -> None:
        scenario(project, "Given a cluster")
        told = ("--pgo-namespace=elsewhere", "--pgo-level=4", "--pgo-timeout-scale=2.0")
        project.run("--cluster=fake", "features", *told)
        document = json.loads((project.run_dir() / "verdict.json").read_text())
        assert document["rerun"] == f"pytest --cluster=fake {' '.join(told)}"

    def test_reuse_adopts_and_leaves_it(self, project: Project) -> None:
        scenario(project, "Given a cluster")
        project.run("--cluster=fake", "features", "--pgo-reuse=castle").assert_outcomes(passed=1)
        assert "adopt castle" in project.log()
        assert not {"create", "destroy"} & set(project.log())

    def test_a_cluster_that_will_not_go_is_said_with_the_line_that_removes_it(
        self, project: Project
    ) -> None:
        scenario(project, "Given a cluster")
        project.write("sticky", "")
        result = project.run("--cluster=fake", "features")
        result.stdout.fnmatch_lines(
            ["pgo: the castle sticks", "pgo: cluster castle may still run; remove it: blow castle"]
        )

    def test_left_overs_of_a_killed_run_are_removed_at_the_next_start(
        self, project: Project
    ) -> None:
        scenario(project, "Given nothing")
        ledger = project.path / "state/pytest-pgo-eks/runs/old.json"
        entry = {"provider": "fake", "owner_pid": 1, "owner_started": 1, "name": "ruin"}
        project.write(str(ledger), json.dumps({**entry, "remove": "blow ruin"}))
        result = project.run("--cluster=fake", "features")
        assert project.log()[0] == "sweep ruin"
        assert "removed cluster ruin, which a run that was killed had left" in result.stdout.str()
        assert not ledger.exists()

    def test_what_a_killed_run_was_to_keep_is_only_named(self, project: Project) -> None:
        scenario(project, "Given nothing")
        ledger = project.path / "state/pytest-pgo-eks/runs/old.json"
        entry = {
            "provider": "fake",
            "owner_pid": 1,
            "owner_started": 1,
            "name": "ruin",
            "keep": True,
        }
        project.write(str(ledger), json.dumps({**entry, "remove": "blow ruin"}))
        result = project.run("--cluster=fake", "features")
        assert "remove it: blow ruin" in result.stdout.str()
        assert "sweep ruin" not in project.log()


def test_the_header_names_versions(project: Project) -> None:
    scenario(project, "Given nothing")
    result = project.run("--cluster=fake", "features", "--pgo-postgres-version=17")
    result.stdout.fnmatch_lines(
        [
            "pgo: cluster fake, namespace postgres-operator, PostgreSQL 17, level 3",
            "pgo: pytest 9*, pytest-bdd 9*, kubernetes client *",
        ]
    )


def test_the_catalogue_prints_every_sentence_with_its_meaning(project: Project) -> None:
    scenario(project, "Given nothing")
    result = project.run("--pgo-steps", "features")
    result.stdout.fnmatch_lines(
        [
            "Given",
            "  a cluster",
            "      Somebody built one.",
            "      (conftest.py:*)",
            "When",
            "  it dies",
            "Then",
            "  it is fine",
            "      All is well.",
        ]
    )
    assert result.ret == 0
    assert "  trace" not in result.outlines, "pytest-bdd's own is no sentence of ours"


def test_the_tags_are_markers(project: Project) -> None:
    result = project.run("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.smoke: *", "@pytest.mark.disruptive: *"])
