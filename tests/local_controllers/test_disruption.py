"""PodDisruptionBudgets: the numbers that decide whether a drain may go on."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.disruption import status_of
from pytest_pgo_eks.local.objects import DISRUPTION_BUDGET, POD, STATEFUL_SET, Obj

from .conftest import Bed, Tell
from .made import pod
from .test_scheduler import stateful_set


def budget(**spec: Any) -> Obj:
    selector = {"matchLabels": {"app": "db"}}
    return {
        "metadata": {"name": "db", "generation": 1},
        "spec": {"selector": selector, **spec},
    }


@pytest.mark.parametrize(
    ("spec", "ready", "scale", "numbers"),
    [
        ({"minAvailable": 1}, 3, 3, (1, 2, 3)),
        ({"minAvailable": 1}, 1, 3, (1, 0, 3)),
        ({"minAvailable": "50%"}, 3, 3, (2, 1, 3)),
        ({"maxUnavailable": 1}, 3, 3, (2, 1, 3)),
        ({"maxUnavailable": "34%"}, 3, 3, (1, 2, 3)),
        ({"maxUnavailable": 1}, 3, 4, (3, 0, 4)),
        ({"maxUnavailable": 0}, 3, 3, (3, 0, 3)),
        ({"minAvailable": 5}, 3, 3, (5, 0, 3)),
    ],
)
def test_numbers(spec: Obj, ready: int, scale: int, numbers: tuple[int, int, int]) -> None:
    desired, allowed, expected = numbers
    pods = [pod(f"p{i}", ready=i < ready) for i in range(3)]
    status, _ = status_of(budget(**spec), pods, scale)
    assert status["currentHealthy"] == ready
    assert status["desiredHealthy"] == desired
    assert status["disruptionsAllowed"] == allowed
    assert status["expectedPods"] == expected
    (condition,) = status["conditions"]
    assert condition["status"] == ("True" if allowed else "False")
    assert condition["reason"] == ("SufficientPods" if allowed else "InsufficientPods")


def test_pods_that_are_going_are_not_healthy() -> None:
    pods = [pod("a", ready=True, terminating=True), pod("b", ready=True)]
    assert status_of(budget(minAvailable=1), pods, 2)[0]["currentHealthy"] == 1


def test_an_eviction_granted_counts_until_it_is_forgotten() -> None:
    pods = [pod("a", ready=True), pod("b", ready=True)]
    granted = budget(minAvailable=1)
    granted["status"] = {
        "disruptedPods": {"a": "2999-01-01T00:00:00Z", "b": "2026-01-01T00:00:00Z"}
    }
    status, wait_s = status_of(granted, pods, 2)
    assert status["disruptedPods"] == {"a": "2999-01-01T00:00:00Z"}
    assert status["currentHealthy"] == 1
    assert wait_s is not None


def test_nobody_behind_it() -> None:
    assert status_of(budget(minAvailable=0), [], 0)[0]["disruptionsAllowed"] == 0


def test_the_eviction_subresource_goes_by_it(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        made = stateful_set("db", 2, podManagementPolicy="Parallel")
        await bed.create(STATEFUL_SET, made)
        await bed.create(DISRUPTION_BUDGET, budget(minAvailable=1) | {"metadata": {"name": "db"}})
        for name in ("db-0", "db-1"):
            await bed.bound(name)
            await bed.kubelet_runs(name)

        async def allowed(number: int) -> bool:
            status = ((await bed.get(DISRUPTION_BUDGET, "db")) or {}).get("status") or {}
            return status.get("disruptionsAllowed") == number and bool(status.get("expectedPods"))

        async def evict(name: str) -> None:
            eviction = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": "default"},
            }
            await bed.client.create(POD, eviction, "default", sub="eviction")

        await bed.until(lambda: allowed(1))
        await evict("db-0")
        await bed.until(lambda: allowed(0))
        with pytest.raises(ApiError) as refused:
            await evict("db-1")
        assert refused.value.code == 429
        await bed.kubelet_removes("db-0")

        async def back() -> bool:
            found = await bed.get(POD, "db-0")
            return bool(found and not found["metadata"].get("deletionTimestamp"))

        await bed.until(back)
        await bed.kubelet_runs("db-0")
        await bed.until(lambda: allowed(1))

    tell(story)
