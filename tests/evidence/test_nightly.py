"""The files to copy: read, their shell lines run with stand-ins for the programs, options compared."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_pgo_eks.clusters import rights
from pytest_pgo_eks.clusters.eks.__main__ import _parser as eks_parser
from pytest_pgo_eks.report.__main__ import known
from pytest_pgo_eks.report.gate.policy import SHIPPED
from pytest_pgo_eks.settings import OPTIONS, Settings, resolve

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
GITHUB = EXAMPLES / "github" / "conformance.yml"
GITLAB = EXAMPLES / "gitlab" / ".gitlab-ci.yml"
CRONJOB = EXAMPLES / "kubernetes" / "cronjob.yaml"
SYSTEMD = EXAMPLES / "systemd"
Json = dict[str, Any]

# A program that remembers how it was called, and ends as a file beside it says.
FAKE = """#!/bin/sh
name=$(basename "$0")
{ printf '%s' "$name"; for word in "$@"; do printf '\\037%s' "$word"; done; printf '\\n'; } >> "$FAKES/log"
[ -f "$FAKES/$name.exit" ] && exit "$(cat "$FAKES/$name.exit")"
exit 0
"""


class Programs:
    """A PATH of fakes, and what was called."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        for name in ("pytest", "python", "aws"):
            (place / name).write_text(FAKE, "utf-8")
            (place / name).chmod(0o755)

    def ends(self, name: str, status: int) -> None:
        (self.place / f"{name}.exit").write_text(str(status), "utf-8")

    def run(self, script: str, env: Mapping[str, str], shell: tuple[str, ...]) -> int:
        whole = {"PATH": f"{self.place}:{os.environ['PATH']}", "FAKES": str(self.place), **env}
        done = subprocess.run(
            [*shell, script], env=whole, cwd=self.place, capture_output=True, text=True, check=False
        )
        assert "command not found" not in done.stderr, done.stderr
        assert "unbound" not in done.stderr, done.stderr
        return done.returncode

    def calls(self) -> list[list[str]]:
        log = self.place / "log"
        return [line.split("\037") for line in log.read_text("utf-8").splitlines()]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "programs")


BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")


def read(path: Path) -> Json:
    found: Json = yaml.safe_load(path.read_text("utf-8"))
    return found


# -- what the calls say has to be what the programs take


def check_calls(calls: list[list[str]]) -> None:
    for name, *words in calls:
        if name == "pytest":
            check_pytest(words)
        elif name == "python":
            check_python(words)


def check_pytest(words: list[str]) -> Settings:
    """Every option is the plugin's, and the plugin takes its value."""
    by_flag = {option.flag: option for option in OPTIONS}
    given: dict[str, object] = {}
    for word in words:
        flag, _, value = word.partition("=")
        assert flag in by_flag, f"{flag} is no option of the plugin"
        given[by_flag[flag].ini] = True if by_flag[flag].kind == "flag" else value
    settings = resolve(given, {}, {})
    assert settings is not None
    if settings.gate in SHIPPED or settings.gate is None:
        return settings
    raise AssertionError(
        f"{settings.gate}: the example names no policy that comes with the package"
    )


def check_python(words: list[str]) -> None:
    assert words[0] == "-m"
    module, rest = words[1], words[2:]
    if module == "pytest_pgo_eks.report":
        parser = argparse.ArgumentParser(exit_on_error=False)
        known()[rest[0]].configure(parser)
        parser.parse_args(rest[1:])
    elif module == "pytest_pgo_eks.clusters.eks":
        given = eks_parser().parse_args(rest)
        assert given.command == "sweep"
        assert given.yes, "without it nothing is removed"
    else:
        assert module == "pip", module


# -- GitHub


