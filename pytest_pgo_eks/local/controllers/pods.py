"""What controllers need to know about a pod, and how they make one from a template."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from decimal import Decimal

from pytest_pgo_eks.local.controllers.clock import epoch
from pytest_pgo_eks.local.controllers.merging import condition_of
from pytest_pgo_eks.local.controllers.quantities import quantity
from pytest_pgo_eks.local.objects import Obj


def phase(pod: Obj) -> str:
    """Return the pod's phase; a new pod is Pending."""
    return (pod.get("status") or {}).get("phase") or "Pending"


def is_terminal(pod: Obj) -> bool:
    """Say whether the pod has run to its end, well or badly."""
    return phase(pod) in ("Succeeded", "Failed")


def is_terminating(pod: Obj) -> bool:
    """Say whether the pod is being deleted."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Obj) -> bool:
    """Say whether the pod's Ready condition is True."""
    condition = condition_of(pod, "Ready")
    return condition is not None and condition["status"] == "True"


def is_running_and_ready(pod: Obj) -> bool:
    return phase(pod) == "Running" and is_ready(pod)


def available_in(pod: Obj, min_ready_s: float) -> float | None:
    """Return the seconds until the pod counts as available: 0 now, None while it is not ready."""
    condition = condition_of(pod, "Ready")
    if condition is None or condition["status"] != "True":
        return None
    if not min_ready_s:
        return 0.0
    return max(0.0, epoch(condition.get("lastTransitionTime")) + min_ready_s - time.time())


def node_of(pod: Obj) -> str:
    """Return the node the pod is bound to, or the empty string."""
    found: str = pod["spec"].get("nodeName") or ""
    return found


def claims_of(pod: Obj) -> list[str]:
    """Return the names of the PersistentVolumeClaims that the pod's volumes use."""
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or []
        if volume.get("persistentVolumeClaim")
    ]


def requests_of(pod: Obj) -> dict[str, Decimal]:
    """Return the resources the pod asks for, as the scheduler counts them.

    The sum over containers and sidecars, or the largest init container where that is more
    (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers).
    """
    spec = pod["spec"]
    total: dict[str, Decimal] = {}
    peak: dict[str, Decimal] = {}
    for container in spec.get("containers") or []:
        _add(total, _requests(container))
    sidecars: dict[str, Decimal] = {}
    for container in spec.get("initContainers") or []:
        own = _requests(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, own)
            _add(total, own)
        else:
            for name, amount in own.items():
                peak[name] = max(peak.get(name, Decimal(0)), amount + sidecars.get(name, 0))
    for name, amount in peak.items():
        total[name] = max(total.get(name, Decimal(0)), amount)
    _add(total, {name: quantity(v) for name, v in (spec.get("overhead") or {}).items()})
    return total


def owner_reference(owner: Obj) -> Obj:
    """Return the reference by which a controller owns what it made."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_from_template(
    owner: Obj, template: Obj, *, labels: Mapping[str, str] | None = None, name: str | None = None
) -> Obj:
    """Return a new pod of a controller's template; without ``name`` the API server makes one."""
    found = template.get("metadata") or {}
    metadata: Obj = {
        "generateName": f"{owner['metadata']['name']}-",
        "namespace": owner["metadata"]["namespace"],
        "labels": {**(found.get("labels") or {}), **(labels or {})},
        "ownerReferences": [owner_reference(owner)],
    }
    if found.get("annotations"):
        metadata["annotations"] = dict(found["annotations"])
    if found.get("finalizers"):
        metadata["finalizers"] = list(found["finalizers"])
    if name:
        metadata["name"] = name
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": copy.deepcopy(template["spec"]),
    }


def _requests(container: Obj) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    amounts = dict(resources.get("limits") or {}) | dict(resources.get("requests") or {})
    return {name: quantity(amount) for name, amount in amounts.items()}


def _add(total: dict[str, Decimal], more: Mapping[str, Decimal]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount
