"""Backups and the archive, asked of pgBackRest and of the server that archives."""

from __future__ import annotations

import json
from typing import Any

from pytest_pgo_eks.errors import ExecProblem, Violation
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.pgo import PostgresCluster
from pytest_pgo_eks.scenario import roles

_INFO = ["pgbackrest", "info", "--stanza=db", "--output=json"]


def information(postgres: PostgresCluster) -> dict[str, Any]:
    """Return what pgBackRest says of the cluster's stanza, asked in an instance."""
    seen = postgres.observe()
    pod = next((one.pod for one in seen.instances if one.is_running), None)
    if pod is None:
        raise ExecProblem(f"no instance runs:\n  {seen}")
    done = postgres.kube.exec(postgres.namespace, pod, _INFO, container="database", deadline_s=30.0)
    if done.exit_status:
        told = done.stderr.decode("utf-8", "replace").strip()[-300:]
        raise ExecProblem(f"pgbackrest info in {pod} ended with {done.exit_status}: {told}")
    stanzas = json.loads(done.stdout)
    return dict(stanzas[0]) if stanzas else {}


def full_backup(postgres: PostgresCluster, within_s: float) -> Finding:
    """Wait until a full backup is complete and without error."""
    found = eventually(
        lambda: _full(information(postgres)),
        accept=bool,
        within_s=within_s,
        what="a complete full backup",
        successes=1,
    )
    label = found[-1]["label"]
    return Finding("full-backup-exists", "holds", f"full backup {label} is complete")


def demand_archive_from_backup(postgres: PostgresCluster) -> Finding:
    """Demand that the archive reaches back to the first full backup and forward from it."""
    told = information(postgres)
    backups, archives = _full(told), told.get("archive") or []
    if not backups:
        raise Violation("there is no full backup")
    first = backups[0]["archive"]["start"]
    held = [one for one in archives if one.get("min") and one["min"][8:] <= first[8:]]
    if not held:
        spans = ", ".join(f"{one.get('min')}…{one.get('max')}" for one in archives) or "nothing"
        raise Violation(f"the archive holds {spans} and lacks {first}, where the backup begins")
    return Finding("archive-from-backup", "holds", f"the archive goes back to {first}")


def switch_segment(postgres: PostgresCluster) -> str:
    """Write something, end the current segment on the primary, and return its name."""
    seen = postgres.observe(sql=True)
    server = postgres.server(roles.primary(seen).pod)
    server.run("SELECT pg_logical_emit_message(true, 'pgo', 'segment')")
    return str(server.value("SELECT pg_walfile_name(pg_switch_wal())"))


def archived(postgres: PostgresCluster, segment: str, within_s: float) -> Finding:
    """Wait until the server has archived ``segment``, or one behind it."""

    def look() -> str:
        seen = postgres.observe(sql=True)
        row = postgres.server(roles.primary(seen).pod).archiver()
        return str(row["last_archived_wal"] or "")

    eventually(
        look,
        accept=lambda last: len(last) >= 24 and last[8:24] >= segment[8:],
        within_s=within_s,
        what=f"segment {segment} to be archived",
        successes=1,
    )
    return Finding("segment-archived", "holds", f"segment {segment} is archived")


def _full(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        backup
        for backup in told.get("backup") or []
        if backup.get("type") == "full" and not backup.get("error")
    ]
