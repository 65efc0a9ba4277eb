"""patronictl's answers as recorded, its refusals, and the cluster's own requests."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from pytest_pgo_eks.errors import ExecProblem, UsageProblem
from pytest_pgo_eks.kube import ExecResult
from pytest_pgo_eks.pgo import PostgresCluster, names, release_of
from pytest_pgo_eks.pgo.versions import RELEASES, is_known

from .conftest import NAMESPACE, PRIMARY, REPLICA, STANDBY, FakeKube

MEMBERS = [
    {"Member": REPLICA, "Role": "Replica", "State": "streaming", "TL": 1, "Replay Lag": 16},
    {"Member": STANDBY, "Role": "Sync Standby", "State": "streaming", "TL": 1, "Lag in MB": 0},
    {"Member": PRIMARY, "Role": "Leader", "State": "running", "TL": 1, "Pending restart": "*"},
    {
        "Member": "new-0",
        "Role": "Replica",
        "State": "creating replica",
        "TL": "",
        "Replay Lag": "unknown",
    },
]


def answering(kube: FakeKube, answer: str, status: int = 0, errors: str = "") -> None:
    def shell(pod: str, command: Sequence[str], stdin: str) -> ExecResult:
        return ExecResult(status, answer.encode(), errors.encode())

    kube.shell = shell


def test_members_are_read_whatever_patronis_version(
    kube: FakeKube, postgres: PostgresCluster
) -> None:
    answering(kube, json.dumps(MEMBERS))
    replica, standby, leader, new = postgres.patroni(PRIMARY).members()
    assert (replica.role, replica.lag_bytes, replica.timeline) == ("Replica", 16, 1)
    assert (standby.role, standby.lag_bytes) == ("Sync Standby", 0)
    assert (leader.role, leader.pending_restart) == ("Leader", True)
    assert (new.timeline, new.lag_bytes) == (None, None)
    assert kube.calls[-1] == ("exec", PRIMARY, ("patronictl", "list", "--format", "json"))


def test_history_and_configuration(kube: FakeKube, postgres: PostgresCluster) -> None:
    answering(kube, '[{"TL": 1, "LSN": "0/B000000"}, {"TL": 2, "LSN": 5}]')
    assert [one["LSN"] for one in postgres.patroni().history()] == [0xB000000, 5]
    answering(kube, "ttl: 30\nsynchronous_mode: true\n")
    assert postgres.patroni().configuration() == {"ttl": 30, "synchronous_mode": True}


@pytest.mark.parametrize("answer", ["", "{", "{}"])
def test_nonsense_is_an_error(kube: FakeKube, postgres: PostgresCluster, answer: str) -> None:
    answering(kube, answer)
    with pytest.raises(ExecProblem, match=r"no JSON|no list"):
        postgres.patroni(PRIMARY).members()
    answering(kube, "", 1, "Error: no leader")
    with pytest.raises(ExecProblem, match="ended with 1: Error: no leader"):
        postgres.patroni(PRIMARY).members()


def test_a_switchover_is_asked_for_as_pgo_wants_it(
    kube: FakeKube, postgres: PostgresCluster
) -> None:
    trigger = postgres.request_switchover("hippo-instance1-75jd")
    _, kind, name, patch = kube.calls[-1]
    assert (kind, name) == (names.KIND, "hippo")
    assert patch["metadata"]["annotations"] == {names.SWITCHOVER: trigger}
    assert patch["spec"]["patroni"]["switchover"] == {
        "enabled": True,
        "type": "Switchover",
        "targetInstance": "hippo-instance1-75jd",
    }
    assert postgres.request_switchover() != trigger


def test_the_cluster_knows_its_names_and_declarations(postgres: PostgresCluster) -> None:
    assert postgres.service("ha") == "hippo-ha"
    assert postgres.host("primary") == f"hippo-primary.{NAMESPACE}.svc"
    assert postgres.declared() == 3
    assert (postgres.lease_s, postgres.sync_period_s) == (30, 10)


def test_deleting_waits_until_nothing_is_left(kube: FakeKube, postgres: PostgresCluster) -> None:
    kube.objects["PostgresCluster"] = []
    with pytest.raises(TimeoutError, match=rf"Pod {REPLICA}.*PersistentVolumeClaim"):
        postgres.delete(within_s=0.1)
    kube.objects["Pod"] = kube.objects["PersistentVolumeClaim"] = []
    postgres.delete(within_s=1)


@pytest.mark.parametrize(
    ("version", "series"),
    [
        ("5.7.9", "5.7"),
        ("5.8.9", "5.8"),
        ("6.0.3", "6.0"),
        ("6.0-stand-in", "6.0"),
        ("6.4.0", "6.0"),
        ("7.0", "6.0"),
    ],
)
def test_versions_belong_to_a_series(version: str, series: str) -> None:
    assert release_of(version).series == series
    assert is_known(version) == version.startswith(series)


@pytest.mark.parametrize("version", ["5.6.1", "4.7", "latest", ""])
def test_versions_that_are_not_supported_are_named(version: str) -> None:
    with pytest.raises(UsageProblem):
        release_of(version)


def test_the_differences_are_those_that_were_looked_at() -> None:
    old, middle, new = RELEASES
    assert "md5" in old.default_hba
    assert not old.config_parameters
    assert middle.config_parameters
    assert new.api_versions == ("v1", "v1beta1")
    assert 18 not in old.postgres_versions
    assert 18 in middle.postgres_versions
