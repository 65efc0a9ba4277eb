"""Deletion: grace periods, finalizers, propagation, preconditions, evictions."""

from __future__ import annotations

import datetime as dt

from local_apiserver.api_bench import Bench, config_map, deployment, pod, served, watching
from pytest_pgo_eks.local.objects import (
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NAMESPACE,
    POD,
    SERVICE,
    Obj,
)


async def _bound(bench: Bench, name: str = "web", **metadata: str | dict[str, str]) -> Obj:
    await bench.admin.create(POD, pod(name, **metadata), "default")
    target = {"metadata": {"name": name}, "target": {"kind": "Node", "name": "node-1"}}
    await bench.admin.request("POST", POD.path("default", name, "binding"), body=target)
    return await bench.admin.get(POD, name, "default")


@served()
async def test_a_scheduled_pod_is_marked_and_goes_when_the_kubelet_says_so(bench: Bench) -> None:
    admin = bench.admin
    await _bound(bench)
    before = dt.datetime.now(dt.UTC)
    marked = (await admin.delete(POD, "web", "default"))["metadata"]
    assert marked["deletionGracePeriodSeconds"] == 30
    ends = dt.datetime.fromisoformat(marked["deletionTimestamp"])
    assert 28 <= (ends - before).total_seconds() <= 31
    assert marked["generation"] == 2
    again = (await admin.delete(POD, "web", "default"))["metadata"]
    assert again["resourceVersion"] == marked["resourceVersion"]
    longer = (await admin.delete(POD, "web", "default", grace_s=60))["metadata"]
    assert longer["deletionGracePeriodSeconds"] == 30
    shorter = (await admin.delete(POD, "web", "default", grace_s=5))["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 5
    async with watching(admin, POD) as watched:
        await admin.delete(POD, "web", "default", grace_s=0)
        told = await watched.full()
        assert told.type == "MODIFIED"
        assert told.object["metadata"]["deletionGracePeriodSeconds"] == 0
        assert await watched.next() == ("DELETED", "web")
    assert await admin.find(POD, "web", "default") is None


@served()
async def test_pods_that_run_nowhere_or_have_ended_go_at_once(bench: Bench) -> None:
    admin = bench.admin
    await admin.create(POD, pod("unscheduled"), "default")
    await admin.delete(POD, "unscheduled", "default")
    assert await admin.find(POD, "unscheduled", "default") is None
    await _bound(bench, "ended")
    await admin.patch(POD, "ended", "default", {"status": {"phase": "Succeeded"}}, sub="status")
    await admin.delete(POD, "ended", "default")
    assert await admin.find(POD, "ended", "default") is None
    await _bound(bench, "forced")
    await admin.delete(POD, "forced", "default", grace_s=0)
    assert await admin.find(POD, "forced", "default") is None


@served()
async def test_finalizers_hold_an_object_until_the_last_is_gone(bench: Bench) -> None:
    admin = bench.admin
    made = config_map(a="1")
    made["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    await admin.create(CONFIG_MAP, made, "default")
    marked = await admin.delete(CONFIG_MAP, "settings", "default")
    assert marked["metadata"]["deletionTimestamp"]
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 0
    with bench.refused(
        422,
        "Invalid",
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being "
        'deleted, found new finalizers []string{"example.com/c"}',
    ):
        more = {"metadata": {"finalizers": ["example.com/a", "example.com/b", "example.com/c"]}}
        await admin.patch(CONFIG_MAP, "settings", "default", more)
    with bench.refused(409, "AlreadyExists"):
        await admin.create(CONFIG_MAP, config_map(), "default")
    one = {"metadata": {"finalizers": ["example.com/b"]}}
    await admin.patch(CONFIG_MAP, "settings", "default", one)
    async with watching(admin, CONFIG_MAP) as watched:
        await admin.patch(CONFIG_MAP, "settings", "default", {"metadata": {"finalizers": None}})
        assert await watched.next() == ("DELETED", "settings")
    assert await admin.find(CONFIG_MAP, "settings", "default") is None


@served()
async def test_a_pod_with_a_finalizer_outlives_its_containers(bench: Bench) -> None:
    admin = bench.admin
    await _bound(bench)
    patch = {"metadata": {"finalizers": ["example.com/hold"]}}
    await admin.patch(POD, "web", "default", patch)
    await admin.delete(POD, "web", "default", grace_s=7)
    released = {"metadata": {"finalizers": None}}
    # Within the grace period the kubelet has the last word even without finalizers.
    await admin.patch(POD, "web", "default", released)
    assert (await admin.get(POD, "web", "default"))["metadata"]["deletionGracePeriodSeconds"] == 7
    await admin.delete(POD, "web", "default", grace_s=0)
    assert await admin.find(POD, "web", "default") is None


@served()
async def test_propagation_policies_are_left_to_the_garbage_collector(bench: Bench) -> None:
    admin = bench.admin
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        await admin.create(DEPLOYMENT, deployment(policy.lower()), "default")
        found = await admin.delete(DEPLOYMENT, policy.lower(), "default", propagation=policy)
        assert found["metadata"]["finalizers"] == [finalizer]
        assert found["metadata"]["deletionTimestamp"]
    await admin.delete(DEPLOYMENT, "foreground", "default", propagation="Background")
    assert await admin.find(DEPLOYMENT, "foreground", "default") is None
    await admin.create(DEPLOYMENT, deployment("background"), "default")
    gone = await admin.delete(DEPLOYMENT, "background", "default", propagation="Background")
    assert (gone["kind"], gone["status"]) == ("Status", "Success")
    assert gone["details"]["group"] == "apps"
    with bench.refused(422, "Invalid", 'propagationPolicy: Unsupported value: "Never"'):
        await admin.delete(DEPLOYMENT, "orphan", "default", propagation="Never")


@served()
async def test_preconditions_protect_another_object_of_the_same_name(bench: Bench) -> None:
    admin = bench.admin
    made = await admin.create(CONFIG_MAP, config_map(), "default")
    with bench.refused(
        409, "Conflict", 'ConfigMap "settings": the UID in the precondition (other)'
    ):
        await admin.delete(CONFIG_MAP, "settings", "default", uid="other")
    with bench.refused(
        409, "Conflict", "the ResourceVersion in the precondition (1) does not match"
    ):
        await admin.delete(CONFIG_MAP, "settings", "default", resource_version="1")
    await admin.delete(CONFIG_MAP, "settings", "default", uid=made["metadata"]["uid"])
    with bench.refused(404, "NotFound"):
        await admin.delete(CONFIG_MAP, "settings", "default")


@served()
async def test_a_collection_is_deleted_by_selector(bench: Bench) -> None:
    admin = bench.admin
    for name, label in (("a", "x"), ("b", "y"), ("c", "x")):
        made = config_map(name)
        made["metadata"]["labels"] = {"kind": label}
        await admin.create(CONFIG_MAP, made, "default")
    gone = await admin.delete_collection(CONFIG_MAP, "default", labels="kind=x")
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "c"]
    left = (await admin.list(CONFIG_MAP, "default")).items
    assert [item["metadata"]["name"] for item in left] == ["b"]


@served()
async def test_a_namespace_takes_nothing_new_and_goes_when_it_is_finalized(bench: Bench) -> None:
    admin = bench.admin
    await admin.create(NAMESPACE, {"metadata": {"name": "gone"}})
    found = await admin.delete(NAMESPACE, "gone")
    assert found["status"]["phase"] == "Terminating"
    assert found["spec"]["finalizers"] == ["kubernetes"]
    with bench.refused(403, "Forbidden", "because it is being terminated"):
        made = config_map()
        made["metadata"]["namespace"] = "gone"
        await admin.create(CONFIG_MAP, made, "gone")
    assert bench.refusal is not None
    assert bench.refusal.details["causes"][0]["reason"] == "NamespaceTerminating"
    again = await admin.delete(NAMESPACE, "gone")
    assert again["status"]["phase"] == "Terminating"
    finalized = await admin.request(
        "PUT", NAMESPACE.path(None, "gone", "finalize"), body={**found, "spec": {}}
    )
    assert finalized["metadata"]["name"] == "gone"
    assert await admin.find(NAMESPACE, "gone") is None


async def _budget(bench: Bench, allowed: int, healthy: int, desired: int = 2) -> None:
    budget = {
        "metadata": {"name": "web"},
        "spec": {"minAvailable": desired, "selector": {"matchLabels": {"app": "web"}}},
    }
    admin = bench.admin
    if await admin.find(DISRUPTION_BUDGET, "web", "default") is None:
        await admin.create(DISRUPTION_BUDGET, budget, "default")
    status = {
        "observedGeneration": 1,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": 3,
    }
    await admin.patch(DISRUPTION_BUDGET, "web", "default", {"status": status}, sub="status")


@served()
async def test_an_eviction_asks_the_disruption_budget(bench: Bench) -> None:
    admin = bench.admin
    await _bound(bench, "web", labels={"app": "web"})
    ready = [{"type": "Ready", "status": "True"}]
    running = {"status": {"phase": "Running", "conditions": ready}}
    await admin.patch(POD, "web", "default", running, sub="status")
    await _budget(bench, allowed=0, healthy=2)
    path = POD.path("default", "web", "eviction")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
    with bench.refused(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    ):
        await admin.request("POST", path, body=eviction)
    assert bench.refusal is not None
    cause = bench.refusal.details["causes"][0]
    assert cause["reason"] == "DisruptionBudget"
    assert cause["message"] == "The disruption budget web needs 2 healthy pods and has 2 currently"
    assert "deletionTimestamp" not in (await admin.get(POD, "web", "default"))["metadata"]
    await _budget(bench, allowed=1, healthy=3)
    done = await admin.request("POST", path, body=eviction)
    assert done["status"] == "Success"
    assert (await admin.get(POD, "web", "default"))["metadata"]["deletionTimestamp"]
    status = (await admin.get(DISRUPTION_BUDGET, "web", "default"))["status"]
    assert status["disruptionsAllowed"] == 0
    assert list(status["disruptedPods"]) == ["web"]


@served()
async def test_evictions_that_need_no_budget(bench: Bench) -> None:
    admin = bench.admin
    await _budget(bench, allowed=0, healthy=2)
    for name, labels, status in (
        ("other", {"app": "other"}, {"phase": "Running"}),
        ("pending", {"app": "web"}, {"phase": "Pending"}),
        ("unhealthy", {"app": "web"}, {"phase": "Running"}),
    ):
        await _bound(bench, name, labels=labels)
        await admin.patch(POD, name, "default", {"status": status}, sub="status")
        await admin.request(
            "POST", POD.path("default", name, "eviction"), body={"metadata": {"name": name}}
        )
        assert (await admin.get(POD, name, "default"))["metadata"]["deletionTimestamp"]


@served()
async def test_a_pod_is_bound_once(bench: Bench) -> None:
    found = await _bound(bench)
    assert found["spec"]["nodeName"] == "node-1"
    scheduled = [one for one in found["status"]["conditions"] if one["type"] == "PodScheduled"]
    assert [one["status"] for one in scheduled] == ["True"]
    with bench.refused(409, "Conflict", 'pod web is already assigned to node "node-1"'):
        await bench.admin.request(
            "POST",
            POD.path("default", "web", "binding"),
            body={"metadata": {"name": "web"}, "target": {"name": "node-2"}},
        )


@served()
async def test_a_freed_service_address_can_be_had_again(bench: Bench) -> None:
    admin = bench.admin
    made = {"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 1}]}}
    await admin.create(SERVICE, made, "default")
    other = {**made, "metadata": {"name": "b"}}
    with bench.refused(422, "Invalid", "provided IP is already allocated"):
        await admin.create(SERVICE, other, "default")
    await admin.delete(SERVICE, "a", "default")
    await admin.create(SERVICE, other, "default")
