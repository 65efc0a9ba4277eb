"""The one registry of tags: every tag a shipped feature may carry, with its meaning.

They are ordinary pytest markers (``-m``, ``--markers``), so a plain pytest test may carry them
too. A tag that is in neither this registry nor the user's ``markers`` is a collection error.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_pgo_eks.pattern import REQUIREMENTS

LEVELS = {
    "smoke": (0, "importance level 0: is there anything at all?"),
    "level-0": (0, "importance level 0, the same as smoke"),
    "level-1": (1, "importance level 1: without this nobody would use it"),
    "level-2": (2, "importance level 2: the promises under ordinary faults (the default)"),
    "level-3": (3, "importance level 3: rarer faults and longer waits"),
    "level-4": (4, "importance level 4: everything, also what takes hours"),
}
DEFAULT_LEVEL = 2

AREAS = {
    "deployment": "area: the operator and what it creates",
    "access": "area: who may log in, and how",
    "routing": "area: Services lead where they say",
    "replication": "area: streaming, synchronous standbys, lag",
    "failover": "area: a primary goes away and another leads",
    "backup": "area: backup and restore",
    "scaling": "area: instances and volumes come and go",
    "upgrade": "area: minor and major upgrades of PostgreSQL, PGO and Kubernetes",
    "eks": "area: what only Amazon EKS has",
    "security": "area: rights, encryption and network rules of the cluster",
    "diagnosis": "area: what explains trouble is there and tells it",
}

# What a cluster can do. A scenario's tag asks for it; where it is missing the scenario is skipped
# with the sentence behind it as the reason.
CAPABILITIES = {
    "zones": "nodes in three zones",
    "network-policy": "NetworkPolicies are enforced",
    "node-drain": "a node can be drained",
    "node-loss": "a node can be taken away without warning",
    "zone-loss": "a whole zone can be taken away",
    "partition": "a pod can be cut off the network",
    "one-way-partition": "a pod can be cut off in one direction",
    "packet-reset": "packets can be answered by resets",
    "node-partition": "a node can be cut off the network",
    "packet-loss": "packets can be dropped at random",
    "delay": "packets can be delayed",
    "clock-shift": "the clock of one instance's node can be set",
    "limited-volumes": "a volume is as big as its claim, so that filling one harms nobody else",
    "volume-expansion": "persistent volumes can grow",
    "volume-snapshots": "persistent volumes can be snapshotted",
    "load-balancer": "Services of type LoadBalancer get an address",
    "metrics": "the metrics API is served",
    "privileged-pods": "privileged pods are admitted",
    "operator-upgrade": "another release of the operator was named (--pgo-upgrade-to)",
    "object-store": "there is an S3 bucket to write backups to",
    "real-pgo": "the operator is the real PGO",
    "real-kubernetes": "the control plane and kubelets are Kubernetes' own",
    "real-eks": "the cluster runs on Amazon EKS",
    "aws-faults": "AWS may be asked to break things (--pgo-allow-aws-faults)",
}

# These need at least one replica in the PostgresCluster under test.
NEED_REPLICAS = frozenset({"failover", "replication", "routing"})

DISRUPTIVE = "disruptive"
_OTHERS = {
    "pgbouncer": "asks PgBouncer, which a PostgresCluster of your own may not have",
    DISRUPTIVE: "has the cluster to itself, and proves it healthy before and after",
}


def marker_lines() -> list[str]:
    """Return the registry as pytest's ``markers`` lines."""
    lines = [f"{name}: {text}" for name, (_, text) in LEVELS.items()]
    lines += [f"{name}: {text}" for name, text in AREAS.items()]
    lines += [f"{name}: needs a cluster where {text}" for name, text in CAPABILITIES.items()]
    lines += [f"{name}: {text}" for name, text in _OTHERS.items()]
    lines += [f"{name}: shows what the pattern says: {text}" for name, text in REQUIREMENTS.items()]
    return [f"{line} (pgo)" for line in lines]


def level(tags: Iterable[str]) -> int:
    """Return the importance level: the lowest that the tags name, 2 where they name none."""
    named = [LEVELS[tag][0] for tag in tags if tag in LEVELS]
    return min(named, default=DEFAULT_LEVEL)


def needed(tags: Iterable[str]) -> list[str]:
    """Return the capabilities that the tags ask for, in the registry's order."""
    asked = set(tags)
    return [name for name in CAPABILITIES if name in asked]


def names() -> frozenset[str]:
    """Return every registered tag."""
    return frozenset({*LEVELS, *AREAS, *CAPABILITIES, *_OTHERS, *REQUIREMENTS})
