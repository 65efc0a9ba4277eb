"""Parts of pod templates that every workload shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.desired import Cluster

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def container(
    name: str,
    image: str,
    command: Sequence[str],
    mounts: Sequence[Obj],
    cluster: Cluster,
    **more: object,
) -> Obj:
    """Return a container under the restricted security context that all of PGO's have."""
    found: Obj = {
        "name": name,
        "image": image,
        "command": list(command),
        "resources": {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": list(mounts),
    }
    if cluster.spec.get("imagePullPolicy"):
        found["imagePullPolicy"] = cluster.spec["imagePullPolicy"]
    return found | {key: value for key, value in more.items() if value}


def mount(name: str, path: str, *, read_only: bool = False) -> Obj:
    found: Obj = {"name": name, "mountPath": path}
    if read_only:
        found["readOnly"] = True
    return found


def scratch() -> Obj:
    """Return the volume behind ``/tmp``: one directory for all containers of the pod."""
    return {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}}


def projected(name: str, sources: Sequence[Obj], mode: int | None = None) -> Obj:
    found: Obj = {"sources": list(sources)}
    if mode is not None:
        found["defaultMode"] = mode
    return {"name": name, "projected": found}


def from_secret(name: str, items: Mapping[str, str], *, optional: bool = False) -> Obj:
    """Return a projection of a Secret; private keys are readable by their owner only."""
    entries: list[Obj] = []
    for key, path in items.items():
        entry: Obj = {"key": key, "path": path}
        if key.endswith(".key") and key.startswith("pgbackrest"):
            entry["mode"] = 0o600
        entries.append(entry)
    source: Obj = {"name": name, "items": entries}
    if optional:
        source["optional"] = True
    return {"secret": source}


def from_config_map(name: str, items: Mapping[str, str]) -> Obj:
    entries = [{"key": key, "path": path} for key, path in items.items()]
    return {"configMap": {"name": name, "items": entries}}


def spread(cluster: Cluster, selector: Obj, given: Obj) -> list[Obj]:
    """Return the user's spread constraints, then the two PGO prefers, unless they are disabled."""
    found: list[Obj] = list(given.get("topologySpreadConstraints") or [])
    if cluster.spec.get("disableDefaultPodScheduling"):
        return found
    return found + [
        {
            "labelSelector": selector,
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
        }
        for key in (HOST, ZONE)
    ]


def data_selector(cluster: Cluster) -> Obj:
    """Return the selector of every pod that holds data: instances and repository host."""
    return {
        "matchLabels": {names.CLUSTER: cluster.name},
        "matchExpressions": [
            {"key": names.DATA, "operator": "In", "values": ["postgres", "pgbackrest"]}
        ],
    }


def security(cluster: Cluster, group: int | None) -> Obj:
    found: Obj = {"fsGroupChangePolicy": "OnRootMismatch"}
    if group is not None and not cluster.spec.get("openshift"):
        found["fsGroup"] = group
    if cluster.spec.get("supplementalGroups"):
        found["supplementalGroups"] = cluster.spec["supplementalGroups"]
    return found


def scheduling(cluster: Cluster, given: Obj) -> Obj:
    """Return what of the user's scheduling fields goes into a pod spec as it stands."""
    found = {
        field: given[name]
        for name, field in (
            ("affinity", "affinity"),
            ("tolerations", "tolerations"),
            ("priorityClassName", "priorityClassName"),
        )
        if given.get(name)
    }
    if cluster.spec.get("imagePullSecrets"):
        found["imagePullSecrets"] = cluster.spec["imagePullSecrets"]
    return found
