"""Reconciles against a real API server: what is written, in which order, and what stops it."""

from __future__ import annotations

import json

import pytest

from pytest_pgo_eks.local.objects import (
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINTS,
    POSTGRES_CLUSTER,
    SECRET,
    SERVICE,
    STATEFUL_SET,
)
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.control import CommandFailed

from .bench import NS, Bench, on_bench, programs, standing


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
        assert at.status["instances"] == [{"name": "pg-1"}]

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


def test_sql_waits_for_the_first_replicas_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(at: Bench) -> None:
        await at.create()
        await at.reconcile()
        await at.run_pods()
        await at.workload_ready(STATEFUL_SET, "hippo-repo-host")
        await at.pod(at.instances[2], "replica", ready=False)
        monkeypatch.setattr("pytest_pgo_eks.local.operator.context.REPLICAS_FIRST_S", 1000.0)
        again = await at.reconcile()
        assert again is not None
        assert "psql" not in programs(at.ran)
        assert at.condition("PGBackRestReplicaRepoReady") == ("True", "StanzaCreated")
        assert await at.admin.find(SECRET, "hippo-pguser-app", NS)
        assert "observedGeneration" not in at.status
        at.ran.clear()
        monkeypatch.setattr("pytest_pgo_eks.local.operator.context.REPLICAS_FIRST_S", 0.0)
        await at.reconcile()
        assert programs(at.ran) == ["bash", "psql", "psql", "bash"]
        assert at.status["observedGeneration"] == 1

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


def test_a_size_that_the_storage_refuses_is_reported_and_stops_nothing() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        # Bound as far as the server cares: what a volume holds cannot be taken back.
        holds = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
        for claim in (await at.admin.list(CLAIM, NS)).items:
            name = claim["metadata"]["name"]
            await at._seen(CLAIM, await at.admin.patch(CLAIM, name, NS, holds, sub="status"))
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


def test_what_the_stand_in_does_not_play_is_said_once_per_change() -> None:
    async def body(at: Bench) -> None:
        await at.create(
            monitoring={"pgmonitor": {"exporter": {}}}, config={"parameters": {"port": 1}}
        )
        await at.reconcile()
        await at.reconcile()
        found = await at.events()
        assert (
            found.count(("NotPlayed", "the stand-in operator does not play spec.monitoring")) == 1
        )
        assert ("InvalidParameter", "not configurable: port") in found
        from pytest_pgo_eks.local.objects import EVENT

        assert {e["count"] for e in (await at.admin.list(EVENT, NS)).items} == {1}

    on_bench(body)


def test_a_users_own_sql_runs_once() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.patch({"spec": {"databaseInitSQL": {"name": "mine", "key": "init.sql"}}})
        assert await at.reconcile() is not None
        assert at.ran == []
        mine = {"metadata": {"name": "mine"}, "data": {"init.sql": "SELECT 1"}}
        await at.admin.create(CONFIG_MAP, mine, NS)
        await at.reconcile()
        await at.reconcile()
        assert programs(at.ran) == ["psql"]
        assert at.status["databaseInitSQL"] == "mine"

    on_bench(body)
