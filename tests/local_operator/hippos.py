"""Clusters for tests: ours and the pattern's as they ship, with a UID as the API would give one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.local.operator import (
    backup_jobs,
    certificates,
    instances,
    patroni,
    pgbackrest,
    pgbouncer,
    services,
    tls,
    users,
)
from pytest_pgo_eks.local.operator.desired import Cluster, Images
from pytest_pgo_eks.local.operator.releases import release

FIXTURES = Path(__file__).parents[2] / "fixtures" / "postgres"
IMAGES = Images(
    {"POSTGRES_16": "stand-in/postgres:16", "PGBACKREST": "backrest", "PGBOUNCER": "bouncer"}
)


def manifest(name: str = "cluster") -> Obj:
    found: Obj = yaml.safe_load((FIXTURES / f"{name}.yaml").read_text())
    return found


def cluster(
    name: str = "cluster", version: str = "6.0", *, status: Obj | None = None, **spec: Any
) -> Cluster:
    """Return a cluster from a shipped file; keyword arguments replace fields of its spec."""
    obj = manifest(name)
    obj["metadata"] |= {"uid": "9f2e", "resourceVersion": "1", "generation": 1}
    obj["spec"] |= spec
    obj["status"] = status or {}
    return Cluster(obj, release(version))


def everything(hippo: Cluster, names: tuple[str, ...]) -> dict[tuple[str, str], Obj]:
    """Render every object of a cluster whose only set has the instances ``names``."""
    root = certificates.make_root(tls.now())
    each = hippo.instance_sets[0]
    found = [
        tls.root_secret(hippo, root, None),
        services.pods_service(hippo),
        *services.instance_access(hippo),
        patroni.cluster_config_map(hippo),
        tls.replication_certificate(hippo, root, None),
        services.leader_service(hippo),
        services.primary_service(hippo),
        services.primary_endpoints(hippo, "10.96.7.7"),
        services.replicas_service(hippo),
        tls.cluster_certificate(hippo, root, None),
        services.configuration_service(hippo),
        tls.backrest_certificates(hippo, root, None),
        pgbackrest.config_map(hippo, names),
        *services.backup_access(hippo),
        *services.repo_host_access(hippo),
        pgbackrest.repo_host_set(hippo, IMAGES),
        backup_jobs.replica_create_job(hippo, IMAGES, "hippo-backup-zzzz"),
    ]
    metadata = pgbackrest.repo_claim_metadata(hippo, hippo.repos[0])
    found.append(instances.volume_claim(metadata, hippo.repos[0]["volume"]["volumeClaimSpec"]))
    for name in names:
        found += [
            patroni.instance_config_map(hippo, each, name),
            tls.instance_certificates(hippo, each, name, root, None),
            instances.claim(hippo, each, name),
            instances.stateful_set(hippo, each, name, IMAGES),
        ]
    budget = services.instance_set_budget(hippo, each)
    found += [budget] if budget else []
    found += [users.user_secret(hippo, user, None) for user in hippo.users]
    if hippo.pgbouncer is not None:
        found += [
            services.pgbouncer_service(hippo),
            pgbouncer.own_secret(hippo, root, None),
            pgbouncer.config_map(hippo),
            pgbouncer.deployment(hippo, IMAGES),
        ]
    return {(obj["kind"], obj["metadata"]["name"]): obj for _, obj in found}
