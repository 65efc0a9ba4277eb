"""Databases and users: what is declared becomes SQL, run once per change of that SQL."""

from __future__ import annotations

from pytest_pgo_eks.local.objects import CONFIG_MAP, SECRET
from pytest_pgo_eks.local.operator import names, users
from pytest_pgo_eks.local.operator.context import Pass
from pytest_pgo_eks.local.operator.control import CommandFailed
from pytest_pgo_eks.local.operator.pgbouncer import ALL_DATABASES
from pytest_pgo_eks.local.operator.users import decoded

_LOCAL = "SET synchronous_commit = LOCAL;\nSET client_min_messages = WARNING;\n"
_PGAUDIT = _LOCAL + "CREATE EXTENSION IF NOT EXISTS pgaudit;"


async def reconcile_databases(work: Pass) -> None:
    """Install pgaudit everywhere and create declared databases."""
    cluster = work.cluster
    pgaudit = work.tools.pgaudit(cluster.postgres_version)
    wanted = users.database_sql(cluster)
    revision = names.short_hash(f"{pgaudit}\n{wanted}")
    if cluster.status.get("databaseRevision") == revision:
        return
    instance = work.observed.writable
    if work.replicas_first or instance is None:
        return
    if pgaudit:
        try:
            await work.control.sql_everywhere(instance, ALL_DATABASES, _PGAUDIT)
        except CommandFailed as error:
            await work.warn("pgAuditDisabled", f"Unable to install pgAudit: {error.text}")
            return
    else:
        await work.warn(
            "pgAuditDisabled", f"PostgreSQL {cluster.postgres_version} has no pgaudit on this host"
        )
    if wanted:
        await work.control.sql(instance, _LOCAL + wanted)
    cluster.status["databaseRevision"] = revision


async def reconcile_users(work: Pass) -> None:
    """Keep one Secret per user and make PostgreSQL's roles agree with them."""
    cluster = work.cluster
    existing = work.store.list(SECRET, cluster.key, {names.ROLE: "pguser"})
    verifiers = {}
    for user in cluster.users:
        name = f"{cluster.name}-pguser-{user['name']}"
        rendered = users.user_secret(cluster, user, work.existing(SECRET, name))
        await work.apply(rendered)
        verifiers[user["name"]] = decoded(rendered[1])["verifier"]
    for secret in users.undeclared(cluster, existing):
        await work.store.delete(SECRET, secret)
    wanted = users.user_sql(cluster, verifiers)
    schemas = users.schema_sql(cluster)
    revision = names.short_hash(f"{wanted}\n{schemas}")
    instance = work.observed.writable
    if (
        instance is None
        or cluster.status.get("usersRevision") == revision
        or not cluster.status.get("databaseRevision")
    ):
        return
    if cluster.users:
        await work.control.sql(instance, wanted)
    for database, text in schemas:
        await work.control.sql_in(instance, database, _LOCAL + text)
    cluster.status["usersRevision"] = revision


async def run_init_sql(work: Pass) -> None:
    """Run the user's own SQL once, as superuser; the status remembers from which ConfigMap."""
    cluster = work.cluster
    given = cluster.spec.get("databaseInitSQL")
    if not given:
        cluster.status.pop("databaseInitSQL", None)
        return
    instance = work.observed.writable
    if instance is None or cluster.status.get("databaseInitSQL"):
        return
    source = await work.tools.client.find(CONFIG_MAP, given["name"], cluster.namespace)
    text = ((source or {}).get("data") or {}).get(given["key"])
    if text is None:
        # It is the user's object: no watch tells when it is there.
        work.look_again(5.0)
        return
    await work.control.sql(instance, text)
    cluster.status["databaseInitSQL"] = given["name"]
