"""One reconcile of one PostgresCluster, in PGO's order of writes."""

from __future__ import annotations

import json
import time

from pytest_pgo_eks.local.objects import (
    ENDPOINTS,
    POSTGRES_CLUSTER,
    SECRET,
    Obj,
    annotations_of,
)
from pytest_pgo_eks.local.operator import names, patroni, services, tls
from pytest_pgo_eks.local.operator.backups import prepare, reconcile_backups, removal_is_blocked
from pytest_pgo_eks.local.operator.context import Blocked, Pass, Tools
from pytest_pgo_eks.local.operator.databases import (
    reconcile_databases,
    reconcile_users,
    run_init_sql,
)
from pytest_pgo_eks.local.operator.desired import Cluster
from pytest_pgo_eks.local.operator.limits import not_played
from pytest_pgo_eks.local.operator.parameters import REFUSED
from pytest_pgo_eks.local.operator.proxy import reconcile_proxy
from pytest_pgo_eks.local.operator.replicas import (
    note_resizing,
    note_shutdown,
    plan,
    reconcile_sets,
    roll_out,
    scale_down,
)
from pytest_pgo_eks.local.operator.status import (
    EXPORTER_REVISION,
    difference,
    instance_statuses,
    remove_condition,
    set_condition,
)
from pytest_pgo_eks.local.operator.stopping import delete_cluster
from pytest_pgo_eks.local.operator.switchover import reconcile_switchover

# From the first member that waits for a restart until all that will have said so.
ALL_SAID_S = 0.5


async def reconcile(tools: Tools, key: tuple[str, str]) -> float | None:
    """Reconcile the cluster once. Returns after how many seconds to look again, None for never.

    The status is written even when a step failed; the failure is raised after that.
    """
    obj = tools.store.clusters.items.get(key)
    if obj is None:
        return None
    cluster = Cluster(obj, tools.release)
    work = Pass(tools, cluster)
    if cluster.deleting:
        await delete_cluster(work)
        return work.again_in_s
    if cluster.paused or removal_is_blocked(work):
        what = "spec.paused is true" if cluster.paused else "Backups removal is not authorized"
        set_condition(cluster, "Progressing", "False", "Paused", what)
        await _write_status(work, obj)
        return None
    remove_condition(cluster, "Progressing")
    if not await _is_valid(work):
        return None
    try:
        if await _steps(work):
            cluster.status["observedGeneration"] = cluster.generation
    except Exception:
        cluster.status["observedGeneration"] = cluster.generation
        await _write_status(work, obj)
        raise
    await _write_status(work, obj)
    return work.again_in_s


async def _is_valid(work: Pass) -> bool:
    """Report what makes a reconcile pointless; a stopped cluster needs no image."""
    cluster = work.cluster
    missing = work.images.missing(cluster)
    if missing and not cluster.shutdown:
        await work.warn_once(
            "MissingRequiredImage", f"Missing required images: {', '.join(missing)}"
        )
        return False
    for name in services.misconfigured(cluster):
        await work.warn(
            "MisconfiguredClusterIP",
            f"NodePort cannot be set with type ClusterIP on Service {name!r}",
        )
        raise Blocked(f"node port on ClusterIP Service {name}")
    given = (cluster.spec.get("config") or {}).get("parameters") or {}
    refused = sorted(set(map(str.lower, given)) & set(REFUSED))
    if refused:
        await work.warn_once("InvalidParameter", f"not configurable: {', '.join(refused)}")
    for field in not_played(cluster.spec):
        await work.warn_once("NotPlayed", f"the stand-in operator does not play {field}")
    standby = cluster.spec.get("standby") or {}
    if standby.get("enabled") and not (standby.get("host") or standby.get("repoName")):
        await work.warn(
            "InvalidStandbyConfiguration", "Standby requires a host or repoName to be enabled"
        )
        raise Blocked("standby without host and repository")
    return True


async def _steps(work: Pass) -> bool:
    """Do everything in order. Returns False after a step that waits for its own status first."""
    cluster = work.cluster
    await _finalizer(work)
    await _root(work)
    _read_patroni(work)
    note_shutdown(work)
    before = (cluster.status.get("patroni") or {}).get("switchoverTimeline")
    await reconcile_switchover(work)
    after = (cluster.status.get("patroni") or {}).get("switchoverTimeline")
    if after is not None and after != before:
        return False
    await work.apply(services.pods_service(cluster))
    for rendered in services.instance_access(cluster):
        await work.apply(rendered)
    await work.apply(patroni.cluster_config_map(cluster, pgaudit=_pgaudit(work)))
    await _certificate(work, "replication")
    await _routes(work)
    await _certificate(work, "cluster")
    await work.apply(services.configuration_service(cluster))
    await _dynamic_configuration(work)
    plan(work)
    await prepare(work)
    await reconcile_sets(work)
    await scale_down(work)
    await roll_out(work)
    await reconcile_databases(work)
    await reconcile_users(work)
    await reconcile_backups(work)
    note_resizing(work)
    await reconcile_proxy(work)
    await run_init_sql(work)
    await _pending_restarts(work)
    return not work.unfinished


