"""The stand-in cluster that the harness's own tests share is a whole one."""

from __future__ import annotations

import pytest

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.pgo import PostgresCluster, verify

pytestmark = pytest.mark.cluster


def test_it_says_that_it_is_a_stand_in(standin: ClusterHandle) -> None:
    assert standin.stand_in
    assert "stand-in" in (standin.kubernetes_version or "")
    with Kube(standin.kubeconfig) as kube:
        assert verify(kube, "postgres-operator", within_s=30).stand_in


def test_three_instances_stream(standin_postgres: PostgresCluster) -> None:
    seen = standin_postgres.observe(sql=True)
    assert len(seen.instances) == 3
    assert len(seen.writable) == 1
