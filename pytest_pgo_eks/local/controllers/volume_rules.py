"""Which volume a claim gets, and what a new one looks like: decided without I/O."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pytest_pgo_eks.local.controllers.node_matching import HOSTNAME, ZONE
from pytest_pgo_eks.local.controllers.quantities import quantity
from pytest_pgo_eks.local.controllers.scheduling_volumes import volume_fits
from pytest_pgo_eks.local.objects import Obj, key, labels_of, matches

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
STORAGE_PROVISIONER_BETA = "volume.beta.kubernetes.io/storage-provisioner"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def requested(claim: Obj) -> str:
    """Return the size the claim asks for, as it is written."""
    found: str = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0")
    return found


def belongs_to(volume: Obj, claim: Obj) -> bool:
    """Say whether the volume is reserved for, or bound to, exactly this claim."""
    reference = volume["spec"].get("claimRef") or {}
    if (reference.get("namespace", ""), reference.get("name")) != key(claim):
        return False
    return reference.get("uid") in (None, "", claim["metadata"]["uid"])


def best_volume(claim: Obj, volumes: Iterable[Obj], node: Obj | None) -> Obj | None:
    """Return the smallest existing volume that satisfies the claim; None to make a new one."""
    wanted = claim["spec"]
    size = quantity(requested(claim))
    fitting = []
    for volume in volumes:
        spec = volume["spec"]
        if volume["metadata"].get("deletionTimestamp"):
            continue
        if wanted.get("volumeName"):
            if volume["metadata"]["name"] != wanted["volumeName"]:
                continue
        elif spec.get("claimRef") and not belongs_to(volume, claim):
            continue
        if spec.get("claimRef"):
            if belongs_to(volume, claim):
                return volume
            continue
        if (
            (spec.get("storageClassName") or "") == (wanted.get("storageClassName") or "")
            and set(wanted.get("accessModes") or []) <= set(spec.get("accessModes") or [])
            and quantity((spec.get("capacity") or {}).get("storage")) >= size
            and spec.get("volumeMode", "Filesystem") == wanted.get("volumeMode", "Filesystem")
            and (wanted.get("selector") is None or matches(wanted["selector"], labels_of(volume)))
            and (node is None or volume_fits(volume, node))
        ):
            fitting.append(volume)
    return min(
        fitting,
        key=lambda v: (quantity(v["spec"]["capacity"]["storage"]), v["metadata"]["name"]),
        default=None,
    )


def new_volume(claim: Obj, storage_class: Obj, node: Obj | None, root: Path) -> Obj:
    """Return the volume for a claim: a directory, usable in the zone of the chosen node.

    The zone, not the node: that is what an EBS volume is tied to, so what a drained node's or a
    lost zone's pods can do is what they could do on EKS.
    """
    namespace, name = key(claim)
    uid = claim["metadata"]["uid"]
    volume = f"pvc-{uid}"
    spec: Obj = {
        "accessModes": claim["spec"].get("accessModes") or ["ReadWriteOnce"],
        "capacity": {"storage": requested(claim)},
        "claimRef": claim_reference(claim),
        "hostPath": {
            "path": str(root / f"{volume}_{namespace}_{name}"),
            "type": "DirectoryOrCreate",
        },
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
        "storageClassName": storage_class["metadata"]["name"],
        "volumeMode": claim["spec"].get("volumeMode", "Filesystem"),
    }
    if node is not None:
        labels = labels_of(node)
        topology = ZONE if ZONE in labels else HOSTNAME
        expression = {
            "key": topology,
            "operator": "In",
            "values": [labels.get(topology, node["metadata"]["name"])],
        }
        spec["nodeAffinity"] = {
            "required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
        }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": volume,
            "annotations": {PROVISIONED_BY: storage_class["provisioner"]},
            "finalizers": [VOLUME_FINALIZER],
        },
        "spec": spec,
    }


def claim_reference(claim: Obj) -> Obj:
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }


def default_class(classes: Iterable[Obj]) -> Obj | None:
    """Return the default StorageClass; of several the newest, as the API server's admission does."""
    defaults = [
        c for c in classes if (c["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    return max(
        defaults,
        key=lambda c: (c["metadata"].get("creationTimestamp", ""), c["metadata"]["name"]),
        default=None,
    )
