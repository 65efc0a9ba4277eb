"""Names, labels and annotations of PGO 5.7 to 6.0, in one place.

The pod of the leader is labelled ``master`` by every version seen; ``primary`` is accepted for
other builds. The Service's label is ``primary`` all the same.
"""

from __future__ import annotations

from typing import Any

GROUP = "postgres-operator.crunchydata.com"
KIND = "PostgresCluster"
CRD = f"postgresclusters.{GROUP}"

CLUSTER = f"{GROUP}/cluster"
CONTROL_PLANE = f"{GROUP}/control-plane"
DATA = f"{GROUP}/data"
INSTANCE = f"{GROUP}/instance"
INSTANCE_SET = f"{GROUP}/instance-set"
PATRONI = f"{GROUP}/patroni"
PGUSER = f"{GROUP}/pguser"
ROLE = f"{GROUP}/role"
SWITCHOVER = f"{GROUP}/trigger-switchover"
# The key has no prefix.
STATUS = "status"

LEADER_LABELS = frozenset({"master", "primary"})
REPLICA_LABEL = "replica"
DATABASE = "database"


def labels(one: dict[str, Any]) -> dict[str, str]:
    """Return an object's labels."""
    found: dict[str, str] = one["metadata"].get("labels") or {}
    return found


def notes(one: dict[str, Any]) -> dict[str, str]:
    """Return an object's annotations."""
    found: dict[str, str] = one["metadata"].get("annotations") or {}
    return found


def is_instance_pod(pod: dict[str, Any], cluster: str) -> bool:
    """Say whether ``pod`` is a PostgreSQL instance of ``cluster``."""
    found = labels(pod)
    return found.get(CLUSTER) == cluster and INSTANCE in found and found.get(DATA) == "postgres"
