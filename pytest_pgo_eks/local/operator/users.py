"""Declared users: their Secrets, and the SQL that makes PostgreSQL agree."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

from pytest_pgo_eks.local.objects import SECRET, Kind, Obj
from pytest_pgo_eks.local.operator import names, passwords
from pytest_pgo_eks.local.operator.desired import Cluster

_PASSWORD_LENGTH = 24
_OWN_SCHEMA = "CREATE SCHEMA IF NOT EXISTS {name} AUTHORIZATION {name};"
_NO_SCHEMA = {"public", "pgbouncer", "monitor"}
# What ALTER ROLE takes besides a password; anything else makes PGO drop the options as a whole.
_OPTION = re.compile(
    r"(?:NO)?(?:SUPERUSER|CREATEDB|CREATEROLE|INHERIT|LOGIN|REPLICATION|BYPASSRLS)"
    r"|CONNECTION\s+LIMIT\s+-?\d+"
    r"|VALID\s+UNTIL\s+'[^']*'"
    r"|(?:ENCRYPTED\s+)?PASSWORD\s+(?:'[^']*'|NULL)",
    re.IGNORECASE,
)


def decoded(secret: Obj | None) -> dict[str, str]:
    """Return the data of a Secret as text."""
    data = (secret or {}).get("data") or {}
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def secret(metadata: Obj, data: Mapping[str, str]) -> tuple[Kind, Obj]:
    """Return an Opaque Secret."""
    return SECRET, {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": metadata,
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }


def user_secret(cluster: Cluster, user: Obj, existing: Obj | None) -> tuple[Kind, Obj]:
    """Return Secret ``hippo-pguser-NAME``.

    A password and verifier that are there are kept, also where they do not fit each other: an
    empty password makes both new, an empty verifier is computed from the password.
    """
    kept = decoded(existing)
    password, verifier = kept.get("password", ""), kept.get("verifier", "")
    if not password:
        kind = (user.get("password") or {}).get("type") or "ASCII"
        password, verifier = passwords.generate(_PASSWORD_LENGTH, kind), ""
    if not verifier:
        verifier = passwords.verifier(password)
    host = f"{cluster.name}-primary.{cluster.namespace}.svc"
    data = {
        "host": host,
        "port": str(cluster.port),
        "user": user["name"],
        "password": password,
        "verifier": verifier,
    }
    databases = user.get("databases") or []
    login = (user["name"], password)
    if databases:
        data["dbname"] = databases[0]
        data["uri"] = _uri(login, host, cluster.port, databases[0])
        data["jdbc-uri"] = _jdbc(login, host, cluster.port, databases[0])
    if cluster.pgbouncer is not None:
        proxy, port = f"{cluster.name}-pgbouncer.{cluster.namespace}.svc", cluster.pgbouncer_port
        data |= {"pgbouncer-host": proxy, "pgbouncer-port": str(port)}
        if databases:
            data["pgbouncer-uri"] = _uri(login, proxy, port, databases[0])
            data["pgbouncer-jdbc-uri"] = _jdbc(login, proxy, port, databases[0], pooled=True)
    own = {names.ROLE: "pguser", names.PGUSER: user["name"]}
    return secret(cluster.metadata(f"{cluster.name}-pguser-{user['name']}", own), data)


def _uri(login: tuple[str, str], host: str, port: int, database: str) -> str:
    user, password = (quote(part, safe="") for part in login)
    return f"postgresql://{user}:{password}@{host}:{port}/{quote(database, safe='')}"


def _jdbc(
    login: tuple[str, str], host: str, port: int, database: str, *, pooled: bool = False
) -> str:
    query = {"password": login[1], "user": login[0]}
    if pooled:
        query["prepareThreshold"] = "0"
    options = urlencode(sorted(query.items()))
    return f"jdbc:postgresql://{host}:{port}/{quote(database, safe='')}?{options}"


def databases(cluster: Cluster) -> list[str]:
    """Return every database that some user has, sorted."""
    return sorted({name for user in cluster.users for name in user.get("databases") or []})


def database_sql(cluster: Cluster) -> str:
    """Return SQL that creates the databases that are missing; nothing is ever dropped."""
    return "\n".join(
        _create("DATABASE %I", "pg_database WHERE datname", name) for name in databases(cluster)
    )


def user_sql(cluster: Cluster, verifiers: Mapping[str, str]) -> str:
    """Return SQL that creates users, sets options and verifiers, and grants their databases.

    It commits locally: with every standby away a new password must still arrive.
    """
    statements = ["SET synchronous_commit = LOCAL;", "BEGIN;"]
    for user in cluster.users:
        name = _identifier(user["name"])
        if user["name"] == "postgres":
            options = "LOGIN SUPERUSER"
        else:
            options = role_options(user.get("options") or "")
        statements.append(_create("ROLE %I LOGIN", "pg_roles WHERE rolname", user["name"]))
        password = _literal(verifiers[user["name"]])
        statements.append(f"ALTER ROLE {name} WITH {options} PASSWORD {password};")
        statements += [
            f"GRANT ALL PRIVILEGES ON DATABASE {_identifier(database)} TO {name};"
            for database in user.get("databases") or []
        ]
    statements.append("COMMIT;")
    return "\n".join(statements)


def schema_sql(cluster: Cluster) -> list[tuple[str, str]]:
    """Return (database, SQL) pairs that make each user's own schema, where that is asked for."""
    if cluster.annotations.get(names.USER_SCHEMA) != "true":
        return []
    return [
        (database, _OWN_SCHEMA.format(name=_identifier(user["name"])))
        for user in cluster.users
        if user["name"] not in _NO_SCHEMA | {"postgres"}
        for database in user.get("databases") or []
    ]


def role_options(text: str) -> str:
    """Return declared role options without a password; empty when they are no such options."""
    rest, found = text.strip(), []
    while rest:
        match = _OPTION.match(rest)
        if match is None or (match.end() < len(rest) and not rest[match.end()].isspace()):
            return ""
        if "PASSWORD" not in match.group().upper():
            found.append(" ".join(match.group().split()))
        rest = rest[match.end() :].lstrip()
    return " ".join(found)


def undeclared(cluster: Cluster, secrets: Sequence[Obj]) -> list[Obj]:
    """Return the user Secrets whose user is no longer declared."""
    wanted = {user["name"] for user in cluster.users}
    return [s for s in secrets if s["metadata"]["labels"].get(names.PGUSER) not in wanted]


def _create(what: str, known: str, name: str) -> str:
    """Return psql input that creates something of this name unless the catalogue knows it."""
    return (
        f"SELECT format('CREATE {what}', {_literal(name)}) WHERE NOT EXISTS "  # noqa: S608
        f"(SELECT 1 FROM pg_catalog.{known} = {_literal(name)}) \\gexec"
    )


def _identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
