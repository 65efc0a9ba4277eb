"""The operator as a pod of the stand-in cluster, with real Patroni and PostgreSQL under it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.pgo import PostgresCluster, available_postgres

from . import facts
from .hippos import manifest

pytestmark = pytest.mark.cluster

NS = "operator-life"
P = facts.P


def conditions(obj: Obj) -> dict[str, str]:
    found = (obj.get("status") or {}).get("conditions") or []
    return {c["type"]: c["status"] for c in found}


def test_the_live_objects_are_those_of_the_table(
    standin: ClusterHandle, standin_postgres: PostgresCluster
) -> None:
    namespace = standin_postgres.namespace
    with Kube(standin.kubeconfig) as kube:
        eventually(
            lambda: conditions(kube.get("PostgresCluster", "hippo", namespace)),
            accept=lambda found: found.get("PGBackRestReplicaCreate") == "True",
            within_s=90,
            what="the first backup",
        )
        missing = []
        for kind, name in facts.LABELS:
            if any(each in name for each in facts.INSTANCES) or kind == "Job":
                continue
            found = kube.find(kind, name, namespace)
            if found is None:
                missing.append((kind, name))
                continue
            managers = {
                m["manager"]
                for m in found["metadata"].get("managedFields") or []
                if not m.get("subresource")
            }
            assert "postgrescluster-controller" in managers, (kind, name)
        assert missing == []
        for name in ("hippo-ha", "hippo-ha-config", "hippo-ha-sync"):
            record = kube.get("Endpoints", name, namespace)
            assert record["metadata"]["labels"] == {
                f"{P}cluster": "hippo",
                f"{P}patroni": "hippo-ha",
            }
            assert "ownerReferences" not in record["metadata"]
        leader = kube.get("Service", "hippo-ha", namespace)["spec"]["clusterIP"]
        primary = kube.get("Endpoints", "hippo-primary", namespace)
        assert primary["subsets"][0]["addresses"] == [{"ip": leader}]


class Life:
    """One PostgresCluster with a single instance, in a namespace of its own."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
        found = manifest()
        found["metadata"]["namespace"] = NS
        spec = found["spec"]
        spec["postgresVersion"] = available_postgres(kube)[-1]
        spec["instances"][0]["replicas"] = 1
        spec["patroni"] |= {"leaderLeaseDurationSeconds": 20, "syncPeriodSeconds": 2}
        del spec["backups"], spec["instances"][0]["topologySpreadConstraints"]
        kube.apply(found)

    def change(self, patch: Obj) -> None:
        self.kube.patch("PostgresCluster", "hippo", NS, patch)

    @property
    def obj(self) -> Obj:
        return self.kube.get("PostgresCluster", "hippo", NS)

    def pods(self) -> list[Obj]:
        return self.kube.list("Pod", NS, labels={f"{P}data": "postgres"})

    def until(self, look: Callable[[], Any], accept: Callable[[Any], bool], what: str) -> Any:
        return eventually(look, accept=accept, within_s=60, what=what, successes=1)

    def sql(self, text: str) -> str:
        (pod,) = self.pods()
        done = self.kube.exec(
            NS, pod["metadata"]["name"], ["psql", "-XAtc", text], container="database"
        )
        assert done.exit_status == 0, done.stderr
        return done.stdout.decode().strip()

    def settled(self) -> None:
        """Wait until everything declared is there and the operator has seen it."""

        def accept(found: Obj) -> bool:
            status = found.get("status") or {}
            (counts,) = status.get("instances") or [{}]
            return bool(
                status.get("observedGeneration") == found["metadata"]["generation"]
                and counts.get("readyReplicas") == counts.get("updatedReplicas") == 1
                and status.get("usersRevision")
                and conditions(found).get("ProxyAvailable") == "True"
            )

        self.until(lambda: self.obj, accept, "the cluster to settle")


@pytest.fixture(scope="module")
def life(standin: ClusterHandle) -> Iterator[Life]:
    with Kube(standin.kubeconfig) as kube:
        made = Life(kube)
        made.settled()
        yield made
        if kube.find("PostgresCluster", "hippo", NS):
            kube.delete("PostgresCluster", "hippo", NS)
        kube.delete("Namespace", NS)


