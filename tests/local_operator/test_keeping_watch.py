"""What counts as news, when a reconcile runs again, and what of an object is left alone."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.objects import (
    CLAIM,
    ENDPOINTS,
    POD,
    POSTGRES_CLUSTER,
    SERVICE,
    STATEFUL_SET,
    Obj,
)
from pytest_pgo_eks.local.operator.manager import Manager, retry_s
from pytest_pgo_eks.local.operator.status import difference, remove_condition, set_condition
from pytest_pgo_eks.local.operator.store import contains, digest

from .hippos import cluster
from .test_replicas import pod, runner

KEY = ("postgres-operator", "hippo")


def leader(**annotations: str) -> Obj:
    return {"metadata": {"name": "hippo-ha", "annotations": annotations, "labels": {}}}


def test_a_renewed_lease_is_no_news_and_a_new_leader_is() -> None:
    one = digest(ENDPOINTS, leader(leader="a", renewTime="1", optime="7", slots="{}"))
    assert one == digest(ENDPOINTS, leader(leader="a", renewTime="2", optime="9"))
    assert one != digest(ENDPOINTS, leader(leader="b", renewTime="1", optime="7"))


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({"xlog_location": 9, "receive_lsn": 1}, False),
        ({"pending_restart": True}, True),
        ({"timeline": 2}, True),
        ({"state": "stopping"}, True),
    ],
)
def test_of_patronis_own_account_only_some_is_news(change: Obj, news: bool) -> None:
    before = pod("a", "master", xlog_location=1, timeline=1)
    after = copy.deepcopy(before)
    status = json.loads(before["metadata"]["annotations"]["status"]) | change
    after["metadata"]["annotations"]["status"] = json.dumps(status)
    assert (digest(POD, before) != digest(POD, after)) is news


def test_readiness_and_role_of_a_pod_are_news() -> None:
    seen = {digest(POD, p) for p in (pod("a"), pod("a", ready=False), pod("a", "master"))}
    assert len(seen) == 3


def test_of_a_stateful_sets_status_only_some_is_news() -> None:
    one = runner("a", readyReplicas=0, currentRevision="x")
    other = copy.deepcopy(one)
    other["status"] |= {"currentRevision": "y", "availableReplicas": 0}
    other["metadata"]["resourceVersion"] = "9"
    assert digest(STATEFUL_SET, one) == digest(STATEFUL_SET, other)
    other["status"]["readyReplicas"] = 1
    assert digest(STATEFUL_SET, one) != digest(STATEFUL_SET, other)
    other = copy.deepcopy(one)
    other["metadata"]["labels"]["mine"] = "too"
    assert digest(STATEFUL_SET, one) != digest(STATEFUL_SET, other)


def test_a_claim_that_is_bound_or_asked_for_more_is_news() -> None:
    one: Obj = {"metadata": {"uid": "1"}, "spec": {"size": 1}, "status": {"phase": "Pending"}}
    bound = copy.deepcopy(one) | {"status": {"phase": "Bound"}}
    bigger = copy.deepcopy(one) | {"spec": {"size": 2}}
    assert len({digest(CLAIM, each) for each in (one, bound, bigger)}) == 3


def test_the_status_of_a_cluster_is_no_news_to_its_operator() -> None:
    one = {"metadata": {"uid": "1", "generation": 1, "resourceVersion": "1"}, "status": {}}
    two = copy.deepcopy(one) | {"status": {"observedGeneration": 1}}
    two["metadata"]["resourceVersion"] = "2"
    assert digest(POSTGRES_CLUSTER, one) == digest(POSTGRES_CLUSTER, two)
    assert digest(SERVICE, one) != digest(SERVICE, two)


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2}}, True),
        ({"a": 2}, {"a": 1}, False),
        ({}, {"a": 1}, False),
        ({}, {"a": {}}, True),
        ({"l": [{"n": 1, "d": 0}]}, {"l": [{"n": 1}]}, True),
        ({"l": [{"n": 2}]}, {"l": [{"n": 1}]}, False),
        ({"l": []}, {"l": [1]}, False),
        ({"a": "x"}, {"a": {"b": 1}}, False),
    ],
)
def test_what_the_server_added_is_left_alone(found: Any, wanted: Any, expected: bool) -> None:
    assert contains(found, wanted) is expected


def test_a_patch_of_the_status_is_the_difference() -> None:
    before = {"a": 1, "b": {"x": 1, "y": 2}, "c": [1], "d": 4}
    after = {"a": 1, "b": {"x": 1, "y": 3}, "c": [1, 2], "e": 5}
    assert difference(before, after) == {"b": {"y": 3}, "c": [1, 2], "d": None, "e": 5}
    assert difference(after, after) is None


def test_a_condition_moves_its_time_only_with_its_status() -> None:
    hippo = cluster()
    set_condition(hippo, "ProxyAvailable", "False", "Because", "not yet")
    (condition,) = hippo.status["conditions"]
    condition["lastTransitionTime"] = "long ago"
    set_condition(hippo, "ProxyAvailable", "False", "Other", "still not")
    assert (condition["lastTransitionTime"], condition["reason"]) == ("long ago", "Other")
    set_condition(hippo, "ProxyAvailable", "True", "Ok", "now")
    assert condition["lastTransitionTime"] != "long ago"
    remove_condition(hippo, "ProxyAvailable")
    assert hippo.status["conditions"] == []


class Counted:
    """A reconcile that notes its runs and does what the test tells it."""

    def __init__(self, *results: float | Exception | None) -> None:
        self.results = list(results)
        self.runs = 0
        self.ran = asyncio.Event()

    async def __call__(self, key: tuple[str, str]) -> float | None:
        assert key == KEY
        self.runs += 1
        self.ran.set()
        result = self.results.pop(0) if self.results else None
        if isinstance(result, Exception):
            raise result
        return result

    async def again(self) -> None:
        self.ran.clear()
        async with asyncio.timeout(5):
            await self.ran.wait()


def run(reconcile: Counted, body: Any) -> None:
    async def main() -> None:
        manager = Manager(reconcile)
        try:
            await body(manager)
        finally:
            await manager.stop()

    asyncio.run(main())


def test_news_before_the_start_are_worked_on_at_the_start_and_once() -> None:
    reconcile = Counted()

    async def body(manager: Manager) -> None:
        for _ in range(9):
            manager.changed(*KEY)
        await asyncio.sleep(0.05)
        assert reconcile.runs == 0
        manager.start()
        await reconcile.again()
        await asyncio.sleep(0.1)
        assert reconcile.runs == 1
        manager.changed(*KEY)
        await reconcile.again()
        assert reconcile.runs == 2

    run(reconcile, body)


def test_a_reconcile_that_asks_to_look_again_is_run_again_without_news() -> None:
    reconcile = Counted(0.01, 0.01, None)

    async def body(manager: Manager) -> None:
        manager.start()
        manager.changed(*KEY)
        await reconcile.again()
        await reconcile.again()
        await reconcile.again()
        assert reconcile.runs == 3

    run(reconcile, body)


def test_an_error_is_tried_again_and_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    reconcile = Counted(ApiError(409, "Conflict", "again"), None)

    async def body(manager: Manager) -> None:
        manager.start()
        manager.changed(*KEY)
        await reconcile.again()
        await reconcile.again()

    run(reconcile, body)
    assert "409 Conflict: again" in capsys.readouterr().out


def test_a_forgotten_cluster_has_no_worker_until_it_is_back() -> None:
    reconcile = Counted()

    async def body(manager: Manager) -> None:
        manager.start()
        manager.changed(*KEY)
        await reconcile.again()
        manager.forget(KEY)
        manager.changed(*KEY)
        await reconcile.again()
        assert reconcile.runs == 2

    run(reconcile, body)


def test_patience_grows_to_half_a_minute() -> None:
    assert retry_s(1) < 0.3
    assert 20 < retry_s(30) < 40
