"""Where a run ran, told without telling on the machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_pgo_eks.secrets import Secret, filtered, register_environment
from pytest_pgo_eks.session import circumstances
from pytest_pgo_eks.settings import Settings


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_of_a_checkout_says_whether_it_was_changed(tmp_path: Path) -> None:
    assert circumstances.commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert circumstances.commit(tmp_path) is None
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "Begin")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert circumstances.commit(tmp_path) == head
    (tmp_path / "other").write_text("not part of it")
    assert circumstances.commit(tmp_path) == head
    (tmp_path / "file").write_text("two")
    assert circumstances.commit(tmp_path) == f"{head}-dirty"


def test_settings_are_told_without_paths_of_this_machine() -> None:
    told = circumstances.settings(
        Settings(
            "local", report_dir=Path("/home/me/reports"), kubeconfig=Path("/home/me/config"), seed=7
        )
    )
    assert told["provider"] == "local"
    assert told["seed"] == 7
    assert told["manifest"] is None
    assert not [value for value in told.values() if "/home/me" in str(value)]
    assert not [value for value in told.values() if "{" in str(value)], "groups are taken apart"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        (
            {
                "GITLAB_CI": "true",
                "CI_PIPELINE_IID": "9",
                "CI_JOB_URL": "https://x/9",
                "CI_COMMIT_SHA": "c",
            },
            ("GitLab CI", "9", "https://x/9"),
        ),
        (
            {"JENKINS_URL": "https://j", "BUILD_NUMBER": "4", "BUILD_URL": "https://j/4"},
            ("Jenkins", "4", "https://j/4"),
        ),
        ({"GITHUB_ACTIONS": "true", "GITHUB_RUN_NUMBER": "2"}, ("GitHub Actions", "2", None)),
    ],
    ids=["nobody", "gitlab", "jenkins", "github without an address"],
)
def test_the_job_is_named_by_its_ci(
    given: dict[str, str], expected: tuple[str, str, str | None] | None
) -> None:
    found = circumstances.executor(given)
    assert (found and (found["name"], found["build"], found["url"])) == expected


def test_credentials_of_the_environment_are_hidden_and_nothing_else() -> None:
    register_environment(
        {
            "DB_PASSWORD": "hidden-password-1",
            "VAULT_TOKEN": "hidden-token-2",
            "AWS_SECRET_ACCESS_KEY": "hidden/key+3==",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/shown-4",
            "TOKEN_TTL": "shown-5-seconds",
            "PGPASSWORD": "short",
            "AUTHOR": "shown-person-6",
            "HOME": "/home/shown-7",
        }
    )
    told = filtered(
        "hidden-password-1 hidden-token-2 hidden/key+3== hidden%2Fkey%2B3%3D%3D /var/run/shown-4 "
        "shown-5-seconds short shown-person-6 /home/shown-7"
    )
    assert "hidden" not in told
    assert told.count("********") == 4
    assert all(f"shown-{n}" in told or f"-{n}" in told for n in (4, 5, 6, 7))


@pytest.mark.parametrize("value", ['a"quoted\\back', "<tag>&'s", "ünï🐘cödé", "a b/c+d=="])
def test_a_secret_is_hidden_however_it_is_written(value: str) -> None:
    import base64
    import html
    import json
    import shlex
    from urllib.parse import quote

    secret = Secret(f"x{value}y")
    forms = [
        str(secret),
        json.dumps(str(secret)),
        json.dumps(str(secret), ensure_ascii=False),
        repr(str(secret)),
        shlex.quote(f"id {secret}"),
        quote(str(secret)),
        quote(str(secret), safe=""),
        html.escape(str(secret)),
        base64.b64encode(secret.encode()).decode(),
    ]
    for form in forms:
        # A path in a URL may keep its slashes; then what is between them stays.
        assert "********" in filtered(f"said {form} here") or "/" in value, form


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://user:hunter2222@host/x", "hunter2222"),
        ("postgresql://u:a/b/c@h/db", "a/b/c"),
        ("redis://:topsecret@h", "topsecret"),
    ],
)
def test_passwords_in_addresses_are_hidden(text: str, hidden: str) -> None:
    assert hidden not in filtered(text)
    assert filtered("http://host:8080/path@v2") == "http://host:8080/path@v2"
