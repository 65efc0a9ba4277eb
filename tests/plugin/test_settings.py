"""Command line, environment and ini become settings; what cannot work is one line and status 4."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.settings import OPTIONS, Settings, resolve

from .castles import Project


def told(**command_line: object) -> Settings:
    settings = resolve({"pgo_cluster": "local"} | command_line, {}, {})
    assert settings is not None
    return settings


def test_without_a_cluster_there_are_no_settings() -> None:
    assert resolve({}, {"PGO_LEVEL": "nonsense"}, {}) is None
    assert resolve({}, {"PGO_CLUSTER": ""}, {}) is None


def test_the_command_line_outranks_the_environment_and_that_outranks_ini() -> None:
    ini = {"pgo_cluster": "kind", "pgo_level": "1", "pgo_namespace": "ini"}
    environment = {"PGO_LEVEL": "2", "PGO_NAMESPACE": "environment"}
    settings = resolve({"pgo_namespace": "line"}, environment, ini)
    assert settings == Settings("kind", level=2, namespace="line")


def test_the_stand_in_has_quick_leases_and_real_clusters_have_pgos_own() -> None:
    assert (told().lease_s, told().sync_period_s) == (20, 2)
    assert told(pgo_lease="40").lease_s == 40
    assert told(pgo_cluster="eks").lease_s is None
    assert told(pgo_manifest="mine.yaml").lease_s is None, "the manifest declares it"


def real(provider: str, **command_line: object) -> Settings:
    settings = resolve({"pgo_cluster": provider} | command_line, {}, {})
    assert settings is not None
    return settings


def test_a_guest_has_a_namespace_of_its_own_and_goes_on_in_the_one_it_kept() -> None:
    assert real("kubeconfig").namespace == "pytest-pgo-eks"
    assert real("kubeconfig", pgo_reuse="kept").namespace == "kept"
    assert real("kubeconfig", pgo_namespace="mine").namespace == "mine"
    assert real("kind").namespace == "postgres-operator"


@pytest.mark.parametrize(
    ("provider", "given", "message"),
    [
        ("kind", {"pgo_adopt": "a/b"}, r"--pgo-adopt: --cluster=kind has no use for it"),
        ("local", {"pgo_kind_image": "x"}, r"--pgo-kind-image: .*it is for --cluster=kind"),
        ("k3s", {"pgo_kubeconfig": "x"}, r"--pgo-kubeconfig: --cluster=k3s has no use"),
        ("kubeconfig", {"pgo_adopt": "hippo"}, r"'hippo' is not of the form NAMESPACE/NAME"),
        ("kubeconfig", {"pgo_adopt": "a/b/c"}, r"not of the form NAMESPACE/NAME"),
        ("kubeconfig", {"pgo_allow_disruption": True}, r"it is for --pgo-adopt"),
        ("kubeconfig", {"pgo_adopt": "a/b", "pgo_manifest": "f"}, r"leave the manifest out"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    provider: str, given: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageProblem, match=message):
        real(provider, **given)


def test_values_have_their_types() -> None:
    settings = told(
        pgo_keep=True, pgo_timeout_scale="2.5", pgo_report_dir="out", pgo_postgres_version="17"
    )
    assert settings.keep is True
    assert settings.timeout_scale == 2.5
    assert settings.report_dir == Path("out")
    assert settings.postgres_version == 17


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("1", True), ("off", False), ("", False)]
)
def test_flags_are_words_in_environment_and_ini(text: str, value: bool) -> None:
    settings = resolve({"pgo_cluster": "local"}, {"PGO_KEEP": text}, {})
    assert settings is not None
    assert settings.keep is value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pgo_cluster": "locl"}, "--cluster: there is no provider 'locl' (did you mean 'local'?)"),
        ({"pgo_cluster": "ekz"}, "(did you mean 'eks'?)"),
        ({"pgo_level": "5"}, "--pgo-level: 5 is not a level from 0 to 4"),
        ({"pgo_level": "high"}, "--pgo-level: 'high' is not a whole number"),
        ({"pgo_timeout_scale": "fast"}, "--pgo-timeout-scale: 'fast' is not a number"),
        ({"pgo_timeout_scale": "nan"}, "--pgo-timeout-scale: 'nan' is not a finite number"),
        ({"pgo_timeout_scale": "0"}, "--pgo-timeout-scale: 0.0 must be greater than 0"),
        ({"pgo_postgres_version": "9"}, "PostgreSQL 9 is not supported; 15, 16, 17, 18 are"),
        ({"pgo_namespace": "Upper"}, "--pgo-namespace: 'Upper' is no namespace name"),
        ({"pgo_reuse": " "}, "--pgo-reuse: the value is empty"),
    ],
)
def test_a_bad_value_is_told_with_where_it_was_given(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        told(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_value_from_the_environment_names_the_variable() -> None:
    with pytest.raises(UsageProblem, match="environment variable PGO_LEVEL: 'x'"):
        resolve({"pgo_cluster": "local"}, {"PGO_LEVEL": "x"}, {})
    with pytest.raises(UsageProblem, match="ini option pgo_keep: 'maybe' is neither yes nor no"):
        resolve({"pgo_cluster": "local"}, {}, {"pgo_keep": "maybe"})


class TestInPytest:
    @pytest.fixture(autouse=True)
    def feature(self, project: Project) -> None:
        project.write("features/f.feature", "Feature: F\n  Scenario: S\n    Given a cluster\n")

    def refusal(self, project: Project, *arguments: str) -> str:
        result = project.run(*arguments, "features")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert project.log() in ([], ["preflight"]), "nothing is created"
        (line,) = [line for line in result.errlines if line.startswith("ERROR: pgo: ")]
        return line.removeprefix("ERROR: pgo: ")

    def test_an_unknown_provider_is_one_line(self, project: Project) -> None:
        line = self.refusal(project, "--cluster=fak")
        assert "there is no provider 'fak' (did you mean 'fake'?)" in line

    def test_a_report_directory_that_cannot_be_written_is_one_line(self, project: Project) -> None:
        project.write("file", "")
        line = self.refusal(project, "--cluster=fake", "--pgo-report-dir=file")
        assert line == "--pgo-report-dir: cannot write to file: Not a directory"
        line = self.refusal(project, "--cluster=fake", "--pgo-report-dir=/proc/nowhere")
        assert line.startswith("--pgo-report-dir: cannot write to /proc/nowhere")

    def test_a_state_directory_that_cannot_be_written_is_one_line(self, project: Project) -> None:
        line = self.refusal(project, "--cluster=fake", "--pgo-state-dir=/proc/nowhere")
        assert line.startswith("--pgo-state-dir: cannot write to /proc/nowhere")
        assert not list((project.path / "reports").glob("*")), "no empty folder of a run is left"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("pytest.ini", "[pytest]\npgo_level = high\n"),
            ("pyproject.toml", "[tool.pytest]\npgo_level = 'high'\n"),
            ("pytest.ini", "[pytest]\npgo_level = 7\n"),
        ],
    )
    def test_a_bad_ini_value_names_the_option(self, project: Project, name: str, text: str) -> None:
        project.write(name, text)
        assert "ini option pgo_level" in self.refusal(project, "--cluster=fake")

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("pytest.ini", "[pytest]\npgo_level = 1\npgo_keep = true\npgo_timeout_scale = 1.5\n"),
            (
                "pyproject.toml",
                "[tool.pytest]\npgo_level = 1\npgo_keep = true\npgo_timeout_scale = 1.5\n",
            ),
        ],
    )
    def test_ini_and_toml_hold_typed_values(self, project: Project, name: str, text: str) -> None:
        project.write(name, text)
        result = project.run("--cluster=fake", "features")
        result.assert_outcomes(deselected=1)
        assert "above level 1" in result.stdout.str()

    def test_ini_and_environment_reach_the_run(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project.write("pytest.ini", "[pytest]\npgo_cluster = fake\npgo_report_dir = elsewhere\n")
        monkeypatch.setenv("PGO_KEEP", "yes")
        project.run("features").assert_outcomes(passed=1)
        assert (project.path / "elsewhere").is_dir()
        assert "destroy" not in project.log()

    def test_a_cluster_in_use_by_another_run_is_refused(self, project: Project) -> None:
        from pytest_pgo_eks.session.ledger import InUse

        other = InUse(Settings("fake", reuse="castle"))
        line = self.refusal(project, "--cluster=fake", "--pgo-reuse=castle")
        assert line == "--pgo-reuse: another run is using cluster 'castle' right now"
        other.release()
        project.run("--cluster=fake", "--pgo-reuse=castle", "features").assert_outcomes(passed=1)
        assert not list((project.path / "state/pytest-pgo-eks/in-use").iterdir())

    @pytest.mark.parametrize(
        ("distribution", "version", "message"),
        [
            ("kubernetes", "36.0.1", "kubernetes 36.0.1 sends no token with its requests"),
            ("pytest-bdd", "9.0.0", "pytest-bdd 9.0.0 is too old"),
            ("pytest-bdd", "8.1.0", "pytest-bdd 8.1.0 is too old"),
        ],
    )
    def test_versions_known_to_be_broken_are_refused(
        self,
        project: Project,
        monkeypatch: pytest.MonkeyPatch,
        distribution: str,
        version: str,
        message: str,
    ) -> None:
        from pytest_pgo_eks.session import versions

        real = versions.installed
        monkeypatch.setattr(
            versions, "installed", lambda name: version if name == distribution else real(name)
        )
        assert message in self.refusal(project, "--cluster=fake")

    MANIFEST = """
        apiVersion: postgres-operator.crunchydata.com/v1beta1
        kind: PostgresCluster
        metadata: {{name: mine}}
        spec:
          postgresVersion: 16
          instances:
          - name: a
            replicas: {replicas}
            dataVolumeClaimSpec:
              accessModes: [ReadWriteOnce]
              resources: {{requests: {{storage: 1Gi}}}}
    """

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "mine.yaml: cannot be read: No such file or directory"),
            ("a: [", "mine.yaml, line 1, column 5: not YAML: "),
            ("kind: Pod\napiVersion: v1\n", "kind is 'Pod'; a PostgresCluster is needed"),
        ],
    )
    @pytest.mark.parametrize("workers", [(), ("-n1",)])
    def test_a_manifest_that_is_none_is_refused_before_anything_else(
        self, project: Project, text: str | None, message: str, workers: tuple[str, ...]
    ) -> None:
        if text is not None:
            project.write("mine.yaml", text)
        line = self.refusal(project, "--cluster=fake", "--pgo-manifest=mine.yaml", *workers)
        assert message in line
        assert project.log() == []

    def test_one_instance_is_enough_until_somebody_has_to_fail_over(self, project: Project) -> None:
        project.write("mine.yaml", self.MANIFEST.format(replicas=1))
        arguments = ("--cluster=fake", "--pgo-manifest=mine.yaml")
        project.run(*arguments, "features").assert_outcomes(passed=1)
        (project.path / "log").unlink()
        project.write(
            "features/g.feature", "@failover\nFeature: G\n  Scenario: S\n    Given a cluster\n"
        )
        assert "need somebody to fail over to" in self.refusal(project, *arguments)

    def test_workers_learn_it_before_the_cluster_is_made(self, project: Project) -> None:
        project.write("mine.yaml", self.MANIFEST.format(replicas=1))
        project.write(
            "features/g.feature", "@failover\nFeature: G\n  Scenario: S\n    Given a cluster\n"
        )
        result = project.run("--cluster=fake", "--pgo-manifest=mine.yaml", "features", "-n1")
        result.assert_outcomes(errors=2)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "need somebody to fail over to" in result.stdout.str()
        assert project.log() == ["preflight"]

    def test_help_groups_the_options_with_their_defaults(self, project: Project) -> None:
        text = project.run("--help").stdout.str()
        for option in OPTIONS:
            assert option.flag in text
            assert option.ini in text
