"""What a cluster is said to be able to do: seen to be so, and seen to be not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_pgo_eks.clusters import detecting, enforcement
from pytest_pgo_eks.errors import ApiProblem, NotFound
from pytest_pgo_eks.progress import silent

from .api import node, ready, storage_class

Object = dict[str, Any]


@dataclass
class Said:
    stdout: bytes
    stderr: bytes = b""
    exit_status: int = 0


@dataclass
class Pods:
    """Just enough of a client: pods run at once, and ``reaches`` decides about each connection.

    It is asked with the policies that there are, and with how often it was asked.
    """

    reaches: Callable[[int, int], bool]
    waiting: str | None = None
    objects: set[tuple[str, str]] = field(default_factory=set)
    tried: int = 0

    def create(self, manifest: Object) -> Object:
        self.objects.add((manifest["kind"], manifest["metadata"]["name"]))
        return manifest

    def get(self, kind: str, name: str, _namespace: str) -> Object:
        assert (kind, name) in self.objects
        if self.waiting:
            state = {"waiting": {"reason": self.waiting, "message": "no such image"}}
            return {"status": {"phase": "Pending", "containerStatuses": [{"state": state}]}}
        return {"status": {"phase": "Running", "podIP": "10.0.0.1"}}

    def exec(self, *_: Any, **__: Any) -> Said:
        self.tried += 1
        policies = sum(kind == "NetworkPolicy" for kind, _ in self.objects)
        return Said(b"connected" if self.reaches(policies, self.tried) else b"TimeoutError")

    def delete(self, kind: str, name: str, _namespace: str, **_: Any) -> None:
        if (kind, name) not in self.objects:
            raise NotFound(name, status=404)
        self.objects.remove((kind, name))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforcement, "_EFFECT_S", 0.3)
    monkeypatch.setattr(enforcement, "_HOLDS_S", 0.2)


def tried(pods: Pods) -> str | None:
    client: Any = pods
    found = enforcement.problem(client, "ns", image="python", within_s=1.0)
    assert not pods.objects, "nothing is left behind"
    return found


@pytest.mark.usefixtures("quick")
class TestPolicies:
    def test_enforced_means_stopped_and_back_again(self) -> None:
        assert tried(Pods(lambda policies, _: not policies)) is None

    def test_a_policy_that_stops_nothing(self) -> None:
        assert "stopped nothing" in str(tried(Pods(lambda *_: True)))

    def test_pods_that_never_reach_each_other_prove_nothing(self) -> None:
        said = str(tried(Pods(lambda *_: False)))
        assert "do not reach each other even without a policy" in said

    def test_a_policy_that_lets_through_now_and_then(self) -> None:
        pods = Pods(lambda policies, count: not policies or count > 2)
        assert "stopped nothing" in str(tried(pods))

    def test_a_connection_that_does_not_come_back(self) -> None:
        pods = Pods(lambda policies, count: not policies and count == 1)
        assert "did not come back" in str(tried(pods))

    def test_an_image_that_cannot_be_pulled(self) -> None:
        said = str(tried(Pods(lambda *_: True, waiting="ErrImagePull")))
        assert said.startswith("it could not be tried")
        assert "ErrImagePull: no such image" in said


@dataclass
class Cluster:
    """Answers what detection asks, except for the pods of the policy's proof."""

    nodes: list[Object]
    classes: list[Object]
    groups: tuple[str, ...] = ()
    snapshots: bool = False
    privileged: bool = True
    version: str = "v1.34.3-eks-abc"

    def list(self, kind: str) -> list[Object]:
        if kind == "Node":
            return self.nodes
        if kind == "StorageClass":
            return self.classes
        assert kind.endswith("VolumeSnapshotClass")
        if not self.snapshots:
            raise NotFound("no kind", status=404)
        return [{"metadata": {"name": "s"}}]

    def server_version(self) -> str:
        return self.version

    def raw(self, method: str, path: str, body: Any = None) -> Any:
        if path == "/apis":
            return {"groups": [{"name": name} for name in self.groups]}
        assert (method, path) == ("POST", "/api/v1/namespaces/ns/pods?dryRun=All")
        assert body["spec"]["containers"][0]["securityContext"] == {"privileged": True}
        if not self.privileged:
            raise ApiProblem("POST pods: 403 Forbidden: violates PodSecurity", status=403)
        return body


def detected(cluster: Cluster, **more: Any) -> detecting.Facts:
    client: Any = cluster
    given: Any = {"denied": ("network-policy",), **more}
    return detecting.detect(client, "ns", image="i", progress=silent(), within_s=1.0, **given)


def nodes(zones: str) -> list[Object]:
    return [
        {**node(f"n{number}", f"zone-{zone}"), **ready()} for number, zone in enumerate(zones, 1)
    ]


def test_a_large_cluster_has_what_it_shows() -> None:
    grows = {**storage_class(), "allowVolumeExpansion": True}
    rich = Cluster(nodes("abc"), [grows], groups=("metrics.k8s.io",), snapshots=True)
    for one in rich.nodes:
        one["spec"]["providerID"] = "aws:///eu-central-1a/i-1"
    found = detected(rich)
    assert {
        "zones",
        "node-drain",
        "volume-expansion",
        "volume-snapshots",
        "metrics",
        "privileged-pods",
        "load-balancer",
        "real-kubernetes",
        "real-eks",
    } <= found.capabilities
    assert (found.nodes, found.zones) == (3, ("zone-a", "zone-b", "zone-c"))
    assert found.storage_class == "plain"


def test_a_small_one_lacks_each_with_its_reason() -> None:
    poor = Cluster(nodes("a"), [storage_class()], privileged=False, version="v1.34.1+k3s1")
    found = detected(poor)
    assert not found.capabilities & {"zones", "node-drain", "volume-expansion", "metrics"}
    assert "1 zones (zone-a)" in found.lacks["zones"]
    assert "1 node takes pods" in found.lacks["node-drain"]
    assert "plain does not allow expansion" in found.lacks["volume-expansion"]
    assert "violates PodSecurity" in found.lacks["privileged-pods"]
    assert "rights" in found.lacks["network-policy"]
    assert not found.capabilities & found.lacks.keys()


def test_nodes_that_take_no_pods_are_no_places() -> None:
    three = nodes("abc")
    three[0]["spec"]["taints"] = [{"key": "mine", "effect": "NoSchedule"}]
    three[1]["spec"]["unschedulable"] = True
    assert [one["metadata"]["name"] for one in detecting.usable(three)] == ["n3"]
    assert detected(Cluster(three, [])).zones == ("zone-c",)


def test_nodes_that_stand_in_are_no_kubernetes() -> None:
    standing = nodes("abc")
    for one in standing:
        one["status"]["nodeInfo"] = {"kubeletVersion": "v1.34.0+stand-in"}
    client: Any = Cluster(standing, [])
    assert detecting.is_stand_in(client)
