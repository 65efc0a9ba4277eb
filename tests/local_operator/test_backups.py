"""Stanza, first backup, backups on demand and by schedule, against a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_pgo_eks.local.objects import (
    CONFIG_MAP,
    CRON_JOB,
    JOB,
    STATEFUL_SET,
)
from pytest_pgo_eks.local.operator import names

from .bench import NS, Bench, on_bench, standing


async def with_backup(at: Bench) -> None:
    """Go on until the first backup is complete."""
    await at.workload_ready(STATEFUL_SET, "hippo-repo-host")
    await at.reconcile()
    await at.reconcile()
    (job,) = (await at.admin.list(JOB, NS)).items
    await finish(at, job["metadata"]["name"], "Complete")
    await at.reconcile()


async def finish(at: Bench, name: str, how: str) -> None:
    now = "2026-05-17T12:00:00Z"
    # A Job controller sets all of this in two steps, which the API server insists on.
    first = "SuccessCriteriaMet" if how == "Complete" else "FailureTarget"
    for kinds in ([first], [first, how]):
        conditions = [
            {"type": k, "status": "True", "lastTransitionTime": now, "reason": "x", "message": ""}
            for k in kinds
        ]
        status: dict[str, Any] = {"startTime": now, "conditions": conditions}
        if how in kinds:
            status |= (
                {"succeeded": 1, "completionTime": now} if how == "Complete" else {"failed": 1}
            )
        made = await at.admin.patch(JOB, name, NS, {"status": status}, sub="status")
    await at._seen(JOB, made)


def test_the_first_backup_follows_the_stanza_and_opens_replica_creation() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        assert at.condition("PGBackRestRepoHostReady") == ("False", "RepoHostNotReady")
        assert (await at.admin.list(JOB, NS)).items == []
        await at.workload_ready(STATEFUL_SET, "hippo-repo-host")
        await at.reconcile()
        assert at.ran[-1][1][-2:] == ["65bb57b6b5", "db"]
        assert at.condition("PGBackRestReplicaRepoReady") == ("True", "StanzaCreated")
        (job,) = (await at.admin.list(JOB, NS)).items
        assert job["metadata"]["labels"][names.BACKREST_BACKUP] == "replica-create"
        assert at.condition("PGBackRestReplicaCreate") == ("False", "RepoBackupNotComplete")
        await finish(at, job["metadata"]["name"], "Complete")
        await at.reconcile()
        assert at.condition("PGBackRestReplicaCreate") == ("True", "RepoBackupComplete")
        await at.reconcile()
        config = await at.admin.get(CONFIG_MAP, f"{at.instances[0].name}-config", NS)
        assert "- pgbackrest" in config["data"]["patroni.yaml"]
        reasons = {reason for reason, _ in await at.events()}
        assert {"RepoHostCreated", "StanzasCreated"} <= reasons

    on_bench(body)


def test_a_stanza_that_cannot_be_made_is_reported_and_tried_again() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        at.answer = lambda argv: 50 if argv[-1] == "db" else None
        await at.workload_ready(STATEFUL_SET, "hippo-repo-host")
        assert await at.reconcile() is not None
        assert (
            "UnableToCreateStanzas",
            "command terminated with exit code 50: refused",
        ) in await at.events()
        at.answer = lambda _argv: None
        await at.reconcile()
        assert at.condition("PGBackRestReplicaRepoReady") == ("True", "StanzaCreated")

    on_bench(body)


def test_the_first_backup_waits_for_replicas_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.pod(at.instances[2], "replica", ready=False)
        await at.workload_ready(STATEFUL_SET, "hippo-repo-host")
        patience = "pytest_pgo_eks.local.operator.backups.FIRST_BACKUP_PATIENCE_S"
        monkeypatch.setattr(patience, 1000.0)
        again = await at.reconcile()
        assert again is not None
        assert 900 < again <= 1000
        assert (await at.admin.list(JOB, NS)).items == []
        monkeypatch.setattr(patience, 0.0)
        await at.reconcile()
        assert len((await at.admin.list(JOB, NS)).items) == 1

    on_bench(body)


def test_a_failed_first_backup_is_made_again() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.workload_ready(STATEFUL_SET, "hippo-repo-host")
        await at.reconcile()
        (job,) = (await at.admin.list(JOB, NS)).items
        await finish(at, job["metadata"]["name"], "Failed")
        await at.reconcile()
        await at.until(lambda: at.get(JOB, job["metadata"]["name"]) is None)
        await at.reconcile()
        (other,) = (await at.admin.list(JOB, NS)).items
        assert other["metadata"]["name"] != job["metadata"]["name"]

    on_bench(body)


def test_a_manual_backup_per_annotation_and_schedules_after_the_first() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        repos = at.hippo["spec"]["backups"]["pgbackrest"]["repos"]
        repos[0]["schedules"] = {"full": "0 1 * * 0"}
        backrest = {"repos": repos, "manual": {"repoName": "repo1", "options": ["--type=full"]}}
        await at.patch({"spec": {"backups": {"pgbackrest": backrest}}})
        await at.reconcile()
        assert (await at.admin.list(CRON_JOB, NS)).items == []
        await with_backup(at)
        await at.reconcile()
        (cron,) = (await at.admin.list(CRON_JOB, NS)).items
        assert cron["metadata"]["name"] == "hippo-repo1-full"
        for number in ("one", "two"):
            await at.patch({"metadata": {"annotations": {names.BACKREST_BACKUP: number}}})
            await at.reconcile()
            assert at.status["pgbackrest"]["manualBackup"] == {"id": number, "finished": False}
            (job,) = [
                j
                for j in (await at.admin.list(JOB, NS)).items
                if j["metadata"]["labels"][names.BACKREST_BACKUP] == "manual"
            ]
            await finish(at, job["metadata"]["name"], "Complete")
            await at.reconcile()
            assert at.status["pgbackrest"]["manualBackup"]["finished"] is True
            assert at.status["pgbackrest"]["manualBackup"]["succeeded"] == 1
            assert at.condition("PGBackRestManualBackupSuccessful") == (
                "True",
                "ManualBackupComplete",
            )

    on_bench(body)


def test_backups_taken_out_of_the_spec_stay_until_that_is_authorised() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.patch({"spec": {"backups": None}})
        await at.reconcile()
        assert at.condition("Progressing") == ("False", "Paused")
        assert await at.admin.find(STATEFUL_SET, "hippo-repo-host", NS)
        note = {"metadata": {"annotations": {names.AUTHORIZE_BACKUP_REMOVAL: "true"}}}
        await at.patch(note)
        await at.reconcile()
        assert await at.admin.find(STATEFUL_SET, "hippo-repo-host", NS) is None
        assert at.condition("Progressing") is None
        assert at.condition("PGBackRestRepoHostReady") is None

    on_bench(body)
