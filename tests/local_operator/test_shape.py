"""What the stand-in operator, Patroni and the controllers leave behind, against the shape of the real thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.pgo import PostgresCluster

from .shape import differences, shapes

_KINDS = (
    "ConfigMap",
    "apps/v1/Deployment",
    "Endpoints",
    "batch/v1/Job",
    "PersistentVolumeClaim",
    "Pod",
    "policy/v1/PodDisruptionBudget",
    "PostgresCluster",
    "rbac.authorization.k8s.io/v1/Role",
    "rbac.authorization.k8s.io/v1/RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
    "apps/v1/StatefulSet",
)
_ALSO = ("pgo-root-cacert",)
# The table knows one user with a database; ours has two, of the same shape.
_USER, _OTHER = "app", "hippo-pguser-replicator"

# What the stand-in does otherwise, and why. One that has ceased to differ has to go from here.
_KNOWN = {
    "Role/hippo-pgbackrest › rules": "its backup Job execs over a WebSocket, which is a get",
    "StatefulSet/hippo-SET-INST › pod › containers › database › environment": "no nss_wrapper",
    "StatefulSet/hippo-SET-INST › pod › containers › pgbackrest › environment": "no nss_wrapper",
    "StatefulSet/hippo-repo-host › pod › containers › pgbackrest › environment": "no nss_wrapper",
}
# Ours runs one PgBouncer, and PGO makes no budget for one pod.
_OF_TWO_POOLERS = "PodDisruptionBudget/hippo-pgbouncer"


def facts(release: str) -> dict[str, Any]:
    path = Path(__file__).with_name("facts.d") / f"{release}.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


def live(kube: Kube, namespace: str) -> dict[str, Any]:
    found = [
        one
        for kind in _KINDS
        for one in kube.list(kind, namespace)
        if one["metadata"]["name"].startswith("hippo") or one["metadata"]["name"] in _ALSO
        if one["metadata"]["name"] != _OTHER
    ]
    return shapes(found, cluster="hippo", users=[_USER])


@pytest.mark.cluster
def test_what_is_made_has_the_shape_of_the_real_thing(
    standin: ClusterHandle, standin_postgres: PostgresCluster
) -> None:
    with Kube(standin.kubeconfig) as kube:
        namespace = standin_postgres.namespace

        def complete() -> bool:
            cluster = kube.get("PostgresCluster", "hippo", namespace)
            conditions = {one["type"] for one in cluster["status"].get("conditions") or []}
            sync = kube.find("Endpoints", "hippo-ha-sync", namespace)
            return "PGBackRestReplicaCreate" in conditions and sync is not None

        eventually(complete, accept=bool, within_s=90, what="the cluster to be whole")
        expected = facts("6.0")
        del expected[_OF_TWO_POOLERS]
        found = differences(expected, live(kube, namespace))
    unknown = [line for line in found if line.partition(": PGO ")[0] not in _KNOWN]
    assert not unknown, "\n" + "\n".join(unknown)
    stale = _KNOWN.keys() - {line.partition(": PGO ")[0] for line in found}
    assert not stale, f"no difference any more: {sorted(stale)}"


def test_every_difference_is_told_at_once() -> None:
    expected = facts("6.0")
    seen = facts("6.0")
    del seen["Service/hippo-ha"]
    seen["Secret/hippo-USER"] = {"keys": "a"}
    seen["Service/hippo-pods"]["labels"]["P/cluster"] = "other"
    seen["PostgresCluster/hippo"]["conditions"].popitem()
    told = differences(expected, seen)
    assert len(told) == 4
    assert told[0].startswith("PostgresCluster/hippo › conditions › ")
    assert told[1] == "Secret/hippo-USER: PGO has no such thing, here is {'keys': 'a'}"
    assert told[2].startswith("Service/hippo-ha: missing")
    assert told[3] == "Service/hippo-pods › labels › P/cluster: PGO has 'hippo', here is 'other'"
