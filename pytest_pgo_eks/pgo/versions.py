"""What differs between PGO's series, as data. Facts of 5.7.9, 5.8.9 and 6.0.3."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_pgo_eks.errors import UsageProblem

DEFAULT_LEASE_S = 30
DEFAULT_SYNC_PERIOD_S = 10
# Patroni's own smallest values, and its default.
MIN_LEASE_S = 20
DEFAULT_RETRY_S = 10
MIN_RETRY_S = 3


@dataclass(frozen=True)
class Release:
    """One series of PGO.

    ``api_versions`` are those served, the preferred one first. ``default_hba`` is the line that
    stands last where the user gave none. ``quotes_hba`` says whether methods are quoted.
    """

    series: str
    api_versions: tuple[str, ...]
    postgres_versions: tuple[int, ...]
    default_hba: str
    quotes_hba: bool
    config_parameters: bool
    authentication_rules: bool
    default_container: bool
    pgdata_mode: str
    log_directory: str | None
    autogrow: bool
    repo_host_role: bool
    health_probes: bool
    lease: str | None


RELEASES = (
    Release(
        series="5.7",
        api_versions=("v1beta1",),
        postgres_versions=tuple(range(10, 18)),
        default_hba="hostssl all all all md5",
        quotes_hba=False,
        config_parameters=False,
        authentication_rules=False,
        default_container=False,
        pgdata_mode="0700",
        log_directory=None,
        autogrow=False,
        repo_host_role=False,
        health_probes=False,
        lease=None,
    ),
    Release(
        series="5.8",
        api_versions=("v1beta1",),
        postgres_versions=tuple(range(11, 19)),
        default_hba='hostssl all all all "scram-sha-256"',
        quotes_hba=True,
        config_parameters=True,
        authentication_rules=True,
        default_container=True,
        pgdata_mode="0700",
        log_directory=None,
        autogrow=False,
        repo_host_role=False,
        health_probes=False,
        lease=None,
    ),
    Release(
        series="6.0",
        api_versions=("v1", "v1beta1"),
        postgres_versions=tuple(range(11, 19)),
        default_hba='hostssl all all all "scram-sha-256"',
        quotes_hba=True,
        config_parameters=True,
        authentication_rules=True,
        default_container=True,
        pgdata_mode="0750",
        log_directory="/pgdata/logs/postgres",
        autogrow=True,
        repo_host_role=True,
        health_probes=True,
        lease="cpk-leader-election-lease",
    ),
)


def release_of(version: str) -> Release:
    """Return the series that ``version`` (``6.0.3``, ``5.8.9-stand-in``) belongs to.

    A newer one than we know is taken for the newest we know.

    :raises UsageProblem: it is older than the oldest we know, or no version at all.
    """
    found = re.search(r"(\d+)\.(\d+)", version)
    if found is None:
        raise UsageProblem(f"{version!r} is no version of PGO")
    number = (int(found[1]), int(found[2]))
    for release in reversed(RELEASES):
        if number >= _number(release):
            return release
    known = ", ".join(release.series for release in RELEASES)
    raise UsageProblem(f"PGO {version} is not supported; {known} and newer are")


def is_known(version: str) -> bool:
    """Say whether ``version`` belongs to a series whose differences were looked at."""
    found = re.search(r"(\d+)\.(\d+)", version)
    return found is not None and any(found[0] == release.series for release in RELEASES)


def _number(release: Release) -> tuple[int, int]:
    major, _, minor = release.series.partition(".")
    return int(major), int(minor)
