"""Where a pod may run, where it should, and what is said when it fits nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_pgo_eks.local.controllers.node_matching import NodeState, toleration_covers
from pytest_pgo_eks.local.controllers.scheduling_rules import Decision, decide
from pytest_pgo_eks.local.controllers.scheduling_volumes import SELECTED_NODE, PodVolumes
from pytest_pgo_eks.local.objects import Obj

from .made import needing, node, pod

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def three() -> list[NodeState]:
    return [NodeState(node(f"node-{i}", f"zone-{z}")) for i, z in ((1, "a"), (2, "b"), (3, "c"))]


def choose(candidate: Obj, nodes: list[NodeState], volumes: PodVolumes | None = None) -> Decision:
    check = volumes.refuse if volumes else (lambda _: None)
    return decide(candidate, nodes, check)


def spread(how: str, *, key: str = HOST, skew: int = 1, app: str = "db") -> Obj:
    return {
        "maxSkew": skew,
        "topologyKey": key,
        "whenUnsatisfiable": how,
        "labelSelector": {"matchLabels": {"app": app}},
    }


def anti(key: str = HOST) -> Obj:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": "db"}}}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_an_empty_cluster_takes_the_pod_by_name() -> None:
    assert choose(pod("a"), three()).node == "node-1"


def test_no_nodes_at_all() -> None:
    assert decide(pod("a"), [], lambda _: None).message == "no nodes available to schedule pods"


def test_a_cordoned_node_is_named_so() -> None:
    nodes = three()
    for state in nodes[:2]:
        state.node["spec"]["unschedulable"] = True
    assert choose(pod("a"), nodes).node == "node-3"
    nodes[2].node["spec"]["unschedulable"] = True
    assert choose(pod("a"), nodes).message == (
        "0/3 nodes are available: 3 node(s) were unschedulable. no new claims to deallocate, "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )


def test_an_unready_node_takes_nothing_before_its_taint_is_there() -> None:
    nodes = [NodeState(node("node-1", ready="Unknown")), NodeState(node("node-2"))]
    assert choose(pod("a"), nodes).node == "node-2"
    everywhere = pod("a", tolerations=[{"operator": "Exists"}])
    assert choose(everywhere, nodes[:1]).node == "node-1"


@pytest.mark.parametrize(
    ("toleration", "covered"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "k", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"value": "v"}, False),
    ],
)
def test_tolerations(toleration: dict[str, str], covered: bool) -> None:
    taint = {"key": "k", "value": "v", "effect": "NoSchedule"}
    assert toleration_covers(toleration, taint) is covered


def test_a_taint_keeps_others_out_and_is_named() -> None:
    nodes = three()
    for state in nodes:
        state.node["spec"]["taints"] = [{"key": "k", "value": "v", "effect": "NoSchedule"}]
    assert "3 node(s) had untolerated taint {k: v}" in choose(pod("a"), nodes).message
    friendly = pod("a", tolerations=[{"key": "k", "operator": "Equal", "value": "v"}])
    assert choose(friendly, nodes).node == "node-1"


def test_prefer_no_schedule_only_weighs() -> None:
    nodes = three()
    nodes[0].node["spec"]["taints"] = [{"key": "k", "effect": "PreferNoSchedule"}]
    assert choose(pod("a"), nodes).node == "node-2"
    assert choose(pod("a"), nodes[:1]).node == "node-1"


def test_node_selector_and_required_affinity() -> None:
    assert choose(pod("a", nodeSelector={ZONE: "zone-c"}), three()).node == "node-3"
    terms = [
        {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone-x"]}]},
        {"matchExpressions": [{"key": ZONE, "operator": "NotIn", "values": ["zone-a", "zone-c"]}]},
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert choose(pod("a", affinity={"nodeAffinity": required}), three()).node == "node-2"
    nowhere = pod("a", nodeSelector={"disk": "fast"})
    message = choose(nowhere, three()).message
    assert "3 node(s) didn't match Pod's node affinity/selector" in message


def test_preferred_node_affinity_weighs() -> None:
    preference = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone-b"]}]}
    preferred = [{"weight": 50, "preference": preference}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    assert choose(pod("a", affinity=affinity), three()).node == "node-2"


def test_resources_are_counted_against_allocatable() -> None:
    nodes = three()
    nodes[0].pods.append(pod("b", containers=needing("1500m")))
    nodes[1].pods.append(pod("c", containers=needing("1", "3Gi")))
    wanting = pod("a", containers=needing("600m", "2Gi"))
    assert choose(wanting, nodes).node == "node-3"
    nodes[2].pods.append(pod("d", containers=needing("2")))
    message = choose(wanting, nodes).message
    assert "1 Insufficient memory" in message
    assert "2 Insufficient cpu" in message
    assert "3 No preemption victims found for incoming pod" in message


def test_the_emptier_node_is_preferred() -> None:
    nodes = three()
    nodes[0].pods.append(pod("b", containers=needing("1")))
    assert choose(pod("a", containers=needing("100m")), nodes).node == "node-2"


def test_spreading_may_be_a_wish() -> None:
    nodes = three()
    labels = {"app": "db"}
    nodes[0].pods.append(pod("b", labels))
    nodes[1].pods.append(pod("c", labels))
    wish = pod("a", labels, topologySpreadConstraints=[spread("ScheduleAnyway")])
    assert choose(wish, nodes).node == "node-3"
    assert choose(wish, nodes[:1]).node == "node-1"


def test_spreading_may_be_a_rule() -> None:
    nodes = three()
    labels = {"app": "db"}
    for state, number in zip(nodes, (1, 1, 0), strict=True):
        state.pods.extend(pod(f"p{state.name}{i}", labels) for i in range(number))
    rule = pod("a", labels, topologySpreadConstraints=[spread("DoNotSchedule")])
    assert choose(rule, nodes).node == "node-3"
    nodes[2].node["spec"]["unschedulable"] = True
    message = choose(rule, nodes).message
    # An unschedulable node is still a domain, and an empty one: the others are too full.
    assert "2 node(s) didn't match pod topology spread constraints" in message
    assert "1 node(s) were unschedulable" in message
    assert "2 No preemption victims found for incoming pod" in message
    assert "1 Preemption is not helpful for scheduling" in message


def test_spreading_ignores_pods_that_are_going() -> None:
    nodes = three()[:2]
    labels = {"app": "db"}
    nodes[0].pods.append(pod("b", labels, terminating=True))
    nodes[1].pods.append(pod("c", labels))
    rule = pod("a", labels, topologySpreadConstraints=[spread("DoNotSchedule")])
    assert choose(rule, nodes).node == "node-1"


def test_pods_of_one_controller_are_spread_without_being_asked() -> None:
    nodes = three()
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r", "uid": "r"}}
    nodes[0].pods.append(pod("b", owner=owner))
    nodes[1].pods.extend([pod("x"), pod("y")])
    assert choose(pod("a", owner=owner), nodes).node == "node-3"


def test_required_anti_affinity_counts_in_both_directions() -> None:
    nodes = three()
    labels = {"app": "db"}
    nodes[0].pods.append(pod("b", labels))
    nodes[1].pods.append(pod("c", {"app": "other"}, affinity=anti()))
    assert choose(pod("a", labels, affinity=anti()), nodes).node == "node-3"
    nodes[2].node["spec"]["unschedulable"] = True
    message = choose(pod("a", labels, affinity=anti()), nodes).message
    assert "1 node(s) didn't match pod anti-affinity rules" in message
    assert "1 node(s) didn't satisfy existing pods anti-affinity rules" in message


def test_anti_affinity_is_of_its_namespace() -> None:
    nodes = three()[:1]
    nodes[0].pods.append(pod("b", {"app": "db"}, namespace="elsewhere"))
    assert choose(pod("a", {"app": "db"}, affinity=anti()), nodes).node == "node-1"


def test_required_affinity_lets_the_first_of_a_group_go_anywhere() -> None:
    term = {"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "db"}}}
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    nodes = three()
    assert choose(pod("a", {"app": "db"}, affinity=affinity), nodes).node == "node-1"
    message = choose(pod("a", {"app": "web"}, affinity=affinity), nodes).message
    assert "3 node(s) didn't match pod affinity rules" in message
    nodes[1].pods.append(pod("b", {"app": "db"}))
    assert choose(pod("a", {"app": "web"}, affinity=affinity), nodes).node == "node-2"


def test_host_ports_collide() -> None:
    port = [{"name": "m", "ports": [{"containerPort": 80, "hostPort": 80}]}]
    nodes = three()[:2]
    nodes[0].pods.append(pod("b", containers=port))
    assert choose(pod("a", containers=port), nodes).node == "node-2"


def claim(name: str, **more: Any) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "default", "annotations": {}}
        | more.pop("meta", {}),
        "spec": {"storageClassName": "late"} | more.pop("spec", {}),
        "status": more,
    }


LATE: Obj = {"volumeBindingMode": "WaitForFirstConsumer", "metadata": {"name": "late"}}


def with_claim(found: Obj | None, volume: Obj | None = None, by: Obj | None = LATE) -> PodVolumes:
    wanting = pod("a", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}])
    return PodVolumes.of(wanting, lambda _: found, lambda _: volume, lambda _: by)


def test_the_volume_decides_the_node() -> None:
    expression = {"key": ZONE, "operator": "In", "values": ["zone-b"]}
    terms = [{"matchExpressions": [expression]}]
    volume = {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}
    volumes = with_claim(claim("c", phase="Bound", spec={"volumeName": "pv"}), volume)
    nodes = three()
    assert choose(pod("a"), nodes, volumes).node == "node-2"
    nodes[1].node["spec"]["unschedulable"] = True
    # Word for word what a real scheduler said in this situation.
    assert choose(pod("a"), nodes, volumes).message == (
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match "
        "PersistentVolume's node affinity. no new claims to deallocate, preemption: 0/3 nodes are "
        "available: 3 Preemption is not helpful for scheduling."
    )


def test_a_missing_or_dying_claim_is_named() -> None:
    assert with_claim(None).problem == 'persistentvolumeclaim "c" not found. not found'
    dying = claim("c", meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    problem = with_claim(dying).problem
    assert problem == 'persistentvolumeclaim "c" is being deleted. not found'


def test_a_claim_bound_at_once_must_be_bound_first() -> None:
    at_once = {"volumeBindingMode": "Immediate"}
    problem = with_claim(claim("c"), by=at_once).problem
    assert problem is not None
    assert problem.startswith("pod has unbound immediate PersistentVolumeClaims")


def test_a_claim_under_way_keeps_its_node() -> None:
    under_way = claim("c", meta={"annotations": {SELECTED_NODE: "node-3"}})
    volumes = with_claim(under_way)
    assert len(volumes.waiting) == 1
    assert choose(pod("a"), three(), volumes).node == "node-3"
