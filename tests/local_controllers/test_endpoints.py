"""Endpoints and slices: who is behind a Service, and how rarely it is written."""

from __future__ import annotations

import asyncio

from pytest_pgo_eks.local.controllers.endpoint_rules import (
    endpoints_for,
    mirrored_slices,
    ports_for,
    same_slice,
    slices_for,
)
from pytest_pgo_eks.local.objects import ENDPOINT_SLICE, ENDPOINTS, POD, SERVICE, Obj

from .conftest import Bed, Tell
from .made import pod

ZONES = {"node-1": "zone-a"}


def service(name: str = "db", selector: dict[str, str] | None = None, **spec: object) -> Obj:
    ports = [{"name": "postgres", "port": 5432, "targetPort": "postgres", "protocol": "TCP"}]
    made: Obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": "svc",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"ports": ports, **spec},
    }
    if selector is not None:
        made["spec"]["selector"] = selector
    return made


def serving(name: str, ip: str = "10.0.0.1", port: int = 5432, **state: object) -> Obj:
    ports = [{"name": "postgres", "containerPort": port}]
    containers = [{"name": "main", "image": "x", "ports": ports}]
    state = {"ready": True, "node_name": "node-1"} | state
    return pod(name, {"app": "db"}, ip=ip, containers=containers, **state)  # type: ignore[arg-type]


def test_a_slice_says_node_zone_and_all_conditions() -> None:
    one = serving("a")
    (made,) = slices_for(service(), [one], ZONES)
    assert made["endpoints"] == [
        {
            "addresses": ["10.0.0.1"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {
                "kind": "Pod",
                "namespace": "default",
                "name": "a",
                "uid": one["metadata"]["uid"],
            },
            "nodeName": "node-1",
            "zone": "zone-a",
        }
    ]
    assert made["ports"] == [{"name": "postgres", "protocol": "TCP", "port": 5432}]
    assert made["metadata"]["labels"] == {
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": "db",
    }


def test_a_terminating_pod_still_serves_but_is_not_ready() -> None:
    (made,) = slices_for(service(), [serving("a", terminating=True)], ZONES)
    assert made["endpoints"][0]["conditions"] == {
        "ready": False,
        "serving": True,
        "terminating": True,
    }
    assert "subsets" not in endpoints_for(service(), [serving("a", terminating=True)])


def test_unready_and_finished_pods() -> None:
    pods = [serving("a", ready=False), serving("b", phase="Succeeded"), serving("c", ip=None)]  # type: ignore[arg-type]
    (subset,) = endpoints_for(service(), pods)["subsets"]
    assert "addresses" not in subset
    assert [a["targetRef"]["name"] for a in subset["notReadyAddresses"]] == ["a"]
    (made,) = slices_for(service(), pods, ZONES)
    assert [e["conditions"]["ready"] for e in made["endpoints"]] == [False]


def test_publishing_what_is_not_ready() -> None:
    every = service(publishNotReadyAddresses=True)
    (subset,) = endpoints_for(every, [serving("a", ready=False)])["subsets"]
    assert len(subset["addresses"]) == 1
    (made,) = slices_for(every, [serving("a", ready=False)], ZONES)
    assert made["endpoints"][0]["conditions"]["ready"] is True
    assert made["endpoints"][0]["conditions"]["serving"] is False


def test_named_ports_differ_from_pod_to_pod() -> None:
    made = slices_for(service(), [serving("a"), serving("b", "10.0.0.2", 5433)], ZONES)
    assert sorted(s["ports"][0]["port"] for s in made) == [5432, 5433]
    assert ports_for(service(), pod("none")) is None


def test_a_headless_service_without_ports_has_addresses_all_the_same() -> None:
    headless = service(clusterIP="None")
    headless["spec"]["ports"] = []
    (made,) = slices_for(headless, [serving("a", subdomain="db", hostname="a")], ZONES)
    assert made["ports"] == []
    assert made["endpoints"][0]["hostname"] == "a"
    assert made["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    found = endpoints_for(headless, [serving("a", subdomain="other", hostname="a")])
    assert "hostname" not in found["subsets"][0]["addresses"][0]
    assert "ports" not in found["subsets"][0]


def test_no_pods_means_one_empty_slice_and_no_subsets() -> None:
    (made,) = slices_for(service(), [], ZONES)
    assert made["endpoints"] == []
    assert "subsets" not in endpoints_for(service(), [])


def test_the_trigger_time_alone_is_no_reason_to_write() -> None:
    one = serving("a")
    (known,) = slices_for(service(), [one], ZONES)
    (later,) = slices_for(service(), [one], ZONES)
    later["metadata"]["annotations"] = {
        "endpoints.kubernetes.io/last-change-trigger-time": "2027-01-01T00:00:00Z"
    }
    assert same_slice(known, later)
    later["metadata"]["labels"] = {}
    assert not same_slice(known, later)


def patroni(renewed: str, ip: str = "10.0.0.1") -> Obj:
    target = {"kind": "Pod", "name": "db-0", "namespace": "default", "uid": "p"}
    address = {"ip": ip, "hostname": "db-0", "nodeName": "node-1", "targetRef": target}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "ha",
            "namespace": "default",
            "uid": "e",
            "labels": {"cluster": "hippo"},
            "annotations": {"leader": "db-0", "renewTime": renewed},
        },
        "subsets": [
            {
                "addresses": [address],
                "ports": [{"name": "postgres", "port": 5432, "protocol": "TCP"}],
            }
        ],
    }


