"""What a cluster can do, asked of the cluster itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_pgo_eks.clusters import enforcement
from pytest_pgo_eks.errors import ApiProblem, NotFound
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.hardening import pod_spec
from pytest_pgo_eks.progress import Progress

Object = dict[str, Any]

ZONE = "topology.kubernetes.io/zone"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_ZONES = 3
STAND_IN = "stand-in"


@dataclass(frozen=True)
class Facts:
    """What was found. ``lacks`` has the reason for each capability that is not there."""

    kubernetes: str
    nodes: int
    zones: tuple[str, ...]
    storage_class: str | None
    stand_in: bool
    capabilities: frozenset[str] = frozenset()
    lacks: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        zones = f"{len(self.zones)} zones" if len(self.zones) != 1 else "1 zone"
        nodes = f"{self.nodes} nodes" if self.nodes != 1 else "1 node"
        return (
            f"Kubernetes {self.kubernetes}, {nodes} in {zones}, storage class {self.storage_class}"
        )


class _Found:
    def __init__(self) -> None:
        self.has: set[str] = set()
        self.lacks: dict[str, str] = {}

    def note(self, name: str, problem: str | None) -> None:
        if problem is None:
            self.has.add(name)
        else:
            self.lacks[name] = problem


def usable(nodes: Sequence[Object]) -> list[Object]:
    """Return the nodes that take ordinary pods: ready, not cordoned, without a taint against them."""
    return [
        one
        for one in nodes
        if not one["spec"].get("unschedulable")
        and not any(
            taint.get("effect") in ("NoSchedule", "NoExecute")
            for taint in one["spec"].get("taints") or ()
        )
        and any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in (one.get("status") or {}).get("conditions") or ()
        )
    ]


def zones(nodes: Sequence[Object]) -> tuple[str, ...]:
    """Return the zones of these nodes, sorted."""
    found = {(one["metadata"].get("labels") or {}).get(ZONE) for one in nodes}
    return tuple(sorted(zone for zone in found if zone))


def default_class(classes: Sequence[Object]) -> Object | None:
    """Return the StorageClass that a claim without one gets: of several, the youngest."""
    marked = [
        one
        for one in classes
        if (one["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
    ]
    return max(marked, key=lambda one: one["metadata"].get("creationTimestamp", ""), default=None)


def detect(
    kube: Kube,
    namespace: str,
    *,
    image: str,
    denied: Collection[str],
    progress: Progress,
    within_s: float,
) -> Facts:
    """Look at a cluster, with a few pods in ``namespace``.

    ``denied`` are capabilities for which rights are missing. NetworkPolicies count as enforced only
    where a connection was seen to stop and to come back.
    """
    found = _Found()
    nodes = kube.list("Node")
    workers = usable(nodes)
    where = zones(workers)
    kubernetes = kube.server_version()
    stand_in = is_stand_in(kube)
    for name in ("real-kubernetes", "real-pgo"):
        found.note(name, "this is a stand-in" if stand_in else None)
    found.note("zones", _too_few_zones(where))
    drain = None if len(workers) > 1 else f"{len(workers)} node takes pods: none is left to go to"
    found.note("node-drain", _denied("node-drain", denied) or drain)
    storage = _storage(kube, found)
    snapshots = _denied("volume-snapshots", denied) or _snapshots(kube)
    found.note("volume-snapshots", snapshots)
    found.note("metrics", _metrics(kube))
    found.note("privileged-pods", _privileged(kube, namespace, image))
    found.note("load-balancer", _load_balancer(nodes))
    found.note("real-eks", _eks(kubernetes))
    found.note("object-store", "no bucket was named")
    if not (problem := _denied("network-policy", denied)):
        with progress.phase("proving that NetworkPolicies are enforced", expected_s=5):
            problem = enforcement.problem(kube, namespace, image=image, within_s=within_s)
    found.note("network-policy", problem)
    _stand_in_faults(kube, found, stand_in=stand_in)
    return Facts(
        kubernetes,
        len(workers),
        where,
        storage,
        stand_in,
        frozenset(found.has),
        dict(sorted(found.lacks.items())),
    )


def is_stand_in(kube: Kube) -> bool:
    """Whether nodes or API server say that they only stand in for the real ones."""
    return STAND_IN in kube.server_version() or any(
        STAND_IN in _kubelet(one) for one in kube.list("Node")
    )


def _kubelet(node: Object) -> str:
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", ""))


def _denied(name: str, denied: Collection[str]) -> str | None:
    return "the rights for it are missing" if name in denied else None


def _too_few_zones(where: Sequence[str]) -> str | None:
    if len(where) >= _ZONES:
        return None
    return f"its nodes are in {len(where)} zones ({', '.join(where) or 'no node has a zone label'})"


def _storage(kube: Kube, found: _Found) -> str | None:
    default = default_class(kube.list("StorageClass"))
    if default is None:
        found.note("volume-expansion", "there is no default StorageClass")
        return None
    name = str(default["metadata"]["name"])
    grows = default.get("allowVolumeExpansion")
    problem = None if grows else f"StorageClass {name} does not allow expansion"
    found.note("volume-expansion", problem)
    return name


def _snapshots(kube: Kube) -> str | None:
    try:
        classes = kube.list("snapshot.storage.k8s.io/v1/VolumeSnapshotClass")
    except NotFound:
        return "VolumeSnapshotClass is not served"
    except ApiProblem as error:
        return str(error)
    return None if classes else "there is no VolumeSnapshotClass"


def _metrics(kube: Kube) -> str | None:
    try:
        groups = kube.raw("GET", "/apis").get("groups") or ()
    except ApiProblem as error:
        return str(error)
    served = any(one.get("name") == "metrics.k8s.io" for one in groups)
    return None if served else "metrics.k8s.io is not served"


def _privileged(kube: Kube, namespace: str, image: str) -> str | None:
    """Ask for a privileged pod without making it: admission answers as if it were meant."""
    spec = pod_spec("privileged", image, ["true"])
    spec["securityContext"] = {}
    spec["containers"][0]["securityContext"] = {"privileged": True}
    meta = {"name": "pgo-privileged", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    try:
        kube.raw("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    except ApiProblem as error:
        return f"admission refuses them: {str(error).rpartition(': ')[2]}"
    return None


def _load_balancer(nodes: Sequence[Object]) -> str | None:
    clouds = {str(one["spec"].get("providerID", "")).partition(":")[0] for one in nodes}
    known = clouds & {"aws", "gce", "azure", "openstack", "digitalocean"}
    return None if known else "no cloud gives Services an address here"


def _eks(kubernetes: str) -> str | None:
    return None if "-eks-" in kubernetes else f"Kubernetes {kubernetes} is not Amazon's"


def _stand_in_faults(kube: Kube, found: _Found, *, stand_in: bool) -> None:
    """The stand-in serves faults of network and nodes to its administrator; nobody else does."""
    names = (
        *("partition", "one-way-partition", "packet-reset", "node-partition"),
        *("zone-loss", "node-loss", "packet-loss", "delay"),
    )
    able: set[str] = set()
    problem = "no Kubernetes API offers it"
    if stand_in:
        try:
            able = set(kube.raw("GET", "/stand-in/v1/faults").get("capabilities") or ())
            problem = "the stand-in cannot do it on this machine"
        except ApiProblem as error:
            problem = f"the stand-in does not let us: {error}"
    for name in names:
        found.note(name, None if name in able else problem)