@dataclass
class GitHubJob:
    """Runs the steps of a job as the service does: a failure skips what does not say ``always()``."""

    workflow: Json
    name: str
    matrix: dict[str, str] = field(default_factory=dict)

    def run(self, programs: Programs) -> bool:
        """Return whether the job succeeded."""
        fine = True
        for step in self.job["steps"]:
            if not fine and step.get("if") != "always()":
                continue
            if "run" in step:
                status = programs.run(step["run"], self.env(), BASH)
                fine = fine and status == 0
        return fine

    @property
    def job(self) -> Json:
        found: Json = self.workflow["jobs"][self.name]
        return found

    def env(self) -> dict[str, str]:
        plain = {**self.workflow.get("env", {}), **self.job.get("env", {})}
        return {name: self.filled(str(value)) for name, value in plain.items()}

    def filled(self, text: str) -> str:
        values = {
            "github.run_id": "12345678901",
            "strategy.job-index": "3",
            **{f"matrix.{name}": value for name, value in self.matrix.items()},
        }
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: values[found[1]], text)


def github(name: str) -> GitHubJob:
    workflow = read(GITHUB)
    matrix = workflow["jobs"][name].get("strategy", {}).get("matrix", {})
    return GitHubJob(workflow, name, {key: str(values[0]) for key, values in matrix.items()})


def test_the_workflow_has_the_shape_of_one() -> None:
    workflow = read(GITHUB)
    # YAML 1.1 reads the word "on" as a boolean.
    triggers = dict(workflow.items())[True]  # type: ignore[index]
    assert {"pull_request", "schedule", "workflow_dispatch"} == set(triggers)
    assert workflow["permissions"] == {"contents": "read"}
    keys = {"if", "needs", "runs-on", "timeout-minutes", "permissions", "strategy", "concurrency"}
    for name, job in workflow["jobs"].items():
        assert set(job) <= {*keys, "env", "steps"}, name
        assert job["timeout-minutes"] <= 360
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert set(step) <= {"uses", "run", "name", "if", "with"}
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w.-]+@v\d+", step["uses"])
            # An expression inside a script would let a branch's name become a command.
            assert "${{" not in step.get("run", "")


def test_no_key_is_stored_and_only_who_needs_it_gets_a_token() -> None:
    for path in sorted(EXAMPLES.rglob("*")):
        if path.is_file():
            text = path.read_text("utf-8")
            assert not re.search(r"AKIA|ACCESS_KEY|secrets\.|password", text, re.IGNORECASE), path
    jobs = read(GITHUB)["jobs"]
    assert "permissions" not in jobs["kind"], "what a pull request runs gets no token"
    for name in ("eks", "report"):
        assert jobs[name]["permissions"] == {"contents": "read", "id-token": "write"}
        roles = [s["with"] for s in jobs[name]["steps"] if "aws-actions/" in s.get("uses", "")]
        assert [set(one) & {"role-to-assume"} for one in roles] == [{"role-to-assume"}]


def test_the_night_is_guarded_swept_and_kept() -> None:
    job = read(GITHUB)["jobs"]["eks"]
    assert job["concurrency"]["cancel-in-progress"] is False
    assert job["strategy"]["max-parallel"] == 1
    assert job["strategy"]["fail-fast"] is False
    names = [step.get("name") or step["uses"] for step in job["steps"]]
    always = [
        n for n, step in zip(names, job["steps"], strict=True) if step.get("if") == "always()"
    ]
    assert always[0] == "Sweep"
    assert names.index("Sweep") == names.index("Judge") + 1
    assert any(name.startswith("actions/upload-artifact") for name in always)
    assert job["timeout-minutes"] * 60 > 3600 * 4
    merge = read(GITHUB)["jobs"]["report"]
    assert merge["needs"] == "eks"
    assert "always()" in merge["if"]
    combinations = 1
    for values in job["strategy"]["matrix"].values():
        combinations *= len(values)
    (line,) = [s["run"] for s in merge["steps"] if s.get("name") == "Merge"]
    assert f"--expect {combinations} " in line


@pytest.mark.parametrize("name", ["kind", "eks", "report"])
def test_every_line_of_github_runs(name: str, programs: Programs) -> None:
    assert github(name).run(programs)
    check_calls(programs.calls())
    assert len(programs.calls()) >= 3


@pytest.mark.parametrize("status", [1, 4, 6, 7])
def test_after_a_failure_github_sweeps_keeps_and_fails(status: int, programs: Programs) -> None:
    programs.ends("pytest", status)
    assert not github("eks").run(programs)
    called = [" ".join(call[:4]) for call in programs.calls()]
    assert called.index("python -m pytest_pgo_eks.clusters.eks sweep") > called.index(
        next(line for line in called if line.startswith("pytest "))
    )
    assert "python -m pytest_pgo_eks.report bundle" in called
    assert "python -m pytest_pgo_eks.report gate" in called
    assert called.index("python -m pytest_pgo_eks.report gate") < called.index(
        next(line for line in called if line.startswith("aws s3 cp"))
    ), "a run is no baseline of itself"