def test_a_mirrored_slice_is_as_recorded() -> None:
    (made,) = mirrored_slices(patroni("1"))
    assert made["metadata"]["annotations"] == {"leader": "db-0", "renewTime": "1"}
    assert made["metadata"]["labels"] == {
        "cluster": "hippo",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
        "kubernetes.io/service-name": "ha",
    }
    assert made["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
    assert made["endpoints"][0]["conditions"] == {"ready": True}
    assert made["endpoints"][0]["hostname"] == "db-0"
    assert not same_slice(made, mirrored_slices(patroni("2"))[0])
    assert mirrored_slices(patroni("1") | {"subsets": []}) == []


def test_the_slice_follows_the_pod(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        made = service(selector={"app": "db"})
        made["metadata"] = {"name": "db"}
        await bed.create(SERVICE, made)
        ports = [{"name": "postgres", "containerPort": 5432}]
        containers = [{"name": "main", "image": "x", "ports": ports}]
        labels = {"app": "db"}
        await bed.create(
            POD,
            {"metadata": {"name": "db-0", "labels": labels}, "spec": {"containers": containers}},
        )
        await bed.bound("db-0")

        async def ready(wanted: list[bool]) -> bool:
            slices = await bed.every(ENDPOINT_SLICE, "kubernetes.io/service-name=db")
            found = [e["conditions"]["ready"] for s in slices for e in s["endpoints"] or []]
            endpoints = await bed.get(ENDPOINTS, "db")
            subsets = (endpoints or {}).get("subsets") or []
            addresses = sum(len(s.get("addresses") or []) for s in subsets)
            return found == wanted and addresses == sum(wanted)

        await bed.kubelet_runs("db-0", ready=False, ip="10.0.0.7")
        await bed.until(lambda: ready([False]))
        await bed.kubelet_runs("db-0", ip="10.0.0.7")
        await bed.until(lambda: ready([True]))
        await bed.patch(POD, "db-0", {"metadata": {"labels": {"app": "other"}}})
        await bed.until(lambda: ready([]))
        await bed.patch(POD, "db-0", {"metadata": {"labels": {"app": "db"}}})
        await bed.until(lambda: ready([True]))
        await bed.client.delete(POD, "db-0", "default", grace_s=0)
        await bed.until(lambda: ready([]))

    tell(story)


def test_mirroring_writes_in_place_and_only_when_something_changed(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        made = service("ha")
        made["metadata"] = {"name": "ha"}
        await bed.create(SERVICE, made)
        first = patroni("1")
        first["metadata"] = {k: first["metadata"][k] for k in ("name", "labels", "annotations")}
        await bed.create(ENDPOINTS, first)

        async def slice_with(renewed: str) -> Obj | None:
            slices = await bed.every(ENDPOINT_SLICE, "kubernetes.io/service-name=ha")
            assert len(slices) <= 1
            for found in slices:
                if found["metadata"]["annotations"]["renewTime"] == renewed:
                    return found
            return None

        one = await bed.until(lambda: slice_with("1"))
        await bed.patch(ENDPOINTS, "ha", {"metadata": {"annotations": {"renewTime": "2"}}})
        two = await bed.until(lambda: slice_with("2"))
        assert two["metadata"]["name"] == one["metadata"]["name"]
        assert two["metadata"].get("generation") == one["metadata"].get("generation")
        version = two["metadata"]["resourceVersion"]
        await bed.patch(ENDPOINTS, "ha", {"metadata": {"annotations": {"renewTime": "2"}}})
        await asyncio.sleep(0.2)
        same = await slice_with("2")
        assert same is not None
        assert same["metadata"]["resourceVersion"] == version
        await bed.patch(ENDPOINTS, "ha", {"subsets": []})

        async def none() -> bool:
            return not await bed.every(ENDPOINT_SLICE, "kubernetes.io/service-name=ha")

        await bed.until(none)

    tell(story)


def test_endpoints_without_a_service_are_left_alone(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.create(ENDPOINTS, {"metadata": {"name": "ha-sync"}})
        await bed.create(SERVICE, {"metadata": {"name": "gone"}, "spec": {"ports": [{"port": 1}]}})
        await bed.create(ENDPOINTS, {"metadata": {"name": "gone"}})
        await asyncio.sleep(0.1)
        await bed.client.delete(SERVICE, "gone", "default")

        async def gone() -> bool:
            return await bed.get(ENDPOINTS, "gone") is None

        await bed.until(gone)
        assert await bed.get(ENDPOINTS, "ha-sync") is not None

    tell(story)
