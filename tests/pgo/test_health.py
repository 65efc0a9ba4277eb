"""Healthy means all of it; each thing broken on purpose turns exactly its finding."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pytest_pgo_eks.errors import Inconclusive, Violation
from pytest_pgo_eks.pgo import Identity, PostgresCluster, findings, identity, names, prove_healthy
from pytest_pgo_eks.pgo.cluster import PostgresCluster as Real
from pytest_pgo_eks.postgres import ServerState

from .conftest import PRIMARY, REPLICA, STANDBY, SYSTEM, FakeKube, sender, servers

RULES = {
    "instances-running",
    "one-primary",
    "replicas-streaming",
    "same-system-identifier",
    "operator-not-restarted",
    "no-panic",
    "synchronous-standby",
}


@pytest.fixture
def told(kube: FakeKube, monkeypatch: pytest.MonkeyPatch) -> dict[str, ServerState]:
    """What SQL says; change it in a test."""
    states = servers()
    silent: dict[str, str] = {}

    def ask(
        self: Real, pods: list[dict[str, Any]]
    ) -> tuple[dict[str, ServerState], dict[str, str]]:
        return states, silent

    monkeypatch.setattr(Real, "_ask", ask)
    for pod in (PRIMARY, STANDBY, REPLICA):
        kube.texts[pod, "database", False] = "LOG:  fine\n"
    return states


def outcomes(postgres: PostgresCluster, before: Identity | None = None) -> dict[str, str]:
    return {one.rule: one.outcome for one in findings(postgres, before)}


def test_a_healthy_cluster_is_healthy(
    postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    assert outcomes(postgres) == dict.fromkeys(RULES, "holds")
    now = prove_healthy(postgres, within_s=1)
    assert (now.system_identifier, now.timeline) == (SYSTEM, 1)
    assert set(now.pods) == {PRIMARY, STANDBY, REPLICA}
    assert outcomes(postgres, now) == dict.fromkeys(RULES, "holds")


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("replicas-streaming", {"replica": {"receiver": None}}),
        ("replicas-streaming", {"replica": {"timeline": 2}}),
        ("replicas-streaming", {"primary": {"senders": (sender(STANDBY, True),)}}),
        ("same-system-identifier", {"replica": {"system_identifier": "1"}}),
        (
            "synchronous-standby",
            {"primary": {"senders": (sender(STANDBY, False), sender(REPLICA, False))}},
        ),
    ],
)
def test_what_sql_says_wrong_breaks_its_finding_only(
    postgres: PostgresCluster, told: dict[str, ServerState], rule: str, change: dict[str, Any]
) -> None:
    told.update(servers(**change))
    assert {name for name, outcome in outcomes(postgres).items() if outcome != "holds"} == {rule}


def test_two_writable_servers_are_not_one_primary(
    postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    told.update(servers(replica={"in_recovery": False}))
    found = outcomes(postgres)
    assert found["one-primary"] == "violated"
    assert found["replicas-streaming"] == "unknown"


def test_a_silent_server_is_unknown_not_wrong(
    postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    del told[REPLICA]
    found = outcomes(postgres)
    assert found["one-primary"] == "unknown"
    assert found["replicas-streaming"] == "violated"
    told.clear()
    assert outcomes(postgres)["same-system-identifier"] == "unknown"


def test_a_label_that_lies_is_seen(
    kube: FakeKube, postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    kube.one("Pod", REPLICA)["metadata"]["labels"][names.ROLE] = "master"
    found = outcomes(postgres)
    assert found["one-primary"] == "violated"


def test_an_instance_that_does_not_run_is_seen(
    kube: FakeKube, postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    kube.one("Pod", REPLICA)["status"]["conditions"] = []
    assert outcomes(postgres)["instances-running"] == "violated"


def test_a_panic_is_seen_in_this_life_and_in_the_one_before(
    kube: FakeKube, postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    before = identity(postgres)
    kube.texts[REPLICA, "database", False] += "2026 UTC [1] PANIC:  could not locate a checkpoint\n"
    (panic,) = [one for one in findings(postgres, before) if one.rule == "no-panic"]
    assert panic.outcome == "violated"
    assert panic.operations == (f"{REPLICA}: PANIC:  could not locate a checkpoint",)
    kube.texts[REPLICA, "database", False] = ""
    assert outcomes(postgres, before)["no-panic"] == "holds"
    statuses = kube.one("Pod", REPLICA)["status"]["containerStatuses"]
    next(one for one in statuses if one["name"] == "database")["restartCount"] = 1
    kube.texts[REPLICA, "database", True] = "PANIC:  no space\n"
    assert outcomes(postgres, before)["no-panic"] == "violated"


def test_an_operator_that_crashed_is_told_from_one_that_was_replaced(
    kube: FakeKube, postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    before = identity(postgres)
    pod = kube.one("Pod", "pgo-578c58f766-gt9l6")
    pod["status"]["containerStatuses"][0]["restartCount"] += 1
    assert outcomes(postgres, before)["operator-not-restarted"] == "violated"
    pod["metadata"]["uid"] = "another"
    assert outcomes(postgres, before)["operator-not-restarted"] == "expected"
    kube.objects["Deployment"] = []
    assert outcomes(postgres, before)["operator-not-restarted"] == "unknown"


def test_another_system_identifier_is_a_violation_at_once(
    postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    before = identity(postgres)
    other = Identity(
        before.cluster_uid, "1", before.operator_uid, 0, 1, datetime.now(UTC), before.pods
    )
    with pytest.raises(Violation, match=r"system identifiers differ.*before it was 1"):
        prove_healthy(postgres, other, within_s=60)


def test_a_panic_is_a_violation_at_once(
    kube: FakeKube, postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    kube.texts[PRIMARY, "database", False] = "PANIC:  x\n"
    with pytest.raises(Violation, match="1 PANIC lines"):
        prove_healthy(postgres, within_s=60)


def test_a_panic_is_told_once(
    kube: FakeKube, postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    kube.texts[PRIMARY, "database", False] = "PANIC:  x\n"
    with pytest.raises(Violation):
        prove_healthy(postgres, within_s=60)
    assert kube.since == [None, None, None]
    kube.since.clear()
    kube.texts[PRIMARY, "database", False] = ""
    prove_healthy(postgres, within_s=60)
    assert set(kube.since) <= {2, 3}


def test_an_operator_that_crashed_is_no_violation_and_not_waited_for(
    kube: FakeKube, postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    before = identity(postgres)
    kube.one("Pod", "pgo-578c58f766-gt9l6")["status"]["containerStatuses"][0]["restartCount"] += 2
    with pytest.raises(Inconclusive, match=r"gave up .*was restarted 2 times") as caught:
        prove_healthy(postgres, before, within_s=60)
    assert not isinstance(caught.value, Violation)


def test_everything_else_is_inconclusive_with_everything_that_is_wrong(
    postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    told.update(servers(replica={"receiver": None}))
    said: list[str] = []
    with pytest.raises(Inconclusive) as caught:
        prove_healthy(postgres, within_s=0.1, say=said.append)
    assert not isinstance(caught.value, Violation)
    assert f"{REPLICA} does not stream from {PRIMARY}" in str(caught.value)
    assert said


def test_a_cluster_without_synchronous_mode_needs_no_synchronous_standby(
    kube: FakeKube, postgres: PostgresCluster, told: dict[str, ServerState]
) -> None:
    notes = kube.one("Endpoints", "hippo-ha-config")["metadata"]["annotations"]
    notes["config"] = notes["config"].replace('"synchronous_mode":true', '"synchronous_mode":false')
    assert "synchronous-standby" not in outcomes(postgres)
