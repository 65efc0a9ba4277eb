"""Whether a cluster has room for the PostgresCluster that is to be made on it.

What a manifest declares is read as far as it says something about nodes, zones and storage; whether
it is a good one is asked elsewhere (:mod:`pytest_pgo_eks.pgo.manifest`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks import shipped
from pytest_pgo_eks.clusters import detecting
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.settings import Settings

Object = dict[str, Any]

_UNITS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
# PostgreSQL with PGO's defaults, Patroni, pgBackRest and an exporter: what three instances were
# seen to use at rest, and a little to start on.
_LEAST_MEMORY = 300 * 2**20


@dataclass(frozen=True)
class Demand:
    """What a manifest asks of its cluster. ``cpu`` in cores and ``memory`` in bytes, per instance."""

    instances: int
    needs_default_class: bool
    needs_zone_label: bool
    apart: bool
    cpu: float
    memory: float


def amount(quantity: object) -> float:
    """Return a Kubernetes quantity as a number: cores, or bytes.

    :raises ValueError: it is none.
    """
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]{0,2})", str(quantity))
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{quantity!r} is no quantity")
    return float(found[1]) * _UNITS[found[2]]


def demand_of(settings: Settings) -> Demand:
    """Return what the manifest of a run asks for; nothing of one that is refused elsewhere."""
    spec = _read(_path(settings)).get("spec") or {}
    sets = [one for one in spec.get("instances") or () if isinstance(one, Mapping)]
    cpu = memory = 0.0
    for one in sets:
        requests = (one.get("resources") or {}).get("requests") or {}
        cpu = max(cpu, amount(requests.get("cpu", 0)))
        memory = max(memory, amount(requests.get("memory", 0)))
    chosen = settings.install.storage_class
    return Demand(
        instances=settings.install.replicas or sum(int(one.get("replicas", 1)) for one in sets),
        needs_default_class=not chosen
        and any(not c.get("storageClassName") for c in _claims(spec)),
        needs_zone_label=settings.install.spread != "preferred" and any(map(_spread_by_zone, sets)),
        apart=any(_apart(one) for one in sets),
        cpu=amount(settings.install.cpu or 0) or cpu,
        memory=amount(settings.install.memory or 0) or memory or _LEAST_MEMORY,
    )


def name_of(settings: Settings) -> str | None:
    """Return the name of the PostgresCluster that is to be made, None where the file has none."""
    name = _read(_path(settings)).get("metadata", {}).get("name")
    return str(name) if name else None


def api_version(settings: Settings) -> str | None:
    """Return the API version that the manifest is written in, None where the file has none."""
    found = _read(_path(settings)).get("apiVersion")
    return str(found) if found else None


def refuse(kube: Kube, demand: Demand) -> None:
    """Refuse a cluster that cannot take what is demanded.

    :raises UsageProblem: says what is there, what is needed, and the remedy.
    """
    nodes = detecting.usable(kube.list("Node"))
    if not nodes:
        raise UsageProblem(
            "no node of the cluster is ready and takes ordinary pods (cordoned, tainted or not "
            "Ready); add one, or untaint it"
        )
    if demand.needs_default_class and detecting.default_class(kube.list("StorageClass")) is None:
        raise UsageProblem(
            "the cluster has no default StorageClass and the manifest names none: kubectl patch "
            'storageclass NAME -p \'{"metadata":{"annotations":'
            '{"storageclass.kubernetes.io/is-default-class":"true"}}}\', or name one with '
            "--pgo-storage-class"
        )
    if demand.needs_zone_label and not detecting.zones(nodes):
        raise UsageProblem(
            f"no node has the label {detecting.ZONE}, which the manifest spreads instances by, so "
            f"none could be placed: kubectl label node {nodes[0]['metadata']['name']} "
            f"{detecting.ZONE}=zone-a, and so on"
        )
    if demand.apart and len(nodes) < demand.instances:
        raise UsageProblem(
            f"the manifest keeps {demand.instances} instances on different nodes, but only "
            f"{len(nodes)} of the cluster take pods; add nodes or declare fewer instances"
        )
    _refuse_small(nodes, demand)


def _refuse_small(nodes: Sequence[Object], demand: Demand) -> None:
    for name, unit, each in (("cpu", "cores", demand.cpu), ("memory", "MiB", demand.memory)):
        there = [
            amount(((one.get("status") or {}).get("allocatable") or {})[name])
            for one in nodes
            if name in ((one.get("status") or {}).get("allocatable") or {})
        ]
        if len(there) < len(nodes) or not each:
            continue
        fit = sum(int(one // each) for one in there)
        if fit < demand.instances:
            scale = 2**20 if unit == "MiB" else 1
            raise UsageProblem(
                f"{demand.instances} instances need {each / scale:g} {unit} of {name} each, but the "
                f"{len(nodes)} nodes that take pods have "
                f"{', '.join(f'{one / scale:.4g}' for one in there)}: room for {fit}; "
                "use larger nodes or a smaller manifest (--pgo-manifest)"
            )


def _path(settings: Settings) -> Path:
    return settings.manifest or shipped.fixtures() / "postgres" / "cluster.yaml"


def _read(path: Path) -> Object:
    """Return the manifest, or nothing: it is refused with its line elsewhere."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _claims(spec: Object) -> Iterator[Object]:
    for one in spec.get("instances") or ():
        yield from (one[key] for key in ("dataVolumeClaimSpec", "walVolumeClaimSpec") if key in one)
    backups = (spec.get("backups") or {}).get("pgbackrest") or {}
    for repo in backups.get("repos") or ():
        if "volume" in repo:
            yield repo["volume"].get("volumeClaimSpec") or {}


def _spread_by_zone(one: Mapping[str, Any]) -> bool:
    return any(
        rule.get("topologyKey") == detecting.ZONE
        and rule.get("whenUnsatisfiable") == "DoNotSchedule"
        for rule in one.get("topologySpreadConstraints") or ()
    )


def _apart(one: Mapping[str, Any]) -> bool:
    """Whether a set forbids two of its instances on one node."""
    affinity = (one.get("affinity") or {}).get("podAntiAffinity") or {}
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    return any(term.get("topologyKey") == "kubernetes.io/hostname" for term in terms)
