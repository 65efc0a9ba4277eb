"""PostgreSQL's parameters: defaults, the user's, and those the operator insists on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local.operator.desired import Cluster

# spec.config.parameters refuses these (the CRD says so too); dynamicConfiguration does not look.
REFUSED = [
    "archive_command",
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "log_file_mode",
    "logging_collector",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "restore_command",
    "ssl",
    "synchronous_standby_names",
    "wal_log_hints",
]


def pgaudit_installed(version: int, root: Path = Path("/usr/lib/postgresql")) -> bool:
    """Say whether the server of this major version finds pgaudit's library."""
    return (root / str(version) / "lib" / "pgaudit.so").exists()


def parameters(cluster: Cluster, *, pgaudit: bool = True) -> dict[str, str]:
    """Return every parameter that goes into the dynamic configuration, as text.

    Later wins: defaults, ``patroni.dynamicConfiguration``, ``spec.config.parameters``, mandatory.
    """
    dynamic = (cluster.patroni.get("dynamicConfiguration") or {}).get("postgresql") or {}
    given = _texts(dynamic.get("parameters") or {})
    given |= _texts((cluster.spec.get("config") or {}).get("parameters") or {})
    found = _defaults(cluster) | given | _mandatory(cluster)
    libraries = _libraries(given.get("shared_preload_libraries", ""), pgaudit=pgaudit)
    if libraries:
        found["shared_preload_libraries"] = libraries
    else:
        found.pop("shared_preload_libraries", None)
    return dict(sorted(found.items()))


def _texts(given: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.lower(): ("true" if v else "false") if isinstance(v, bool) else str(v)
        for name, v in given.items()
        if v is not None
    }


def _defaults(cluster: Cluster) -> dict[str, str]:
    pages = any(
        name.startswith("hugepages-")
        for each in cluster.instance_sets
        for name in (each.get("resources") or {}).get("limits") or {}
    )
    found = {
        "jit": "off",
        "password_encryption": "scram-sha-256",
        "archive_timeout": "60s",
        "huge_pages": "try" if pages else "off",
    }
    if cluster.release.log_parameters:
        found["log_directory"] = "/pgdata/logs/postgres"
    return found


def _mandatory(cluster: Cluster) -> dict[str, str]:
    archives = cluster.pgbackrest is not None
    found = {
        "unix_socket_directories": "/tmp/postgres",  # noqa: S108 - PGO's own path
        "wal_level": "logical",
        "ssl": "on",
        "ssl_cert_file": "/pgconf/tls/tls.crt",
        "ssl_key_file": "/pgconf/tls/tls.key",
        "ssl_ca_file": "/pgconf/tls/ca.crt",
        "archive_mode": "on",
        "archive_command": 'pgbackrest --stanza=db archive-push "%p"' if archives else "true",
    }
    if archives:
        found["restore_command"] = 'pgbackrest --stanza=db archive-get %f "%p"'
    if cluster.release.log_parameters:
        found["log_file_mode"] = "0660"
    return found


def _libraries(given: str, *, pgaudit: bool) -> str:
    wanted = [name for name in re.split(r"[,\s]+", given) if name and name != "pgaudit"]
    # citus must be the very first library, whatever else is loaded.
    first = [name for name in wanted if name == "citus"]
    rest = [name for name in wanted if name != "citus"]
    return ",".join([*first, *(["pgaudit"] if pgaudit else []), *rest])
