"""Where a run ran: the checkout's commit, versions, settings, and the CI job around it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest_pgo_eks
from pytest_pgo_eks.session.versions import installed
from pytest_pgo_eks.settings import Settings

_GIT_S = 10.0
# By the name under which each is told: "kubernetes" alone would be taken for the cluster's version.
_DISTRIBUTIONS = {
    "pytest": "pytest",
    "pytest-bdd": "pytest-bdd",
    "pytest-xdist": "pytest-xdist",
    "allure-pytest": "allure-pytest",
    "kubernetes client": "kubernetes",
    "boto3": "boto3",
}

Environment = Mapping[str, str]
Job = dict[str, str | None]


def commit(checkout: Path | None = None) -> str | None:
    """Return the commit of the checkout that judges, ``-dirty`` behind it where it was changed.

    None for an installed package, or without git.
    """
    top = checkout or Path(pytest_pgo_eks.__file__).resolve().parents[1]
    if not (top / ".git").exists():
        return None
    head = _git(top, "rev-parse", "HEAD")
    if not head:
        return None
    changed = _git(top, "status", "--porcelain", "--untracked-files=no")
    return f"{head}-dirty" if changed else head


def _git(top: Path, *arguments: str) -> str | None:
    # Git takes no lock for a look, and asks nobody anything.
    command = ["git", "--no-optional-locks", "-C", str(top), *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_GIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment() -> dict[str, str]:
    """Return versions of what ran the suite; no name of the machine or of its user."""
    found = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    versions = {told: installed(name) for told, name in _DISTRIBUTIONS.items()}
    return found | {told: version for told, version in versions.items() if version}


def settings(given: Settings) -> dict[str, Any]:
    """Return the run's settings as JSON, without the paths of the runner's own machine.

    Groups of settings come as ``group.name``, and only what was said of them.
    """
    plain = asdict(given)
    for name in ("report_dir", "state_dir", "kubeconfig"):
        plain.pop(name, None)
    return dict(_flat(plain))


def _flat(plain: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in plain.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{group}{name}.")
        elif isinstance(value, bool | int | float | str | None):
            if value is not None or not group:
                yield f"{group}{name}", value
        else:
            yield f"{group}{name}", str(value)


def executor(given: Environment) -> Job | None:
    """Return the CI job that the environment describes, None outside of one."""
    for variable, describe in _KNOWN.items():
        if given.get(variable):
            return describe(given)
    return None


def _github(given: Environment) -> Job:
    page = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}"
    return {
        "name": "GitHub Actions",
        "build": given.get("GITHUB_RUN_NUMBER"),
        "url": _filled(page, given),
        "repository": given.get("GITHUB_REPOSITORY"),
        "commit": given.get("GITHUB_SHA"),
        "branch": given.get("GITHUB_HEAD_REF") or given.get("GITHUB_REF_NAME"),
    }


def _gitlab(given: Environment) -> Job:
    return {
        "name": "GitLab CI",
        "build": given.get("CI_PIPELINE_IID"),
        "url": given.get("CI_JOB_URL"),
        "repository": given.get("CI_PROJECT_PATH"),
        "commit": given.get("CI_COMMIT_SHA"),
        "branch": given.get("CI_COMMIT_REF_NAME"),
    }


def _jenkins(given: Environment) -> Job:
    return {
        "name": "Jenkins",
        "build": given.get("BUILD_NUMBER"),
        "url": given.get("BUILD_URL"),
        "repository": given.get("GIT_URL"),
        "commit": given.get("GIT_COMMIT"),
        "branch": given.get("GIT_BRANCH"),
    }


_KNOWN: dict[str, Callable[[Environment], Job]] = {
    "GITHUB_ACTIONS": _github,
    "GITLAB_CI": _gitlab,
    "JENKINS_URL": _jenkins,
}


def _filled(page: str, given: Environment) -> str | None:
    try:
        return page.format_map(given)
    except KeyError:
        return None