def test_users_and_databases_are_made_and_changed(life: Life) -> None:
    assert life.sql("SELECT rolreplication FROM pg_roles WHERE rolname = 'replicator'") == "t"
    users = [*life.obj["spec"]["users"], {"name": "zoe", "databases": ["zoo"]}]
    life.change({"spec": {"users": users}})
    look = "SELECT count(*) FROM pg_database WHERE datname = 'zoo'"
    life.until(lambda: life.sql(look), lambda found: found == "1", "the new database")
    secret = life.until(
        lambda: life.kube.find("Secret", "hippo-pguser-zoe", NS), bool, "the user's Secret"
    )
    assert secret["metadata"]["labels"][f"{P}pguser"] == "zoe"


def test_a_parameter_arrives_with_a_restart_only_where_it_needs_one(life: Life) -> None:
    before = life.sql("SELECT pg_postmaster_start_time()")
    (pod,) = life.pods()
    set_to = {"work_mem": "7MB"}
    path = {"spec": {"patroni": {"dynamicConfiguration": {"postgresql": {"parameters": set_to}}}}}
    life.change(path)
    life.until(lambda: life.sql("SHOW work_mem"), lambda found: found == "7MB", "the reload")
    assert life.sql("SELECT pg_postmaster_start_time()") == before
    set_to["max_connections"] = "77"
    life.change(path)
    life.until(
        lambda: (
            life.kube.exec(
                NS,
                pod["metadata"]["name"],
                ["psql", "-XAtc", "SHOW max_connections"],
                container="database",
            ).stdout
        ),
        lambda found: found == b"77\n",
        "the restart in place",
    )
    assert life.sql("SELECT pg_postmaster_start_time()") != before
    (same,) = life.pods()
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert not any(c["restartCount"] for c in same["status"]["containerStatuses"])


def test_a_pause_of_patroni_is_taken_back(life: Life) -> None:
    (pod,) = life.pods()
    done = life.kube.exec(
        NS, pod["metadata"]["name"], ["patronictl", "pause"], container="database"
    )
    assert done.exit_status == 0, done.stderr

    def paused() -> bool:
        record = life.kube.get("Endpoints", "hippo-ha-config", NS)
        return bool(json.loads(record["metadata"]["annotations"]["config"]).get("pause"))

    life.until(paused, lambda found: not found, "the operator to take the pause back")


def test_shutdown_and_start_keep_the_data(life: Life) -> None:
    life.sql("CREATE TABLE kept AS SELECT 42 AS n")
    identifier = life.obj["status"]["patroni"]["systemIdentifier"]
    life.change({"spec": {"shutdown": True}})
    life.until(life.pods, lambda found: found == [], "the instance to stop")
    assert life.obj["status"]["startupInstance"]
    life.change({"spec": {"shutdown": False}})
    life.until(
        lambda: life.obj["status"],
        lambda found: (
            found["instances"][0].get("readyReplicas") == 1 and "startupInstance" not in found
        ),
        "the instance to start",
    )
    assert life.sql("SELECT n FROM kept") == "42"
    assert life.obj["status"]["patroni"]["systemIdentifier"] == identifier


def test_deleting_the_cluster_leaves_nothing(life: Life) -> None:
    life.kube.delete("PostgresCluster", "hippo", NS)
    kinds = ("PostgresCluster", "StatefulSet", "Deployment", "Pod", "PersistentVolumeClaim")

    def left() -> list[str]:
        found = [f"{k}/{o['metadata']['name']}" for k in kinds for o in life.kube.list(k, NS)]
        for kind in ("Secret", "ConfigMap", "Endpoints", "Service"):
            found += [
                f"{kind}/{o['metadata']['name']}"
                for o in life.kube.list(kind, NS)
                if o["metadata"]["name"].startswith(("hippo", "pgo-"))
            ]
        return found

    life.until(left, lambda found: found == [], "everything of the cluster to go")