def _pgaudit(work: Pass) -> bool:
    return work.tools.pgaudit(work.cluster.postgres_version)


async def _finalizer(work: Pass) -> None:
    cluster = work.cluster
    known = cluster.obj["metadata"].get("finalizers") or []
    if names.FINALIZER not in known:
        patch = {"metadata": {"finalizers": [*known, names.FINALIZER]}}
        await work.store.patch(POSTGRES_CLUSTER, cluster.obj, patch)


async def _root(work: Pass) -> None:
    existing = work.store.root(work.cluster.namespace)
    work.root = tls.root_of(existing)
    await work.apply(tls.root_secret(work.cluster, work.root, existing))


async def _certificate(work: Pass, which: str) -> None:
    """Issue the servers' or the replication certificate, unless the user brings that one."""
    cluster = work.cluster
    kept = work.existing(SECRET, f"{cluster.name}-{which}-cert")
    if which == "cluster":
        if not cluster.spec.get("customTLSSecret"):
            await work.apply(tls.cluster_certificate(cluster, work.root, kept))
    elif not cluster.spec.get("customReplicationTLSSecret"):
        await work.apply(tls.replication_certificate(cluster, work.root, kept))


async def _routes(work: Pass) -> None:
    cluster = work.cluster
    leader = await work.apply(services.leader_service(cluster))
    await work.apply(services.primary_service(cluster))
    await work.apply(services.primary_endpoints(cluster, leader["spec"]["clusterIP"]))
    await work.apply(services.replicas_service(cluster))


def _read_patroni(work: Pass) -> None:
    """Note the system identifier once an instance is ready: from then on there is a database."""
    cluster = work.cluster
    record = work.existing(ENDPOINTS, f"{cluster.patroni_scope}-config")
    status = cluster.status.setdefault("patroni", {})
    identifier = annotations_of(record).get("initialize") if record else None
    if identifier and any(each.ready for each in work.observed.instances):
        status["systemIdentifier"] = identifier


async def _dynamic_configuration(work: Pass) -> None:
    """Replace Patroni's configuration where it is not the wanted one, whoever changed it."""
    cluster = work.cluster
    if not cluster.bootstrapped:
        return
    record = work.existing(ENDPOINTS, f"{cluster.patroni_scope}-config")
    instance = work.observed.running
    if record is None or instance is None:
        return
    wanted = patroni.dynamic_configuration(cluster, pgaudit=_pgaudit(work))
    if _stored(record) != wanted:
        await work.control.replace_configuration(instance, wanted)


def _stored(record: Obj) -> Obj | None:
    try:
        found: Obj = json.loads(annotations_of(record).get("config") or "null")
    except ValueError:
        return None
    return found


async def _pending_restarts(work: Pass) -> None:
    """Restart PostgreSQL in place where Patroni says so: the primary if it waits, else replicas.

    Members take a change within a few hundred milliseconds of each other, and an operator's pass
    on a real cluster takes longer than that. Somebody who looks the moment the first one speaks
    would restart replicas in vain where they cannot have less than their primary.
    """
    waiting = [each for each in work.observed.instances if each.pending_restart]
    runner = work.observed.running
    first_seen, key = work.tools.pending_since, work.cluster.key
    if not waiting or runner is None:
        first_seen.pop(key, None)
        return
    role = "primary" if any(each.primary for each in waiting) else "replica"
    left_s = first_seen.setdefault(key, time.monotonic()) + ALL_SAID_S - time.monotonic()
    if role == "replica" and left_s > 0:
        work.look_again(left_s)
        return
    await work.control.restart_pending(runner, role)
    work.look_again(1.0)


async def _write_status(work: Pass, obj: Obj) -> None:
    cluster = work.cluster
    status = cluster.status
    status["instances"] = instance_statuses(cluster, work.observed)
    status.setdefault("monitoring", {"exporterConfiguration": EXPORTER_REVISION})
    status.setdefault("proxy", {"pgBouncer": {}})
    if cluster.release.status_postgres_version:
        status.setdefault("postgresVersion", 0)
    patch = difference(obj.get("status") or {}, status)
    if patch:
        await work.store.patch(POSTGRES_CLUSTER, obj, {"status": patch}, sub="status")
