"""Reconciles against a real API server: what is written, in which order, and what stops it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pytest_pgo_eks.local.objects import (
    CLAIM,
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    ENDPOINTS,
    JOB,
    POD,
    POSTGRES_CLUSTER,
    SECRET,
    SERVICE,
    STATEFUL_SET,
)
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.context import Blocked
from pytest_pgo_eks.local.operator.control import CommandFailed

from .bench import KEY, NS, Bench, bench, programs


def on_bench(body: Callable[[Bench], Awaitable[None]], version: str = "6.0") -> None:
    async def main() -> None:
        async with bench(version) as made:
            await body(made)

    asyncio.run(main())


async def standing(at: Bench, **spec: Any) -> None:
    """Bring a cluster to where its instances run and everything of the first passes is done."""
    await at.create(**spec)
    await at.reconcile()
    await at.run_pods()
    await at.reconcile()
    at.ran.clear()


def test_the_first_pass_writes_in_pgos_order() -> None:
    async def body(at: Bench) -> None:
        await at.create()
        await at.reconcile()
        assert at.hippo["metadata"]["finalizers"] == [names.FINALIZER]
        assert len(at.instances) == 3
        order = [
            (SECRET, "pgo-root-cacert"),
            (SERVICE, "hippo-pods"),
            (CONFIG_MAP, "hippo-config"),
            (SECRET, "hippo-replication-cert"),
            (SERVICE, "hippo-ha"),
            (SERVICE, "hippo-primary"),
            (SERVICE, "hippo-replicas"),
            (SECRET, "hippo-cluster-cert"),
            (SERVICE, "hippo-ha-config"),
            (STATEFUL_SET, at.instances[0].name),
            (SECRET, "hippo-pguser-app"),
            (STATEFUL_SET, "hippo-repo-host"),
            (DEPLOYMENT, "hippo-pgbouncer"),
        ]
        made = [await at.admin.get(kind, name, NS) for kind, name in order]
        versions = [int(obj["metadata"]["resourceVersion"]) for obj in made]
        assert versions == sorted(versions)
        for obj in made:
            (manager,) = {m["manager"] for m in obj["metadata"]["managedFields"]}
            assert manager == "postgrescluster-controller"
        primary = await at.admin.get(ENDPOINTS, "hippo-primary", NS)
        leader = await at.admin.get(SERVICE, "hippo-ha", NS)
        (subset,) = primary["subsets"]
        assert subset["addresses"] == [{"ip": leader["spec"]["clusterIP"]}]
        assert at.ran == []
        assert at.status["observedGeneration"] == 1

    on_bench(body)


def test_a_pass_without_news_writes_nothing() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.reconcile()
        before = (await at.admin.list(CONFIG_MAP, NS)).resource_version
        assert await at.reconcile() is None
        assert (await at.admin.list(CONFIG_MAP, NS)).resource_version == before
        assert at.ran == []

    on_bench(body)


def test_a_restarted_operator_changes_nothing() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.reconcile()
        runner = await at.admin.get(STATEFUL_SET, at.instances[0].name, NS)
        secret = await at.admin.get(SECRET, "hippo-pguser-app", NS)
        at.tools.store._applied.clear()
        await at.reconcile()
        assert await at.admin.get(STATEFUL_SET, at.instances[0].name, NS) == runner
        assert await at.admin.get(SECRET, "hippo-pguser-app", NS) == secret
        assert len(at.instances) == 3

    on_bench(body)


def test_sql_runs_once_there_is_a_primary_and_not_again() -> None:
    async def body(at: Bench) -> None:
        await at.create()
        await at.reconcile()
        assert at.ran == []
        await at.run_pods()
        await at.reconcile()
        primary = at.instances[0].pod_name
        assert {pod for pod, _ in at.ran} == {primary}
        assert programs(at.ran) == ["bash", "psql", "psql", "bash"]
        assert at.status["patroni"]["systemIdentifier"] == "7711294170323189864"
        for field in ("databaseRevision", "usersRevision"):
            assert at.status[field]
        assert at.status["proxy"]["pgBouncer"]["postgresRevision"]
        at.ran.clear()
        await at.patch({"spec": {"users": [{"name": "zoe", "databases": ["zoo"]}]}})
        await at.reconcile()
        assert programs(at.ran) == ["bash", "psql", "psql"]
        assert await at.admin.find(SECRET, "hippo-pguser-app", NS) is None

    on_bench(body)


def test_configuration_that_drifted_is_replaced_and_only_then() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.reconcile()
        assert at.ran == []
        stored = json.loads(at.wanted()) | {"pause": True}
        notes = {"metadata": {"annotations": {"config": json.dumps(stored)}}}
        made = await at.admin.patch(ENDPOINTS, "hippo-ha-config", NS, notes)
        await at._seen(ENDPOINTS, made)
        await at.reconcile()
        assert programs(at.ran) == ["patronictl edit-config"]

    on_bench(body)


def test_what_somebody_changed_or_deleted_is_put_back() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.admin.delete(CONFIG_MAP, "hippo-config", NS)
        patch = {"spec": {"selector": {names.ROLE: "master"}}}
        made = await at.admin.patch(SERVICE, "hippo-replicas", NS, patch)
        await at._seen(SERVICE, made)
        await at.until(lambda: at.get(CONFIG_MAP, "hippo-config") is None)
        await at.reconcile()
        service = await at.admin.get(SERVICE, "hippo-replicas", NS)
        assert service["spec"]["selector"][names.ROLE] == "replica"
        assert await at.admin.find(CONFIG_MAP, "hippo-config", NS)

    on_bench(body)


def test_a_deleted_stateful_set_comes_back_under_its_name() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        name = at.instances[1].name
        await at.admin.delete(STATEFUL_SET, name, NS)
        await at.until(lambda: at.get(STATEFUL_SET, name) is None)
        await at.reconcile()
        assert len(at.instances) == 3
        assert await at.admin.find(STATEFUL_SET, name, NS)

    on_bench(body)


def test_scaling_up_and_down() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        first = {each.name for each in at.instances}
        sets = at.hippo["spec"]["instances"]
        await at.patch({"spec": {"instances": [sets[0] | {"replicas": 4}]}})
        await at.reconcile()
        grown = {each.name for each in at.instances}
        assert first < grown
        assert len(grown) == 4
        await at.patch({"spec": {"instances": [sets[0] | {"replicas": 1}]}})
        await at.reconcile()
        await at.until(
            lambda: len(at.tools.store.list(STATEFUL_SET, KEY, {names.DATA: "postgres"})) == 1
        )
        (kept,) = at.tools.store.list(STATEFUL_SET, KEY, {names.DATA: "postgres"})
        assert kept["metadata"]["name"] == at.instances[0].name
        for kind, suffix in ((CONFIG_MAP, "config"), (SECRET, "certs")):
            left = {o["metadata"]["name"] for o in (await at.admin.list(kind, NS)).items}
            assert {n for n in left if n.endswith(suffix) and n.startswith("hippo-pg-1")} == {
                f"{kept['metadata']['name']}-{suffix}"
            }
        claims = (await at.admin.list(CLAIM, NS, labels=names.INSTANCE)).items
        assert [
            c["metadata"]["name"] for c in claims if not c["metadata"].get("deletionTimestamp")
        ] == [f"{kept['metadata']['name']}-pgdata"]

    on_bench(body)


def leader_list(timeline: int) -> bytes:
    return json.dumps([{"Role": "Leader", "State": "running", "TL": timeline}]).encode()


def asked(value: str, **more: str) -> dict[str, Any]:
    return {
        "metadata": {"annotations": {names.TRIGGER_SWITCHOVER: value}},
        "spec": {"patroni": {"switchover": {"enabled": True} | more}},
    }


def test_a_switchover_stores_the_timeline_first_and_happens_once() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        at.answer = lambda argv: (
            leader_list(3) if argv[1] == "list" else b"Successfully switched over to x"
        )
        target = at.instances[1]
        await at.patch(asked("now", targetInstance=target.name))
        await at.reconcile()
        assert at.status["patroni"]["switchoverTimeline"] == 3
        assert programs(at.ran) == ["patronictl list"]
        at.ran.clear()
        await at.reconcile()
        assert programs(at.ran) == ["patronictl list", "patronictl switchover"]
        assert f"--candidate={target.pod_name}" in at.ran[-1][1]
        assert at.status["patroni"]["switchover"] == "now"
        assert "switchoverTimeline" not in at.status["patroni"]
        at.ran.clear()
        await at.reconcile()
        assert at.ran == []

    on_bench(body)


def test_a_timeline_that_moved_means_that_the_switchover_has_happened() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        at.answer = lambda _argv: leader_list(3)
        await at.patch(asked("now"))
        await at.reconcile()
        at.answer = lambda _argv: leader_list(4)
        at.ran.clear()
        await at.reconcile()
        assert programs(at.ran) == ["patronictl list"]
        assert at.status["patroni"]["switchover"] == "now"

    on_bench(body)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"targetInstance": "hippo-pg-1-none"}, "not found"),
        ({"type": "Failover"}, "TargetInstance required"),
        ({}, "unable to switchover"),
    ],
)
def test_a_switchover_that_cannot_be_stops_the_reconcile(
    request_: dict[str, str], message: str
) -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        at.answer = lambda argv: leader_list(3) if argv[1] == "list" else b"Error: no"
        await at.patch(asked("now", **request_))
        await at.admin.delete(CONFIG_MAP, "hippo-config", NS)
        await at.until(lambda: at.get(CONFIG_MAP, "hippo-config") is None)
        if not request_:
            await at.reconcile()  # this one is refused only when Patroni is asked
        with pytest.raises(Blocked, match=message):
            await at.reconcile()
        assert await at.admin.find(CONFIG_MAP, "hippo-config", NS) is None
        await at.patch({"spec": {"patroni": {"switchover": {"enabled": False}}}})
        await at.reconcile()
        assert await at.admin.find(CONFIG_MAP, "hippo-config", NS)

    on_bench(body)


async def outdated(at: Bench) -> None:
    for each in at.instances:
        await at.revision(each.name, "newer")


def test_a_rolling_update_takes_one_replica_at_a_time_and_the_primary_last() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        at.answer = lambda argv: b"Successfully switched over" if argv[0] == "patronictl" else None
        primary, *replicas = at.instances
        await outdated(at)
        gone: list[str] = []
        for _ in range(2):
            await at.reconcile()
            dying = [
                p
                for p in (await at.admin.list(POD, NS)).items
                if p["metadata"].get("deletionTimestamp")
            ]
            gone += [p["metadata"]["name"] for p in dying]
            assert len(dying) == 1
            await at.reconcile()  # one is away: nothing more may go
            assert (
                len(
                    [
                        p
                        for p in (await at.admin.list(POD, NS)).items
                        if p["metadata"].get("deletionTimestamp")
                    ]
                )
                == 1
            )
            await at.end_of_dying()
            name = gone[-1].removesuffix("-0")
            back = next(each for each in at.instances if each.name == name)
            await at.pod(back, "replica")
        assert gone == [each.pod_name for each in replicas]
        assert at.ran == []
        await at.revision(primary.name, "newer")
        await at.reconcile()
        assert programs(at.ran) == ["patronictl switchover"]
        assert f"--primary={primary.pod_name}" in at.ran[-1][1]
        assert not [
            p
            for p in (await at.admin.list(POD, NS)).items
            if p["metadata"].get("deletionTimestamp")
        ]

    on_bench(body)


def test_pending_restarts_are_in_place_and_the_primarys_comes_first_when_it_waits() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        primary, replica, _ = at.instances
        await at.pod(replica, "replica", pending_restart=True)
        await at.reconcile()
        assert at.ran[-1][1][-2:] == ["--role=replica", "hippo-ha"]
        await at.pod(primary, "master", pending_restart=True)
        await at.reconcile()
        assert at.ran[-1][1][-2:] == ["--role=primary", "hippo-ha"]
        assert not [
            p
            for p in (await at.admin.list(POD, NS)).items
            if p["metadata"].get("deletionTimestamp")
        ]

    on_bench(body)


def scales(at: Bench) -> dict[str, int]:
    runners = at.tools.store.list(STATEFUL_SET, KEY)
    return {r["metadata"]["name"]: r["spec"]["replicas"] for r in runners}


def test_shutdown_stops_the_primary_last_and_starts_it_first() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        primary, *replicas = [each.name for each in at.instances]
        await at.patch({"spec": {"shutdown": True}})
        await at.reconcile()
        assert scales(at) == {primary: 1, "hippo-repo-host": 1} | dict.fromkeys(replicas, 0)
        assert at.status["startupInstance"] == primary
        bouncer = await at.admin.get(DEPLOYMENT, "hippo-pgbouncer", NS)
        assert bouncer["spec"]["replicas"] == 0
        for name in replicas:
            await at.remove_pod(f"{name}-0")
        await at.reconcile()
        assert scales(at) == {primary: 0, "hippo-repo-host": 1} | dict.fromkeys(replicas, 0)
        await at.remove_pod(f"{primary}-0")
        await at.reconcile()
        assert set(scales(at).values()) == {0}
        await at.patch({"spec": {"shutdown": False}})
        await at.reconcile()
        assert scales(at) == {primary: 1, "hippo-repo-host": 1} | dict.fromkeys(replicas, 0)
        await at.pod(next(each for each in at.instances if each.name == primary), "master")
        await at.reconcile()
        assert set(scales(at).values()) == {1}
        assert "startupInstance" not in at.status

    on_bench(body)


def test_without_a_primary_shutdown_stops_nothing() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.pod(at.instances[0], "replica")
        await at.patch({"spec": {"shutdown": True}})
        await at.reconcile()
        assert set(scales(at).values()) == {1}

    on_bench(body)


def test_deletion_stops_replicas_then_the_primary_then_forgets_patronis_records() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        primary, *replicas = at.instances
        await at.admin.delete(POSTGRES_CLUSTER, "hippo", NS)
        await at.until(lambda: bool(at.hippo["metadata"].get("deletionTimestamp")))
        await at.reconcile()
        found = scales(at)
        assert found[primary.name] == 1
        assert {found[each.name] for each in replicas} == {0}
        for each in replicas:
            await at.remove_pod(each.pod_name)
        await at.reconcile()
        assert scales(at)[primary.name] == 0
        assert await at.admin.find(ENDPOINTS, "hippo-ha", NS)
        await at.remove_pod(primary.pod_name)
        await at.reconcile()
        assert await at.admin.find(ENDPOINTS, "hippo-ha", NS) is None
        assert await at.admin.find(POSTGRES_CLUSTER, "hippo", NS) is None

    on_bench(body)


def test_two_pods_labelled_primary_are_both_left_running() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        _, second, third = at.instances
        await at.pod(second, "master")
        await at.remove_pod(third.pod_name)
        await at.admin.delete(POSTGRES_CLUSTER, "hippo", NS)
        await at.until(lambda: bool(at.hippo["metadata"].get("deletionTimestamp")))
        await at.reconcile()
        assert scales(at)[second.name] == 1

    on_bench(body)


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
        again = await at.reconcile()
        assert again is not None
        assert 10 < again <= 15
        assert (await at.admin.list(JOB, NS)).items == []
        monkeypatch.setattr("pytest_pgo_eks.local.operator.backups.FIRST_BACKUP_PATIENCE_S", 0.0)
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


def test_a_size_that_the_storage_refuses_is_reported_and_stops_nothing() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        sets = at.hippo["spec"]["instances"]
        sets[0]["dataVolumeClaimSpec"]["resources"]["requests"]["storage"] = "512Mi"
        await at.patch({"spec": {"instances": sets, "proxy": None}})
        await at.reconcile()
        assert "PersistentVolumeError" in {reason for reason, _ in await at.events()}
        found = at.condition("PersistentVolumeResizing")
        assert found is not None
        assert found[0] == "False"
        assert await at.admin.find(DEPLOYMENT, "hippo-pgbouncer", NS) is None
        sets[0]["dataVolumeClaimSpec"]["resources"]["requests"]["storage"] = "1Gi"
        await at.patch({"spec": {"instances": sets}})
        await at.reconcile()
        assert at.condition("PersistentVolumeResizing") is None

    on_bench(body)


def test_a_paused_cluster_is_left_alone() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.patch({"spec": {"paused": True, "proxy": None}})
        await at.reconcile()
        assert at.condition("Progressing") == ("False", "Paused")
        assert await at.admin.find(DEPLOYMENT, "hippo-pgbouncer", NS)
        await at.patch({"spec": {"paused": None}})
        await at.reconcile()
        assert at.condition("Progressing") is None
        assert await at.admin.find(DEPLOYMENT, "hippo-pgbouncer", NS) is None
        assert at.status["proxy"] == {"pgBouncer": {}}

    on_bench(body)


def test_a_missing_image_stops_everything_and_says_so() -> None:
    async def body(at: Bench) -> None:
        await at.create(postgresVersion=18)
        await at.reconcile()
        assert (
            "MissingRequiredImage",
            "Missing required images: crunchy-postgres:18",
        ) in await at.events()
        assert (await at.admin.list(SERVICE, NS)).items == []

    on_bench(body)


def test_a_step_that_fails_still_leaves_the_status_written() -> None:
    async def body(at: Bench) -> None:
        await at.create()
        await at.reconcile()
        await at.run_pods()
        at.answer = lambda argv: 3 if argv[0] == "psql" else None
        with pytest.raises(CommandFailed, match="exit code 3: refused"):
            await at.reconcile()
        assert at.status["patroni"]["systemIdentifier"]
        assert "usersRevision" not in at.status

    on_bench(body)


def test_a_server_without_pgaudit_runs_without_it_and_says_so() -> None:
    async def body(at: Bench) -> None:
        object.__setattr__(at.tools, "pgaudit", lambda _major: False)
        await at.create()
        await at.reconcile()
        config = await at.admin.get(CONFIG_MAP, "hippo-config", NS)
        assert "pgaudit" not in config["data"]["patroni.yaml"]
        await at.run_pods()
        await at.reconcile()
        assert "pgAuditDisabled" in {reason for reason, _ in await at.events()}
        assert at.status["databaseRevision"]

    on_bench(body)


def test_5_8_status_and_rights() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        assert "postgresVersion" not in at.status
        assert at.status["monitoring"] == {"exporterConfiguration": "559c4c97d6"}

    on_bench(body, "5.8")


def test_two_clusters_share_the_namespaces_authority() -> None:
    async def body(at: Bench) -> None:
        await at.create()
        await at.reconcile()
        other = await at.admin.get(POSTGRES_CLUSTER, "hippo", NS)
        rhino = {
            "apiVersion": other["apiVersion"],
            "kind": other["kind"],
            "metadata": {"name": "rhino"},
            "spec": other["spec"],
        }
        await at.admin.create(POSTGRES_CLUSTER, rhino, NS)
        await at.until(lambda: (NS, "rhino") in at.tools.store.clusters.items)
        from pytest_pgo_eks.local.operator.reconcile import reconcile

        root = at.tools.store.root(NS)
        assert root is not None
        await reconcile(at.tools, (NS, "rhino"))
        both = at.tools.store.root(NS)
        assert both is not None
        assert both["data"] == root["data"]
        owners = {o["name"] for o in both["metadata"]["ownerReferences"]}
        assert owners == {"hippo", "rhino"}

    on_bench(body)
