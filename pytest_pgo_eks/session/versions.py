"""Versions: what the header shows, and which ones are known to be broken."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.settings import Settings

# 36.0.0 and 36.0.1 send no token at all: every request is anonymous.
_CLIENTS_WITHOUT_TOKEN = {"36.0.0", "36.0.1"}

_LEAST_PYTHON = (3, 11)


def installed(distribution: str) -> str | None:
    """Return the installed version without importing anything, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def refuse_broken() -> None:
    """Refuse versions that are known to break a run.

    :raises UsageProblem: names the version and the remedy.
    """
    if sys.version_info[:2] < _LEAST_PYTHON:
        raise UsageProblem(f"Python {sys.version.split()[0]} is too old; 3.11 or newer is needed")
    _at_least("pytest", (9, 2), "older ones name nodes in another way")
    _at_least("pytest-bdd", (9, 0, 1), "older ones fail every scenario on current pytest")
    client = installed("kubernetes")
    if client in _CLIENTS_WITHOUT_TOKEN:
        raise UsageProblem(
            f"kubernetes {client} sends no token with its requests; "
            "install another: pip install 'kubernetes>=36.0.2'"
        )


def _at_least(distribution: str, least: tuple[int, ...], why: str) -> None:
    found = installed(distribution)
    wanted = ".".join(map(str, least))
    if found is None:
        raise UsageProblem(
            f"{distribution} is not installed: pip install '{distribution}>={wanted}'"
        )
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < least:
        raise UsageProblem(
            f"{distribution} {found} is too old ({why}): pip install '{distribution}>={wanted}'"
        )


def header(settings: Settings) -> list[str]:
    """Return the lines for pytest's header; what only the cluster knows follows when it is up."""
    shown = [
        f"{label} {found}"
        for label, name in (
            ("pytest", "pytest"),
            ("pytest-bdd", "pytest-bdd"),
            ("kubernetes client", "kubernetes"),
        )
        if (found := installed(name))
    ]
    subject = [f"cluster {settings.provider}", f"namespace {settings.namespace}"]
    if settings.postgres_version:
        subject.append(f"PostgreSQL {settings.postgres_version}")
    if settings.manifest:
        subject.append(f"manifest {settings.manifest}")
    if settings.provider == "local" and (patroni := installed("patroni")):
        subject.append(f"Patroni {patroni}")
    subject.append(f"level {settings.level}")
    return [f"pgo: {', '.join(subject)}", f"pgo: {', '.join(shown)}"]