@pytest.mark.parametrize(("status", "fine"), [(0, True), (4, False), (1, False)])
def test_what_the_sweep_finds_decides(status: int, fine: bool, programs: Programs) -> None:
    """It ends well where nothing of the run is left, as after every run that ended well."""
    (step,) = [one for one in read(GITHUB)["jobs"]["eks"]["steps"] if one.get("name") == "Sweep"]
    programs.ends("python", status)
    assert (programs.run(step["run"], github("eks").env(), BASH) == 0) is fine
    line = dict(gitlab_jobs())["eks"]["after_script"][0]
    env = gitlab_env(dict(gitlab_jobs())["eks"], programs.place)
    assert (programs.run(line, env, BASH) == 0) is fine


def test_a_run_has_one_name_from_the_judge_to_the_sweeper(programs: Programs) -> None:
    github("eks").run(programs)
    (judged,) = [call for call in programs.calls() if call[0] == "pytest"]
    (swept,) = [call for call in programs.calls() if "sweep" in call]
    settings = check_pytest(judged[1:])
    run = settings.eks.run
    assert run is not None
    assert swept[swept.index("--run") + 1] == run
    # As the provider has it: what AWS derives from it may not be longer than 64 characters.
    assert re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,22}[a-z0-9])?", run)
    assert settings.eks.hours * 60 >= read(GITHUB)["jobs"]["eks"]["timeout-minutes"], (
        "AWS removes nothing while the job may still run"
    )


# -- GitLab


def gitlab_jobs() -> Iterator[tuple[str, Json]]:
    whole = read(GITLAB)
    for name, job in whole.items():
        if name in ("stages", "variables", "default") or name.startswith("."):
            continue
        parent = whole.get(job.get("extends", ""), {})
        yield name, {**parent, **job}


def gitlab_env(job: Json, place: Path) -> dict[str, str]:
    matrix = job.get("parallel", {}).get("matrix", [{}])[0]
    plain = {
        "CI_JOB_ID": "9876543210",
        "CI_PROJECT_DIR": str(place),
        "WEB_IDENTITY": "token",
        **{name: str(values[0]) for name, values in matrix.items()},
    }
    for name, value in {**read(GITLAB)["variables"], **job.get("variables", {})}.items():
        plain[name] = re.sub(r"\$\{(\w+)\}", lambda found: plain[found[1]], str(value))
    return plain


def test_the_pipeline_has_the_shape_of_one() -> None:
    whole = read(GITLAB)
    keys = {
        "stage", "extends", "rules", "tags", "timeout", "resource_group", "id_tokens", "variables",
        "parallel", "before_script", "script", "after_script", "artifacts", "needs",
    }  # fmt: skip
    for name, job in gitlab_jobs():
        assert set(job) <= keys, name
        assert job["stage"] in whole["stages"]
        assert job["script"]
        assert job["artifacts"]["when"] == "always"
    jobs = dict(gitlab_jobs())
    assert jobs["eks"]["resource_group"]
    assert jobs["eks"]["id_tokens"]["WEB_IDENTITY"]["aud"] == "sts.amazonaws.com"
    assert "sweep" in jobs["eks"]["after_script"][0], "before anything that may fail"


@pytest.mark.parametrize("name", ["kind", "eks", "merge"])
def test_every_line_of_gitlab_runs(name: str, programs: Programs) -> None:
    job = dict(gitlab_jobs())[name]
    env = gitlab_env(job, programs.place)
    for line in (*job["before_script"], *job["script"], *job.get("after_script", ())):
        assert programs.run(line, env, BASH) == 0, line
    check_calls(programs.calls())
    if name == "eks":
        run = check_pytest(next(c for c in programs.calls() if c[0] == "pytest")[1:]).eks.run
        assert run == "gl-9876543210"
        token = programs.place / ".web-identity"
        assert not token.exists(), "the token does not stay"


