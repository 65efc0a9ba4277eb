"""The lines of pg_hba.conf in the operator's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.desired import Cluster

DEFAULT = 'hostssl all all all "scram-sha-256"'


def lines(cluster: Cluster) -> list[str]:
    """Return mandatory lines, then the user's, or the TLS-only default where the user gave none.

    Order matters: PostgreSQL takes the first line that fits. Lines that include other files are
    dropped, as PGO does since 5.8.
    """
    repl, bouncer = names.REPLICATION_USER, names.PGBOUNCER_USER
    found = [
        'local all "postgres" "peer"',
        f'hostssl replication "{repl}" all "cert"',
        f'hostssl "postgres" "{repl}" all "cert"',
        f'host all "{repl}" all "reject"',
    ]
    if cluster.pgbouncer is not None:
        found += [
            f'hostssl all "{bouncer}" all "scram-sha-256"',
            f'host all "{bouncer}" all "reject"',
        ]
    rules = (cluster.spec.get("authentication") or {}).get("rules") or []
    given = [_rule(rule) for rule in rules]
    dynamic = (cluster.patroni.get("dynamicConfiguration") or {}).get("postgresql") or {}
    given += [line for line in dynamic.get("pg_hba") or [] if isinstance(line, str)]
    kept = [line for line in given if line.strip() and not line.lstrip().startswith("include")]
    return found + (kept or [DEFAULT])


def _rule(rule: Mapping[str, Any]) -> str:
    if rule.get("hba"):
        return str(rule["hba"])
    connection = rule["connection"]
    databases = ",".join(_quoted(d) for d in rule.get("databases") or []) or "all"
    users = ",".join(_quoted(u) for u in rule.get("users") or []) or "all"
    parts = [connection, databases, users]
    if connection != "local":
        parts.append("all")
    parts.append(_quoted(rule["method"]))
    parts += [
        f"{name}={_quoted(str(v))}" for name, v in sorted((rule.get("options") or {}).items())
    ]
    return " ".join(parts)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
