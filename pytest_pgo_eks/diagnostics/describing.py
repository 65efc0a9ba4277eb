"""What ``kubectl describe`` would say of a pod, from its object and its Events; and its host's side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from pytest_pgo_eks.diagnostics.collect import Collection, Collector
from pytest_pgo_eks.kube import Kube

Object = Mapping[str, Any]
# Space, memory and pressure as the container sees them; each line may fail on its own.
_HOST = (
    "df -h /pgdata /pgwal /pgbackrest /tmp 2>/dev/null; echo; "
    "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.current 2>/dev/null; echo; "
    "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu.stat 2>/dev/null; echo; "
    "cat /proc/pressure/cpu /proc/pressure/io /proc/pressure/memory 2>/dev/null; echo; "
    "cat /proc/loadavg; grep -E 'MemTotal|MemAvailable' /proc/meminfo"
)
_CALL_S = 10.0


def describers(kube: Kube, namespaces: Iterable[str]) -> Iterator[tuple[str, Collector]]:
    """Yield collectors for descriptions, storage and hosts of these namespaces."""
    for namespace in dict.fromkeys(namespaces):
        yield f"descriptions of {namespace}", partial(_describe_all, kube, namespace)
    yield "storage", partial(_storage, kube)


def describe(pod: Object, events: Iterable[Object]) -> str:
    """Return what there is to say of a pod: state, containers, conditions, volumes, Events."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    lines = [
        f"Name:      {meta['name']}",
        f"Namespace: {meta.get('namespace', '')}",
        f"Node:      {spec.get('nodeName', '–')}",
        f"Phase:     {status.get('phase', '–')} ({status.get('podIP', 'no address')})",
        f"Labels:    {_pairs(meta.get('labels'))}",
        f"Notes:     {_pairs(meta.get('annotations'))}",
        "Containers:",
    ]
    told = {
        one["name"]: one
        for one in [
            *(status.get("initContainerStatuses") or []),
            *(status.get("containerStatuses") or []),
        ]
    }
    for one in [*(spec.get("initContainers") or []), *spec["containers"]]:
        seen = told.get(one["name"], {})
        lines.append(f"  {one['name']}: {one['image']}, {_state(seen.get('state'))}")
        lines.append(
            f"    ready {seen.get('ready', '–')}, restarted {seen.get('restartCount', 0)} times"
            + (f", before: {_state(seen['lastState'])}" if seen.get("lastState") else "")
        )
        if one.get("resources"):
            lines.append(f"    resources {one['resources']}")
    lines.append("Conditions:")
    for one in status.get("conditions") or []:
        why = " ".join(str(one[key]) for key in ("reason", "message") if one.get(key))
        lines.append(f"  {one['type']}: {one['status']} {why}".rstrip())
    lines.append("Volumes:")
    for one in spec.get("volumes") or []:
        kind = next((key for key in one if key != "name"), "?")
        claim = (one.get("persistentVolumeClaim") or {}).get("claimName", "")
        lines.append(f"  {one['name']}: {kind} {claim}".rstrip())
    lines.append("Events:")
    mine = [e for e in events if (e.get("involvedObject") or {}).get("name") == meta["name"]]
    for one in mine:
        message = " ".join(str(one.get("message", "")).split())
        lines.append(
            f"  {one.get('lastTimestamp') or one.get('eventTime') or ''} {one.get('type', '')} "
            f"{one.get('reason', '')} x{one.get('count') or 1}: {message}"
        )
    return "\n".join([*lines, *([] if mine else ["  none"])]) + "\n"


def _describe_all(kube: Kube, namespace: str, found: Collection) -> None:
    events = kube.events(namespace)
    for pod in kube.list("Pod", namespace):
        name = pod["metadata"]["name"]
        found.write(f"describe/{name}.txt", describe(pod, events))
        names = [one["name"] for one in pod["spec"]["containers"]]
        if "database" in names and (pod.get("status") or {}).get("phase") == "Running":
            done = kube.exec(
                namespace, name, ["sh", "-c", _HOST], container="database", deadline_s=_CALL_S
            )
            found.write(f"host/{name}.txt", done.text)


def _storage(kube: Kube, found: Collection) -> None:
    lines = [
        f"StorageClass {one['metadata']['name']}: {one['provisioner']}, "
        f"{one.get('volumeBindingMode')}, expansion {one.get('allowVolumeExpansion', False)}, "
        f"reclaim {one.get('reclaimPolicy')}, {one.get('parameters') or {}}"
        for one in kube.list("storage.k8s.io/v1/StorageClass")
    ]
    for one in kube.list("PersistentVolume"):
        spec, claim = one["spec"], (one["spec"].get("claimRef") or {})
        lines.append(
            f"PersistentVolume {one['metadata']['name']}: "
            f"{(spec.get('capacity') or {}).get('storage')}, "
            f"{(one.get('status') or {}).get('phase')}, of {claim.get('namespace', '')}/"
            f"{claim.get('name', '–')}, class {spec.get('storageClassName', '–')}"
        )
    found.write("storage.txt", "\n".join(lines) + "\n")


def _pairs(found: Mapping[str, str] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted((found or {}).items())) or "–"


def _state(state: Mapping[str, Any] | None) -> str:
    if not state:
        return "no state"
    name, about = next(iter(state.items()))
    told = [f"{key} {value}" for key, value in (about or {}).items() if key != "containerID"]
    return f"{name} ({', '.join(told)})" if told else name
