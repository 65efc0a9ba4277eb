"""What is done inside the cluster: a default storage class first, and an orderly end.

At the end everything for which a controller made something in AWS goes while the controllers live:
databases, then load balancers, then claims with their volumes. What does not go in time is left for
AWS's side to find by its tags.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, NotFound, WaitTimeout
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.progress import Phase, Progress

DRIVER = "ebs.csi.aws.com"
_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_FINALIZED_S = 300.0
_BALANCERS_S = 300.0
_VOLUMES_S = 300.0

GP3: dict[str, Any] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "gp3", "annotations": {_DEFAULT: "true"}},
    "provisioner": DRIVER,
    # A volume lives in one zone, so it waits for its pod's; the addon's own class is not encrypted.
    "volumeBindingMode": "WaitForFirstConsumer",
    "allowVolumeExpansion": True,
    "reclaimPolicy": "Delete",
    "parameters": {"type": "gp3", "encrypted": "true", "csi.storage.k8s.io/fstype": "ext4"},
}


def prepare(kubeconfig: Path, progress: Progress) -> None:
    """Make the encrypted gp3 class the default one, instead of whatever was."""
    with progress.phase("default storage class"), Kube(kubeconfig, request_s=30.0) as kube:
        if kube.find("CSIDriver", DRIVER) is None:
            progress.say(f"pgo: no driver {DRIVER} is registered: storage classes stay as they are")
            return
        for each in kube.list("StorageClass"):
            name = each["metadata"]["name"]
            marked = (each["metadata"].get("annotations") or {}).get(_DEFAULT) == "true"
            if marked and name != "gp3":
                change = {"metadata": {"annotations": {_DEFAULT: "false"}}}
                kube.patch("StorageClass", name, None, change)
        kube.apply(GP3, force=True)


def wind_down(kubeconfig: Path, progress: Progress) -> None:
    """Remove what has something of AWS behind it.

    :raises ApiProblem: the API server cannot be reached at all.
    """
    with (
        progress.phase("what Kubernetes made in AWS goes") as phase,
        Kube(kubeconfig, request_s=30.0) as kube,
    ):
        _gone(kube, "PostgresCluster", lambda _one: True, _FINALIZED_S, phase)
        _gone(kube, "PodDisruptionBudget", lambda _one: True, _FINALIZED_S, phase)
        _gone(kube, "Ingress", lambda _one: True, _BALANCERS_S, phase)
        _gone(kube, "Service", _has_balancer, _BALANCERS_S, phase)
        _gone(kube, "PersistentVolumeClaim", lambda _one: True, _VOLUMES_S, phase)
        _volumes_free(kube, phase)


def _has_balancer(one: dict[str, Any]) -> bool:
    return bool(one["spec"].get("type") == "LoadBalancer")


def _gone(
    kube: Kube, kind: str, chosen: Callable[[dict[str, Any]], bool], within_s: float, phase: Phase
) -> None:
    """Delete every object of a kind and wait until they are gone; those that stay are told of."""
    phase.say(kind)

    def there() -> list[str]:
        try:
            return [
                f"{one['metadata'].get('namespace')}/{one['metadata']['name']}"
                for one in kube.list(kind)
                if chosen(one)
            ]
        except NotFound:
            return []  # a kind that this cluster does not have

    for one in there():
        namespace, _, name = one.partition("/")
        with contextlib.suppress(NotFound):
            kube.delete(kind, name, namespace)
    try:
        eventually(
            there,
            accept=lambda left: not left,
            within_s=within_s,
            what=f"every {kind} to be gone",
            successes=1,
            poll_s=2.0,
            show=", ".join,
        )
    except WaitTimeout as timeout:
        phase.say(str(timeout))


def _volumes_free(kube: Kube, phase: Phase) -> None:
    """Wait until no volume is attached: one that is would survive its node as "in use"."""

    def attached() -> list[str]:
        try:
            return [one["metadata"]["name"] for one in kube.list("VolumeAttachment")]
        except (NotFound, ApiProblem):
            return []

    try:
        eventually(
            attached,
            accept=lambda left: not left,
            within_s=_VOLUMES_S,
            what="every volume to be detached",
            successes=1,
            poll_s=2.0,
            show=", ".join,
        )
    except WaitTimeout as timeout:
        phase.say(str(timeout))
