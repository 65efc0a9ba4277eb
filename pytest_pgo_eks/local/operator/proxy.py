"""PgBouncer in a reconcile: bring it about, let it in, or take it away."""

from __future__ import annotations

from pytest_pgo_eks.local.objects import (
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
)
from pytest_pgo_eks.local.operator import names, pgbouncer, services
from pytest_pgo_eks.local.operator.context import Pass
from pytest_pgo_eks.local.operator.status import remove_condition, set_condition
from pytest_pgo_eks.local.operator.users import decoded

_AVAILABLE = "ProxyAvailable"


async def reconcile_proxy(work: Pass) -> None:
    cluster = work.cluster
    if cluster.pgbouncer is None:
        await _remove(work)
        return
    name = f"{cluster.name}-pgbouncer"
    await work.apply(services.pgbouncer_service(cluster))
    secret = pgbouncer.own_secret(cluster, work.root, work.existing(SECRET, name))
    await work.apply(secret)
    await work.apply(pgbouncer.config_map(cluster))
    deployed = await work.apply(pgbouncer.deployment(cluster, work.images))
    budget = services.pgbouncer_budget(cluster)
    if budget:
        await work.apply(budget)
    else:
        await work.remove(DISRUPTION_BUDGET, name)
    status = cluster.status.setdefault("proxy", {}).setdefault("pgBouncer", {})
    found = deployed.get("status") or {}
    for field in ("replicas", "readyReplicas"):
        status.pop(field, None)
        if found.get(field):
            status[field] = found[field]
    for condition in found.get("conditions") or []:
        if condition["type"] == "Available":
            set_condition(
                cluster,
                _AVAILABLE,
                condition["status"],
                condition.get("reason", ""),
                condition.get("message", ""),
            )
    await _let_in(work, decoded(secret[1])["pgbouncer-verifier"], status)


async def _let_in(work: Pass, verifier: str, status: dict[str, str]) -> None:
    """Give PgBouncer its role and lookup function in every database, once per change of them."""
    revision = names.short_hash(pgbouncer.ENABLE_SQL + verifier)
    instance = work.observed.writable
    if instance is None or status.get("postgresRevision") == revision or work.replicas_first:
        return
    await work.control.sql_everywhere(
        instance,
        pgbouncer.ALL_DATABASES,
        pgbouncer.ENABLE_SQL,
        f"username={names.PGBOUNCER_USER}",
        "namespace=pgbouncer",
        f"verifier={verifier}",
    )
    status["postgresRevision"] = revision


async def _remove(work: Pass) -> None:
    cluster = work.cluster
    name = f"{cluster.name}-pgbouncer"
    for kind in (DEPLOYMENT, DISRUPTION_BUDGET, CONFIG_MAP, SECRET, SERVICE):
        await work.remove(kind, name)
    remove_condition(cluster, _AVAILABLE)
    proxy = cluster.status.get("proxy", {})
    known = proxy.get("pgBouncer") or {}
    if known.get("postgresRevision"):
        instance = work.observed.writable
        if instance is None:
            return
        await work.control.sql_everywhere(
            instance,
            pgbouncer.ALL_DATABASES,
            pgbouncer.DISABLE_SQL,
            f"username={names.PGBOUNCER_USER}",
            "namespace=pgbouncer",
        )
    # PGO always shows the proxy's status, empty where there is none.
    cluster.status["proxy"] = {"pgBouncer": {}}
