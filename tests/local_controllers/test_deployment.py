"""Deployments and ReplicaSets."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_pgo_eks.local.controllers.deployment_plan import Limits, rolling_sizes
from pytest_pgo_eks.local.controllers.replicaset import to_remove
from pytest_pgo_eks.local.objects import DEPLOYMENT, POD, REPLICA_SET, Obj

from .conftest import Bed, Tell
from .made import pod


def deployment(name: str = "web", replicas: int = 2, **spec: Any) -> Obj:
    labels = {"app": name}
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "x:1"}]},
            },
            **spec,
        },
    }


def replica_set(name: str, size: int, available: int, revision: int = 1) -> Obj:
    return {
        "metadata": {
            "name": name,
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
        },
        "spec": {"replicas": size},
        "status": {"replicas": size, "availableReplicas": available},
    }


@pytest.mark.parametrize(
    ("rolling", "replicas", "expected"),
    [
        ({}, 4, (1, 1)),
        ({"maxSurge": "25%", "maxUnavailable": 0}, 2, (1, 0)),
        ({"maxSurge": 0, "maxUnavailable": 0}, 3, (0, 1)),
        ({"maxSurge": 2, "maxUnavailable": "50%"}, 3, (2, 1)),
    ],
)
def test_limits(rolling: Obj, replicas: int, expected: tuple[int, int]) -> None:
    made = deployment(replicas=replicas, strategy={"rollingUpdate": rolling})
    assert Limits.of(made) == Limits(*expected)


def test_a_rolling_update_step_by_step() -> None:
    made = deployment(replicas=2, strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    old = [replica_set("old", 2, 2)]
    assert rolling_sizes(made, replica_set("new", 0, 0, 2), old) == {"new": 1}
    # Nothing may go before the new pod is available.
    assert rolling_sizes(made, replica_set("new", 1, 0, 2), old) == {}
    assert rolling_sizes(made, replica_set("new", 1, 1, 2), old) == {"old": 1}
    old = [replica_set("old", 1, 1)]
    assert rolling_sizes(made, replica_set("new", 1, 1, 2), old) == {"new": 2}
    assert rolling_sizes(made, replica_set("new", 2, 2, 2), old) == {"old": 0}


def test_broken_old_pods_go_first() -> None:
    made = deployment(replicas=3, strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}})
    old = [replica_set("old", 3, 1)]
    assert rolling_sizes(made, replica_set("new", 1, 1, 2), old) == {"old": 1}


def test_the_least_useful_pods_are_removed() -> None:
    pods = [
        pod("ready", ready=True, node_name="n"),
        pod("unready", ready=False, node_name="n"),
        pod("unbound", phase="Pending"),
    ]
    assert [p["metadata"]["name"] for p in to_remove(pods, 2)] == ["unbound", "unready"]
    assert to_remove(pods, -1) == []


async def _run_all(bed: Bed) -> None:
    for found in await bed.pods():
        name = found["metadata"]["name"]
        if found["metadata"].get("deletionTimestamp"):
            await bed.kubelet_removes(name)
        elif found["spec"].get("nodeName") and found["status"]["phase"] != "Running":
            await bed.kubelet_runs(name)


async def _complete(bed: Bed, generation: int) -> Obj | None:
    await _run_all(bed)
    found = await bed.get(DEPLOYMENT, "web")
    status = (found or {}).get("status") or {}
    reasons = {c["reason"] for c in status.get("conditions") or []}
    done = (
        status.get("observedGeneration", 0) >= generation
        and status.get("updatedReplicas")
        == status.get("replicas")
        == status.get("availableReplicas")
        and "NewReplicaSetAvailable" in reasons
        and len([p for p in await bed.pods() if not p["metadata"].get("deletionTimestamp")])
        == status.get("replicas")
    )
    return found if done else None


@pytest.mark.parametrize("strategy", ["RollingUpdate", "Recreate"])
def test_an_update_replaces_every_pod(tell: Tell, strategy: str) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        made = deployment(strategy={"type": strategy}, revisionHistoryLimit=0)
        await bed.create(DEPLOYMENT, made)
        found = await bed.until(lambda: _complete(bed, 1))
        assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
        (first,) = await bed.every(REPLICA_SET)
        digest = first["metadata"]["labels"]["pod-template-hash"]
        assert first["metadata"]["name"] == f"web-{digest}"
        before = {p["metadata"]["uid"] for p in await bed.pods()}
        containers = [{"name": "main", "image": "x:2"}]
        template = {"template": {"spec": {"containers": containers}}}
        await bed.patch(DEPLOYMENT, "web", {"spec": template})
        found = await bed.until(lambda: _complete(bed, 2))
        assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
        assert not before & {p["metadata"]["uid"] for p in await bed.pods()}

        async def old_gone() -> bool:
            return len(await bed.every(REPLICA_SET)) == 1

        await bed.until(old_gone)
        said = await bed.events("ScalingReplicaSet")
        assert f"Scaled up replica set web-{digest} from 0 to 2" in said

    tell(story)


def test_exactly_as_many_pods_as_wanted(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(DEPLOYMENT, deployment(replicas=8))
        await bed.until(lambda: _complete(bed, 1))
        assert len(await bed.pods()) == 8
        assert len(await bed.every(REPLICA_SET)) == 1
        await bed.patch(DEPLOYMENT, "web", {"spec": {"replicas": 3}})

        async def fewer() -> bool:
            await _run_all(bed)
            return len(await bed.pods()) == 3

        await bed.until(fewer)
        victim = (await bed.pods())[0]
        await bed.client.delete(POD, victim["metadata"]["name"], "default", grace_s=0)
        await bed.until(lambda: _complete(bed, 2))
        assert len(await bed.pods()) == 3

    tell(story)


def test_a_rollout_that_does_not_move_says_so(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.create(DEPLOYMENT, deployment(progressDeadlineSeconds=1))

        async def exceeded() -> bool:
            status = ((await bed.get(DEPLOYMENT, "web")) or {}).get("status") or {}
            return any(
                c["reason"] == "ProgressDeadlineExceeded" for c in status.get("conditions") or []
            )

        await bed.until(exceeded)

    tell(story)


def test_an_orphan_is_adopted(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.create(
            POD,
            {
                "metadata": {"name": "stray", "labels": {"app": "x"}},
                "spec": {"containers": [{"name": "main", "image": "x"}]},
            },
        )
        made = deployment("x", 1)
        await bed.create(REPLICA_SET, made)

        async def adopted() -> bool:
            stray = await bed.get(POD, "stray")
            return bool(stray and stray["metadata"].get("ownerReferences"))

        await bed.until(adopted)
        assert len(await bed.pods()) == 1

    tell(story)
