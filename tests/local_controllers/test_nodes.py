"""Nodes that fall silent, and what becomes of their pods."""

from __future__ import annotations

import asyncio
import time

import pytest

from pytest_pgo_eks.local.controllers.clock import stamp
from pytest_pgo_eks.local.controllers.node_rules import (
    leave_at,
    same_taints,
    silent_conditions,
    wanted_taints,
)
from pytest_pgo_eks.local.objects import LEASE, NODE, POD, STATEFUL_SET, Obj

from .conftest import Bed, Tell
from .made import node, pod
from .test_scheduler import stateful_set

NOW = "2026-01-01T00:00:00Z"


def pairs(found: Obj, *, evict: bool = True) -> list[tuple[str, str]]:
    taints = wanted_taints(found, evict=evict, now=NOW)
    return [(t["key"].rpartition("/")[2], t["effect"]) for t in taints]


def test_taints_follow_conditions() -> None:
    assert pairs(node("n")) == []
    assert pairs(node("n", ready="False")) == [
        ("not-ready", "NoSchedule"),
        ("not-ready", "NoExecute"),
    ]
    assert pairs(node("n", ready="Unknown")) == [
        ("unreachable", "NoSchedule"),
        ("unreachable", "NoExecute"),
    ]
    assert pairs(node("n", ready="Unknown"), evict=False) == [("unreachable", "NoSchedule")]
    assert pairs(node("n", unschedulable=True)) == [("unschedulable", "NoSchedule")]


def test_taints_of_others_stay_and_ours_keep_their_time() -> None:
    mine = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "before"}
    foreign = {"key": "example.org/x", "effect": "NoSchedule"}
    lost = node("n", ready="Unknown", taints=[foreign, mine])
    taints = wanted_taints(lost, evict=True, now=NOW)
    assert foreign in taints
    assert mine in taints
    well = node("n", taints=[foreign, mine])
    assert wanted_taints(well, evict=True, now=NOW) == [foreign]
    assert same_taints([foreign, mine], [mine, foreign])


def test_conditions_of_a_silent_node() -> None:
    (condition,) = silent_conditions(node("n"), NOW)
    assert condition["status"] == "Unknown"
    assert condition["reason"] == "NodeStatusUnknown"
    assert condition["message"] == "Kubelet stopped posting node status."


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], 300.0),
        ([{"operator": "Exists"}], None),
        (
            [
                {
                    "key": "node.kubernetes.io/unreachable",
                    "operator": "Exists",
                    "tolerationSeconds": 5,
                }
            ],
            5.0,
        ),
        ([{"operator": "Exists", "effect": "NoSchedule"}], 300.0),
    ],
)
def test_when_a_pod_has_to_leave(tolerations: list[Obj], expected: float | None) -> None:
    added = "2026-01-01T00:00:00Z"
    taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": added}
    found = leave_at(pod("p", tolerations=tolerations), node("n", taints=[taint]), 300.0)
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx(1767225600.0 + expected)


def test_any_other_no_execute_taint_acts_at_once() -> None:
    taint = {"key": "example.org/out", "effect": "NoExecute"}
    found = leave_at(pod("p"), node("n", taints=[taint]), 300.0)
    assert found is not None
    assert found < time.time()


async def heartbeat(bed: Bed, name: str) -> None:
    """Renew a node's Lease as its kubelet would, until cancelled."""
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "renewTime": "2026-01-01T00:00:00.000000Z"},
    }
    found = await bed.client.find(LEASE, name, "kube-node-lease")
    if found is None:
        await bed.client.create(LEASE, lease)
    beat = 0
    while True:
        beat += 1
        renewed = f"2026-01-01T00:00:00.{beat:06d}Z"
        patch = {"spec": {"renewTime": renewed}}
        await bed.client.patch(LEASE, name, "kube-node-lease", patch)
        await asyncio.sleep(0.1)


def ready_of(found: Obj) -> str:
    conditions = found["status"].get("conditions") or []
    return next((c["status"] for c in conditions if c["type"] == "Ready"), "")


def test_a_silent_node_loses_its_pods_in_time(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes("node-1", "node-2")
        beats = {n: asyncio.create_task(heartbeat(bed, n)) for n in ("node-1", "node-2")}
        # Admission writes 300 s into every pod that says nothing itself.
        leave = [
            {
                "key": f"node.kubernetes.io/{which}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 1,
            }
            for which in ("unreachable", "not-ready")
        ]
        made = stateful_set("db")
        made["spec"]["template"]["spec"]["tolerations"] = leave
        await bed.create(STATEFUL_SET, made)
        home = (await bed.bound("db-0"))["spec"]["nodeName"]
        await bed.kubelet_runs("db-0")
        await asyncio.sleep(2.0)
        found = await bed.get(NODE, home)
        assert found is not None
        assert ready_of(found) == "True", "a Lease that is renewed is a node that lives"
        beats[home].cancel()

        async def unready() -> bool:
            lost, member = await bed.get(NODE, home), await bed.get(POD, "db-0")
            assert lost is not None
            assert member is not None
            return ready_of(lost) == "Unknown" and ready_of(member) == "False"

        begun = time.perf_counter()
        await bed.until(unready)
        assert time.perf_counter() - begun > 0.5, "it had its grace"
        assert await bed.until(lambda: bed.events("NodeNotReady"))

        async def dying() -> Obj | None:
            found = await bed.get(POD, "db-0")
            return found if found and found["metadata"].get("deletionTimestamp") else None

        evicted = await bed.until(dying)
        reasons = [c.get("reason") for c in evicted["status"]["conditions"]]
        assert "DeletionByTaintManager" in reasons
        # The node is back: it is clean again and can be used.
        await bed.client.patch(
            NODE,
            home,
            None,
            {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            type="strategic",
            sub="status",
        )

        async def clean() -> bool:
            found = await bed.get(NODE, home)
            return bool(found and not found["spec"].get("taints"))

        beats[home] = asyncio.create_task(heartbeat(bed, home))
        await bed.until(clean)
        for beat in beats.values():
            beat.cancel()

    tell(story, node_grace_s=1.4)


def test_when_all_nodes_are_silent_nobody_is_evicted(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes("node-1", "node-2")

        async def lost() -> list[Obj] | None:
            found = await bed.every(NODE)
            return found if all(ready_of(n) == "Unknown" for n in found) else None

        await bed.until(lost)

        async def settled() -> bool:
            taints = [t for n in await bed.every(NODE) for t in n["spec"].get("taints") or []]
            return {t["effect"] for t in taints} == {"NoSchedule"}

        await bed.until(settled)

    tell(story, node_grace_s=0.3)


def test_pods_of_a_node_that_is_gone(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes("node-1")
        spec = {"containers": [{"name": "main", "image": "x"}]}
        await bed.create(POD, {"metadata": {"name": "left"}, "spec": spec})
        await bed.bound("left")
        await bed.kubelet_runs("left")
        await bed.client.delete(NODE, "node-1")

        async def gone() -> bool:
            return await bed.get(POD, "left") is None

        await bed.until(gone)

    tell(story, orphan_grace_s=0.2)


def test_stamps_are_as_the_api_writes_them() -> None:
    assert stamp(0) == "1970-01-01T00:00:00Z"
