"""Objects for the controllers' tests, as small as they can be."""

from __future__ import annotations

import itertools
from typing import Any

from pytest_pgo_eks.local.objects import Obj

_uids = itertools.count(1)


def uid() -> str:
    return f"uid-{next(_uids)}"


def node(name: str, zone: str = "", *, ready: str = "True", **spec: Any) -> Obj:
    labels = {"kubernetes.io/hostname": name}
    if zone:
        labels["topology.kubernetes.io/zone"] = zone
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "conditions": [
                {"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
            ],
        },
    }


def pod(
    name: str,
    labels: dict[str, str] | None = None,
    *,
    namespace: str = "default",
    ready: bool | None = None,
    phase: str = "Running",
    ip: str | None = None,
    node_name: str | None = None,
    terminating: bool = False,
    owner: Obj | None = None,
    **spec: Any,
) -> Obj:
    metadata: Obj = {
        "name": name,
        "namespace": namespace,
        "uid": uid(),
        "labels": labels or {},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    if owner:
        metadata["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
            }
        ]
    made: Obj = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "main", "image": "x"}], **spec},
        "status": {"phase": phase},
    }
    if node_name:
        made["spec"]["nodeName"] = node_name
    if ip:
        made["status"]["podIP"] = ip
    if ready is not None:
        made["status"]["conditions"] = [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "lastTransitionTime": "2026-01-01T00:00:30Z",
            }
        ]
    return made


def needing(cpu: str, memory: str = "0") -> list[Obj]:
    requests = {"cpu": cpu, "memory": memory}
    return [{"name": "main", "image": "x", "resources": {"requests": requests}}]
