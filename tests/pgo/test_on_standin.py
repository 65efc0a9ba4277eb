"""Verified, observed and judged: the real Patroni and PostgreSQL under the stand-in's operator."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.pgo import (
    PostgresCluster,
    available_postgres,
    findings,
    missing,
    prove_healthy,
    render,
    verify,
)
from pytest_pgo_eks.pgo import __main__ as printing
from pytest_pgo_eks.pgo.manifest import declared
from pytest_pgo_eks.secrets import Secret
from pytest_pgo_eks.settings import Settings

pytestmark = pytest.mark.cluster


def test_the_operator_says_that_it_stands_in(standin_postgres: PostgresCluster) -> None:
    found = verify(standin_postgres.kube, standin_postgres.namespace, within_s=30)
    assert found.stand_in
    assert found.release.series == "6.0"
    assert found.lease_holder


def test_the_manifest_that_is_printed_names_a_postgresql_of_the_cluster(
    standin: ClusterHandle,
    standin_postgres: PostgresCluster,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(standin.kubeconfig))
    assert printing.main(["--namespace", "elsewhere"]) == 0
    text = capsys.readouterr().out
    assert "start-fast: 'y'" in text, "kubectl would take y for a boolean"
    manifest = yaml.safe_load(text)
    assert manifest["spec"]["postgresVersion"] in available_postgres(standin_postgres.kube)
    assert manifest["metadata"]["namespace"] == "elsewhere"
    assert printing.main(["--kubeconfig", "/nowhere/kubeconfig"]) == 4
    assert "/nowhere/kubeconfig cannot be used" in capsys.readouterr().err


def test_the_three_witnesses_agree_in_a_quiet_cluster(standin_postgres: PostgresCluster) -> None:
    prove_healthy(standin_postgres, within_s=60)
    seen = standin_postgres.observe(sql=True)
    assert missing(seen, declared(standin_postgres.object())) == []
    assert all(one.agree for one in seen.roles())
    assert len({one.zone for one in seen.instances}) == 3
    assert seen.leader is not None
    assert seen.writable == (seen.leader.leader,)
    assert seen.config["ttl"] == standin_postgres.lease_s == 20
    assert {one.outcome for one in findings(standin_postgres)} == {"holds"}


def test_watches_show_what_requests_show(standin_postgres: PostgresCluster) -> None:
    prove_healthy(standin_postgres, within_s=60)
    standin_postgres.watched()
    before = standin_postgres.kube.requests
    watched = standin_postgres.watched()
    assert standin_postgres.kube.requests == before
    assert standin_postgres.observe().difference(watched) == []


def test_patroni_and_postgresql_tell_the_same_story(standin_postgres: PostgresCluster) -> None:
    prove_healthy(standin_postgres, within_s=60)
    seen = standin_postgres.observe(sql=True)
    members = {one.name: one for one in standin_postgres.patroni().members()}
    assert set(members) == {one.pod for one in seen.instances}
    assert seen.leader is not None
    primary = seen.servers[str(seen.leader.leader)]
    assert members[primary.pod].role == "Leader"
    assert seen.sync is not None
    synchronous = {one.application_name for one in primary.senders if one.is_synchronous}
    assert set(seen.sync.standbys) == synchronous
    assert standin_postgres.patroni().configuration()["synchronous_mode"] is True
    assert len(standin_postgres.patroni().history()) == len(seen.history)
    view = standin_postgres.server(primary.pod)
    assert view.settings("wal_level")["wal_level"].value == "logical"
    assert view.roles()["replicator"].can_replicate
    assert "testdb" in view.databases()


def test_an_applications_secret_stays_masked(standin_postgres: PostgresCluster) -> None:
    secret = standin_postgres.user_secret("app")
    assert isinstance(secret["password"], Secret)
    assert secret["password"] not in repr(secret)
    assert secret["host"] == standin_postgres.host("primary")
    assert standin_postgres.certificate_authority().startswith("-----BEGIN CERTIFICATE-----")


@pytest.fixture
def spoiled(standin_postgres: PostgresCluster) -> Iterator[tuple[PostgresCluster, dict[str, Any]]]:
    """A second PostgresCluster in a namespace of its own, not applied yet."""
    kube = standin_postgres.kube
    namespace = f"spoiled-{os.getpid()}"
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    manifest = copy.deepcopy(
        render(Settings("local", namespace=namespace), available=available_postgres(kube))
    )
    manifest["metadata"]["name"] = "spoiled"
    manifest["spec"]["instances"][0]["replicas"] = 2
    cluster = PostgresCluster(kube, namespace, "spoiled")
    yield cluster, manifest
    cluster.delete(within_s=60)
    cluster.close()
    kube.delete("Namespace", namespace)


def test_a_cluster_that_cannot_come_up_tells_why_long_before_its_time_is_over(
    spoiled: tuple[PostgresCluster, dict[str, Any]],
) -> None:
    cluster, manifest = spoiled
    manifest["spec"]["image"] = "nowhere/postgres:16"
    cluster.apply(manifest)
    with pytest.raises(Inconclusive, match="image nowhere/postgres:16 cannot be pulled") as caught:
        cluster.wait_ready(within_s=120, grace_scale=0.3)
    assert "gave up after" in str(caught.value)
