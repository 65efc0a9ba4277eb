"""What the AWS pattern promises, by row: the requirement ids that features cite and reports list.

``S1`` … ``S18`` are its steps in their order, ``C1`` … ``C9`` the claims made for the architecture.
A feature, rule or scenario carries them as tags (``@S10 @C2``).
"""

from __future__ import annotations

from collections.abc import Iterable

STEPS = {
    "S1": "an IAM role for the cluster with its three policies",
    "S2": "an EKS cluster over three zones with EC2 nodes",
    "S3": "the nodes are there and ready",
    "S4": "an OIDC provider for the cluster",
    "S5": "a role for the EBS CSI driver's service account",
    "S6": "the EBS CSI add-on",
    "S7": "PGO's manifests, with the role on its service account",
    "S8": "PGO installed: namespace, access rules, custom resources, manager",
    "S9": "PGO runs and its volumes are bound",
    "S10": "a PostgresCluster of three instances, synchronous, with the declared users and rules",
    "S11": "instances, roles and Services are visible",
    "S12": "rows are written on the primary",
    "S13": "a replica shows what was written",
    "S14": "the architecture holds: three zones, primary and replicas, PgBouncer, Patroni, operator",
    "S15": "the claims made for the architecture hold",
    "S16": "best practices: least access, network policies, TLS, resources, zones, backups, monitoring",
    "S17": "troubleshooting: what explains pods, lag and broken replication is there",
    "S18": "a cluster that already exists is adopted",
}

CLAIMS = {
    "C1": "automated deployment through custom resources",
    "C2": "automatic failover",
    "C3": "synchronous replication",
    "C4": "automated backup and restore",
    "C5": "scaling by adding replicas",
    "C6": "rolling version upgrades with little downtime",
    "C7": "encryption",
    "C8": "access control",
    "C9": "authentication",
}

REQUIREMENTS = {**STEPS, **CLAIMS}


def requirements(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the requirement ids among ``tags``, in the registry's order.

    Whoever shows a claim shows ``S15``, which says that the claims hold.
    """
    named = set(tags)
    if not named.isdisjoint(CLAIMS):
        named.add("S15")
    return tuple(name for name in REQUIREMENTS if name in named)
