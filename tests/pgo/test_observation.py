"""Observations of a recorded cluster, and of what the recordings show in failovers."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.pgo import PostgresCluster, missing, names
from pytest_pgo_eks.pgo.observation import Roles

from .conftest import EXPECTED, PRIMARY, REPLICA, STANDBY, SYSTEM, FakeKube, observe, servers


def test_a_recorded_cluster_is_read_whole(kube: FakeKube) -> None:
    seen = observe(kube)
    assert [one.pod for one in seen.instances] == [REPLICA, STANDBY, PRIMARY]
    primary = seen.instance(PRIMARY)
    assert primary is not None
    assert primary.name == "hippo-instance1-7fwv"
    assert (primary.node, primary.zone) == ("bed-1", "zone-a")
    assert primary.uid == "0b3c99d7-8454-4fcb-9b6d-82750eda448f"
    assert primary.is_running
    assert primary.role_label == "master"
    assert primary.patroni is not None
    assert (primary.patroni.state, primary.patroni.role) == ("running", "primary")
    assert (primary.patroni.version, primary.patroni.timeline) == ("4.1.4", 1)
    assert seen.leader is not None
    assert seen.leader.leader == PRIMARY
    assert (seen.leader.transitions, seen.leader.ttl_s) == (0, 30)
    assert seen.leader.addresses == (PRIMARY,)
    assert seen.sync is not None
    assert (seen.sync.leader, seen.sync.standbys) == (PRIMARY, (STANDBY,))
    assert seen.system_identifier == SYSTEM
    assert seen.is_synchronous
    assert seen.services["hippo-replicas"] == (REPLICA, STANDBY)
    assert seen.status is not None
    assert seen.status.repos == {"repo1": (True, True, True)}
    assert missing(seen, EXPECTED) == []


def test_the_three_witnesses_are_kept_apart(kube: FakeKube) -> None:
    """As recorded while a promotion hung: lock and label moved, SQL did not follow."""
    kube.one("Pod", PRIMARY)["metadata"]["labels"][names.ROLE] = "replica"
    kube.one("Pod", STANDBY)["metadata"]["labels"][names.ROLE] = "master"
    kube.one("Endpoints", "hippo-ha")["metadata"]["annotations"]["leader"] = STANDBY
    seen = observe(kube, servers(primary={"in_recovery": True}))
    roles = {one.pod: one for one in seen.roles()}
    assert roles[STANDBY] == Roles(STANDBY, "primary", "primary", "replica")
    assert not roles[STANDBY].agree
    assert roles[REPLICA].agree
    assert seen.writable == ()


def test_a_server_that_was_not_asked_agrees_with_nobody(kube: FakeKube) -> None:
    assert not [one for one in observe(kube).roles() if one.agree]
    assert all(one.agree for one in observe(kube, servers()).roles())


def test_two_pods_may_be_labelled_primary_at_once(kube: FakeKube) -> None:
    kube.one("Pod", STANDBY)["metadata"]["labels"][names.ROLE] = "master"
    seen = observe(kube)
    assert set(seen.labelled_primaries) == {PRIMARY, STANDBY}
    assert f"{PRIMARY} leads, but" in "".join(missing(seen, EXPECTED))


def test_history_comes_from_patronis_own_record(kube: FakeKube) -> None:
    line = [1, 184549536, "no recovery target specified", "2026-11-23T09:24:07+00:00", STANDBY]
    notes = kube.one("Endpoints", "hippo-ha-config")["metadata"]["annotations"]
    notes["history"] = json.dumps([line, [2, 5, "x"]])
    first, second = observe(kube).history
    assert (first.timeline, first.lsn, first.leader) == (1, 184549536, STANDBY)
    assert (second.timeline, second.leader, second.at) == (2, None, None)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"state": null}', '{"role": "promoted"}'])
def test_odd_annotations_are_outlived(kube: FakeKube, text: str | None) -> None:
    pod = kube.one("Pod", PRIMARY)
    pod["metadata"]["annotations"] = {"status": text} if text is not None else None
    for name in ("hippo-ha", "hippo-ha-config", "hippo-ha-sync"):
        kube.one("Endpoints", name)["metadata"]["annotations"] = {"optime": text, "leader": None}
    seen = observe(kube)
    assert seen.leader is not None
    assert seen.leader.leader is None
    assert str(seen)
    assert "no live leader: the record names nobody" in missing(seen, EXPECTED)


@pytest.mark.parametrize(("note", "text"), [("history", "{"), ("history", "[1]"), ("config", "[]")])
def test_a_record_that_cannot_be_read_is_not_taken_for_empty(
    kube: FakeKube, note: str, text: str
) -> None:
    kube.one("Endpoints", "hippo-ha-config")["metadata"]["annotations"][note] = text
    with pytest.raises(ApiProblem, match=f"Patroni's {note} cannot be read"):
        observe(kube)


def test_nothing_at_all_can_be_observed(kube: FakeKube) -> None:
    kube.objects["PostgresCluster"] = kube.objects["Pod"] = kube.objects["Endpoints"] = []
    seen = observe(kube)
    assert missing(seen, EXPECTED) == ["the PostgresCluster itself"]
    assert "does not exist" in str(seen)


def test_a_difference_shows_what_changed_and_nothing_else(kube: FakeKube) -> None:
    before = observe(kube)
    assert before.difference(before) == []
    kube.one("Pod", STANDBY)["metadata"]["labels"].pop(names.ROLE)
    lines = observe(kube).difference(before)
    assert len(lines) == 2
    assert lines[0].startswith(f"- {STANDBY}")
    assert "label replica" in lines[0]
    assert lines[1].startswith(f"+ {STANDBY}")
    assert "label none" in lines[1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda k: k.one("PostgresCluster", "hippo")["metadata"].update(generation=2),
            "generation 2 is not",
        ),
        (
            lambda k: k.one("PostgresCluster", "hippo")["status"]["patroni"].clear(),
            "not bootstrapped",
        ),
        (
            lambda k: k.one("PostgresCluster", "hippo")["status"]["instances"][0].update(
                updatedReplicas=2
            ),
            "2 up to date",
        ),
        (
            lambda k: k.one("Pod", REPLICA)["metadata"].update(deletionTimestamp="now"),
            "2 of 3 instances ready",
        ),
        (
            lambda k: k.one("Pod", PRIMARY)["metadata"].update(deletionTimestamp="now"),
            "no live leader",
        ),
        (
            lambda k: k.one("Endpoints", "hippo-ha")["metadata"]["annotations"].update(
                leader="gone-0"
            ),
            "the record names gone-0",
        ),
        (
            lambda k: k.one("PostgresCluster", "hippo")["status"]["pgbackrest"]["repos"][0].update(
                replicaCreateBackupComplete=False
            ),
            "repo1 has no first backup",
        ),
        (
            lambda k: k.one("PostgresCluster", "hippo")["status"]["pgbackrest"]["repos"][0].update(
                stanzaCreated=False
            ),
            "repo1 has no stanza",
        ),
        (
            lambda k: next(
                c
                for c in k.one("PostgresCluster", "hippo")["status"]["conditions"]
                if c["type"] == "ProxyAvailable"
            ).update(status="False", reason="Down", message="why"),
            "PgBouncer is not available: Down: why",
        ),
        (
            lambda k: k.one("PostgresCluster", "hippo")["status"].update(conditions=[]),
            "PgBouncer is not available: nothing is said of it yet",
        ),
        (
            lambda k: k.one("Endpoints", "hippo-ha-sync")["metadata"]["annotations"].pop(
                "sync_standby"
            ),
            "nobody is the synchronous standby",
        ),
        (
            lambda k: k.one("PostgresCluster", "hippo")["status"].pop("pgbackrest"),
            "repo1 has no stanza yet",
        ),
    ],
)
def test_each_thing_that_is_missing_is_named(
    kube: FakeKube, change: Callable[[FakeKube], object], sentence: str
) -> None:
    change(kube)
    assert sentence in "; ".join(missing(observe(kube), EXPECTED))


def test_looking_costs_few_requests_and_changes_nothing(
    kube: FakeKube, postgres: PostgresCluster
) -> None:
    seen = postgres.observe()
    assert seen.instances[0].zone == "zone-b"
    assert [call[0] for call in kube.calls] == ["get", "list", "list", "list"]
    postgres.observe()
    # Zones are those of nodes that are known already.
    assert len(kube.calls) == 7