# -- Kubernetes


def cronjob() -> tuple[Json, Json]:
    documents = list(yaml.safe_load_all(CRONJOB.read_text("utf-8")))
    by_kind = {one["kind"]: one for one in documents}
    assert set(by_kind) == {"PersistentVolumeClaim", "CronJob"}
    return by_kind["CronJob"], by_kind["PersistentVolumeClaim"]


def test_the_job_runs_as_whom_the_rights_are_granted_to() -> None:
    job, claim = cronjob()
    place, account = rights.RUNNER
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert job["metadata"]["namespace"] == claim["metadata"]["namespace"] == place
    assert pod["serviceAccountName"] == account
    granted = (ROOT / "fixtures" / "rbac" / "one-namespace.yaml").read_text("utf-8")
    objects = list(yaml.safe_load_all(granted))
    assert any(
        (one["kind"], one["metadata"]["name"]) == ("ServiceAccount", account) for one in objects
    )
    own = next(w for w in pod["containers"][0]["command"][2].split() if "--pgo-namespace" in w)
    assert {one["metadata"].get("namespace") for one in objects} >= {own.partition("=")[2], place}
    roles = [one for one in objects if one["kind"] in ("Role", "ClusterRole")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])


def test_the_job_is_one_at_a_time_tried_once_and_confined() -> None:
    job, _ = cronjob()
    spec = job["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    inner = spec["jobTemplate"]["spec"]
    assert inner["backoffLimit"] == 0
    assert inner["activeDeadlineSeconds"]
    pod = inner["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    # As the "restricted" standard for pods has it.
    confined = container["securityContext"]
    assert confined["allowPrivilegeEscalation"] is False
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert confined["readOnlyRootFilesystem"] is True
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}


@pytest.mark.parametrize("status", [0, 1, 7])
def test_the_job_ends_as_the_run_did_and_keeps_it(status: int, programs: Programs) -> None:
    job, _ = cronjob()
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    shell, flags, script = container["command"]
    programs.ends("pytest", status)
    assert programs.run(script, {}, (shell, flags)) == status
    check_calls(programs.calls())
    assert [call[3] for call in programs.calls() if call[0] == "python"] == ["bundle", "trend"]


def test_the_image_runs_as_the_user_that_the_job_names() -> None:
    job, _ = cronjob()
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    text = (EXAMPLES / "kubernetes" / "Dockerfile").read_text("utf-8")
    assert f"USER {pod['securityContext']['runAsUser']}\n" in text


# -- systemd


def unit(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text("utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_what_the_unit_starts_is_understood() -> None:
    service = unit("pgo-conformance.service")
    (start,) = service["ExecStart"]
    settings = check_pytest(shlex.split(start)[1:])
    assert settings.provider == "local"
    for line in service["ExecStopPost"]:
        assert line.startswith("-"), "whatever becomes of it, the run's own status counts"
        check_python(shlex.split(line)[1:])
    assert "RestrictNamespaces" not in service, "the stand-in is made of namespaces"
    assert unit("pgo-conformance.timer")["Persistent"] == ["yes"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n", "utf-8")
    program.chmod(0o755)
    for name in ("pgo-conformance.service", "pgo-conformance.timer"):
        text = (SYSTEMD / name).read_text("utf-8")
        # The programs are not installed here; everything else is as it stands.
        text = re.sub(r"(?<==)-?/opt/pgo-conformance/bin/\w+", str(program), text)
        (tmp_path / name).write_text(text.replace("User=pgo-conformance\n", ""), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(map(str, tmp_path.glob("pgo-conformance.*")))],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "pgo-conformance" in line]
    assert ours == []


def test_the_page_names_every_file_and_no_other() -> None:
    text = (ROOT / "docs" / "nightly.md").read_text("utf-8")
    named = set(re.findall(r"`((?:examples|fixtures)/[^`]+)`", text))
    for one in named:
        assert list(ROOT.glob(one)) or (ROOT / one).exists(), one
    for command in re.findall(r"pytest_pgo_eks\.report (\w+)", text):
        assert command in known()
    for flag in re.findall(r"--(?:pgo-[a-z-]+|cluster)", text):
        assert flag in {option.flag for option in OPTIONS}, flag
