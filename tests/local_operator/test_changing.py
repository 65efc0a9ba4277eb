"""Switchover, rolling update, scaling, shutdown and deletion, step by step against a real API server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_pgo_eks.local.objects import (
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINTS,
    POD,
    POSTGRES_CLUSTER,
    SECRET,
    STATEFUL_SET,
)
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.context import Blocked

from .bench import KEY, NS, Bench, on_bench, programs, standing


def test_a_deleted_stateful_set_comes_back_under_its_name() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        name = at.instances[1].name
        await at.admin.delete(STATEFUL_SET, name, NS)
        await at.until(lambda: at.get(STATEFUL_SET, name) is None)
        await at.reconcile()
        assert len(at.instances) == 3
        assert await at.admin.find(STATEFUL_SET, name, NS)

    on_bench(body)


def test_an_instance_comes_back_under_its_name_without_its_data_too() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        name = at.instances[1].name
        await at.admin.delete(CLAIM, f"{name}-pgdata", NS)
        await at.admin.delete(STATEFUL_SET, name, NS)
        await at.until(lambda: at.get(STATEFUL_SET, name) is None)
        await at.reconcile()
        assert len(at.instances) == 3
        assert await at.admin.find(STATEFUL_SET, name, NS)

    on_bench(body)


def test_scaling_up_and_down() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        first = {each.name for each in at.instances}
        sets = at.hippo["spec"]["instances"]
        await at.patch({"spec": {"instances": [sets[0] | {"replicas": 4}]}})
        await at.reconcile()
        grown = {each.name for each in at.instances}
        assert first < grown
        assert len(grown) == 4
        await at.patch({"spec": {"instances": [sets[0] | {"replicas": 1}]}})
        await at.reconcile()
        await at.until(
            lambda: len(at.tools.store.list(STATEFUL_SET, KEY, {names.DATA: "postgres"})) == 1
        )
        (kept,) = at.tools.store.list(STATEFUL_SET, KEY, {names.DATA: "postgres"})
        assert kept["metadata"]["name"] == at.instances[0].name
        for kind, suffix in ((CONFIG_MAP, "config"), (SECRET, "certs")):
            left = {o["metadata"]["name"] for o in (await at.admin.list(kind, NS)).items}
            assert {n for n in left if n.endswith(suffix) and n.startswith("hippo-pg-1")} == {
                f"{kept['metadata']['name']}-{suffix}"
            }
        claims = (await at.admin.list(CLAIM, NS, labels=names.INSTANCE)).items
        assert [
            c["metadata"]["name"] for c in claims if not c["metadata"].get("deletionTimestamp")
        ] == [f"{kept['metadata']['name']}-pgdata"]

    on_bench(body)


def leader_list(timeline: int) -> bytes:
    return json.dumps([{"Role": "Leader", "State": "running", "TL": timeline}]).encode()


def asked(value: str, **more: str) -> dict[str, Any]:
    return {
        "metadata": {"annotations": {names.TRIGGER_SWITCHOVER: value}},
        "spec": {"patroni": {"switchover": {"enabled": True} | more}},
    }


def test_a_switchover_stores_the_timeline_first_and_happens_once() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        at.answer = lambda argv: (
            leader_list(3) if argv[1] == "list" else b"Successfully switched over to x"
        )
        target = at.instances[1]
        await at.patch(asked("now", targetInstance=target.name))
        await at.reconcile()
        assert at.status["patroni"]["switchoverTimeline"] == 3
        assert programs(at.ran) == ["patronictl list"]
        at.ran.clear()
        await at.reconcile()
        assert programs(at.ran) == ["patronictl list", "patronictl switchover"]
        assert f"--candidate={target.pod_name}" in at.ran[-1][1]
        assert at.status["patroni"]["switchover"] == "now"
        assert "switchoverTimeline" not in at.status["patroni"]
        at.ran.clear()
        await at.reconcile()
        assert at.ran == []

    on_bench(body)


def test_a_timeline_that_moved_means_that_the_switchover_has_happened() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        at.answer = lambda _argv: leader_list(3)
        await at.patch(asked("now"))
        await at.reconcile()
        at.answer = lambda _argv: leader_list(4)
        at.ran.clear()
        await at.reconcile()
        assert programs(at.ran) == ["patronictl list"]
        assert at.status["patroni"]["switchover"] == "now"

    on_bench(body)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"targetInstance": "hippo-pg-1-none"}, "not found"),
        ({"type": "Failover"}, "TargetInstance required"),
        ({}, "unable to switchover"),
    ],
)
def test_a_switchover_that_cannot_be_stops_the_reconcile(
    request_: dict[str, str], message: str
) -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        at.answer = lambda argv: leader_list(3) if argv[1] == "list" else b"Error: no"
        await at.patch(asked("now", **request_))
        await at.admin.delete(CONFIG_MAP, "hippo-config", NS)
        await at.until(lambda: at.get(CONFIG_MAP, "hippo-config") is None)
        if not request_:
            await at.reconcile()  # this one is refused only when Patroni is asked
        with pytest.raises(Blocked, match=message):
            await at.reconcile()
        assert await at.admin.find(CONFIG_MAP, "hippo-config", NS) is None
        await at.patch({"spec": {"patroni": {"switchover": {"enabled": False}}}})
        await at.reconcile()
        assert await at.admin.find(CONFIG_MAP, "hippo-config", NS)

    on_bench(body)


async def outdated(at: Bench) -> None:
    for each in at.instances:
        await at.revision(each.name, "newer")


def test_a_rolling_update_takes_one_replica_at_a_time_and_the_primary_last() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        at.answer = lambda argv: b"Successfully switched over" if argv[0] == "patronictl" else None
        primary, *replicas = at.instances
        await outdated(at)
        gone: list[str] = []
        for _ in range(2):
            await at.reconcile()
            dying = [
                p
                for p in (await at.admin.list(POD, NS)).items
                if p["metadata"].get("deletionTimestamp")
            ]
            gone += [p["metadata"]["name"] for p in dying]
            assert len(dying) == 1
            await at.reconcile()  # one is away: nothing more may go
            assert (
                len(
                    [
                        p
                        for p in (await at.admin.list(POD, NS)).items
                        if p["metadata"].get("deletionTimestamp")
                    ]
                )
                == 1
            )
            await at.end_of_dying()
            name = gone[-1].removesuffix("-0")
            back = next(each for each in at.instances if each.name == name)
            await at.pod(back, "replica")
        assert gone == [each.pod_name for each in replicas]
        assert at.ran == []
        await at.revision(primary.name, "newer")
        await at.reconcile()
        assert programs(at.ran) == ["patronictl switchover"]
        assert f"--primary={primary.pod_name}" in at.ran[-1][1]
        assert not [
            p
            for p in (await at.admin.list(POD, NS)).items
            if p["metadata"].get("deletionTimestamp")
        ]

    on_bench(body)


def test_pending_restarts_are_in_place_and_the_primarys_comes_first_when_it_waits() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        primary, replica, _ = at.instances
        await at.pod(replica, "replica", pending_restart=True)
        before = len(at.ran)
        assert 0 < (await at.reconcile() or 0) <= 0.5
        assert len(at.ran) == before, "others may be about to say so as well"
        at.tools.pending_since[KEY] -= 0.5
        await at.reconcile()
        assert at.ran[-1][1][-2:] == ["--role=replica", "hippo-ha"]
        await at.pod(primary, "master", pending_restart=True)
        await at.reconcile()
        assert at.ran[-1][1][-2:] == ["--role=primary", "hippo-ha"]
        assert not [
            p
            for p in (await at.admin.list(POD, NS)).items
            if p["metadata"].get("deletionTimestamp")
        ]

    on_bench(body)


def scales(at: Bench) -> dict[str, int]:
    runners = at.tools.store.list(STATEFUL_SET, KEY)
    return {r["metadata"]["name"]: r["spec"]["replicas"] for r in runners}


def test_shutdown_stops_the_primary_last_and_starts_it_first() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        primary, *replicas = [each.name for each in at.instances]
        await at.patch({"spec": {"shutdown": True}})
        await at.reconcile()
        assert scales(at) == {primary: 1, "hippo-repo-host": 1} | dict.fromkeys(replicas, 0)
        assert at.status["startupInstance"] == primary
        bouncer = await at.admin.get(DEPLOYMENT, "hippo-pgbouncer", NS)
        assert bouncer["spec"]["replicas"] == 0
        for name in replicas:
            await at.remove_pod(f"{name}-0")
        await at.reconcile()
        assert scales(at) == {primary: 0, "hippo-repo-host": 1} | dict.fromkeys(replicas, 0)
        await at.remove_pod(f"{primary}-0")
        await at.reconcile()
        assert set(scales(at).values()) == {0}
        await at.patch({"spec": {"shutdown": False}})
        await at.reconcile()
        assert scales(at) == {primary: 1, "hippo-repo-host": 1} | dict.fromkeys(replicas, 0)
        await at.pod(next(each for each in at.instances if each.name == primary), "master")
        await at.reconcile()
        assert set(scales(at).values()) == {1}
        assert "startupInstance" not in at.status

    on_bench(body)


def test_without_a_primary_shutdown_stops_nothing() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        await at.pod(at.instances[0], "replica")
        await at.patch({"spec": {"shutdown": True}})
        await at.reconcile()
        assert set(scales(at).values()) == {1}

    on_bench(body)


def test_deletion_stops_replicas_then_the_primary_then_forgets_patronis_records() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        primary, *replicas = at.instances
        await at.admin.delete(POSTGRES_CLUSTER, "hippo", NS)
        await at.until(lambda: bool(at.hippo["metadata"].get("deletionTimestamp")))
        await at.reconcile()
        found = scales(at)
        assert found[primary.name] == 1
        assert {found[each.name] for each in replicas} == {0}
        for each in replicas:
            await at.remove_pod(each.pod_name)
        await at.reconcile()
        assert scales(at)[primary.name] == 0
        assert await at.admin.find(ENDPOINTS, "hippo-ha", NS)
        await at.remove_pod(primary.pod_name)
        await at.reconcile()
        assert await at.admin.find(ENDPOINTS, "hippo-ha", NS) is None
        assert await at.admin.find(POSTGRES_CLUSTER, "hippo", NS) is None

    on_bench(body)


def test_two_pods_labelled_primary_are_both_left_running() -> None:
    async def body(at: Bench) -> None:
        await standing(at)
        _, second, third = at.instances
        await at.pod(second, "master")
        await at.remove_pod(third.pod_name)
        await at.admin.delete(POSTGRES_CLUSTER, "hippo", NS)
        await at.until(lambda: bool(at.hippo["metadata"].get("deletionTimestamp")))
        await at.reconcile()
        assert scales(at)[second.name] == 1

    on_bench(body)
