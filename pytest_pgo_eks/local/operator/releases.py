"""Everything that differs between the PGO releases the stand-in can play, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """One line of PGO releases, as ``reference/pgo-object-model`` section 9 tells them apart.

    ``label`` is what ``app.kubernetes.io/version`` shows: it must be a label value and must say
    that this is no PGO.
    """

    name: str
    label: str
    api_versions: tuple[str, ...]
    """CRD versions served; the storage version is always v1beta1."""
    path_wrapper: bool
    """Patroni and PgBouncer start through ``sh -c`` (6.0 puts the server's bin directory first)."""
    group_access: bool
    """initdb --allow-group-access and a data directory of mode 0750 instead of 0700."""
    log_parameters: bool
    """``log_directory`` and ``log_file_mode`` are set."""
    repo_host_role: bool
    """The repository host has a token and may patch its own pod."""
    pgbouncer_group: int | None
    bare_replica_command: bool
    """pgbackrest is called directly to build a replica; 5.8 wraps it in bash."""
    leader_lease: bool
    status_postgres_version: bool
    """``status.postgresVersion: 0`` is always there."""


RELEASES: dict[str, Release] = {
    "6.0": Release(
        name="6.0",
        label="6.0-stand-in",
        api_versions=("v1", "v1beta1"),
        path_wrapper=True,
        group_access=True,
        log_parameters=True,
        repo_host_role=True,
        pgbouncer_group=2,
        bare_replica_command=True,
        leader_lease=True,
        status_postgres_version=True,
    ),
    "5.8": Release(
        name="5.8",
        label="5.8-stand-in",
        api_versions=("v1beta1",),
        path_wrapper=False,
        group_access=False,
        log_parameters=False,
        repo_host_role=False,
        pgbouncer_group=None,
        bare_replica_command=False,
        leader_lease=False,
        status_postgres_version=False,
    ),
}


def release(name: str) -> Release:
    """Return the release called ``name``.

    :raises ValueError: there is none of that name.
    """
    try:
        return RELEASES[name]
    except KeyError:
        known = ", ".join(sorted(RELEASES))
        raise ValueError(f"unknown PGO release {name!r}; known: {known}") from None
