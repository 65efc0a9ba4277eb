"""What of a PostgresCluster PGO would act on and the stand-in does not: said, never ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_pgo_eks.local.objects import Obj

_FIELDS = (
    "dataSource",
    "monitoring",
    "instrumentation",
    "userInterface",
    "backups.snapshots",
    "backups.pgbackrest.restore",
    "backups.pgbackrest.log",
    "backups.pgbackrest.repos.*.s3",
    "backups.pgbackrest.repos.*.gcs",
    "backups.pgbackrest.repos.*.azure",
    "instances.*.tablespaceVolumes",
    "instances.*.volumes",
)


def not_played(spec: Obj) -> list[str]:
    """Return the fields of a spec that have no effect here, as paths like ``spec.monitoring``."""
    found = {path for field in _FIELDS for path in _present(spec, field.split("."), "spec")}
    return sorted(found)


def _present(value: Any, parts: list[str], path: str) -> Iterator[str]:
    if not parts:
        if value:
            yield path
        return
    first, rest = parts[0], parts[1:]
    if first == "*":
        for number, item in enumerate(value if isinstance(value, list) else []):
            yield from _present(item, rest, f"{path}[{number}]")
    elif isinstance(value, dict) and first in value:
        yield from _present(value[first], rest, f"{path}.{first}")
