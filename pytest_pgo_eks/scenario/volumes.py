"""Data volumes that may be filled: as small as their claims, and nobody else's."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.faults.disk import VolumeFull, is_own, space
from pytest_pgo_eks.faults.processes import Processes
from pytest_pgo_eks.faults.switchover import Switchover
from pytest_pgo_eks.pgo import Instance, Observation
from pytest_pgo_eks.scenario import mode, roles
from pytest_pgo_eks.scenario.stage import Stage

# The stand-in's: its other volumes are directories of one file system.
_LIMITED = "standin-limited"
_VOLUME = "postgres-data"
_SET = "small"
_SIZE = "512Mi"
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9}


def own_volume(stage: Stage) -> None:
    """Let the primary be one whose data volume may be filled.

    Where every volume is as small as its claim that is so already. Elsewhere an instance of its
    own is added for the scenario, on a volume that is, and made the primary.

    :raises Inconclusive: there are no such volumes here.
    """
    one = roles.primary(stage.postgres.observe(sql=True))
    if is_own(space(_processes(stage, one.pod)), claimed(stage, one)):
        return
    if stage.kube.find("StorageClass", _LIMITED) is None:
        raise Inconclusive(
            f"the data volume of {one.pod} is larger than its claim, and there is no storage class "
            "whose volumes are not: filling it would harm others"
        )
    before = [dict(each) for each in stage.postgres.object()["spec"]["instances"]]
    stage.later(_remove, stage, before)
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": _LIMITED,
        "resources": {"requests": {"storage": _SIZE}},
    }
    small = {"name": _SET, "replicas": 1, "dataVolumeClaimSpec": claim}
    stage.postgres.change({"spec": {"instances": [*before, small]}})
    declared, within_s = stage.postgres.declared(), stage.timeouts["postgres-ready"]
    seen = roles.all_recovered(stage.postgres, declared, within_s)
    new = next(one for one in seen.instances if one.instance_set == _SET)
    # Patroni hands over to no other than the synchronous standby, where there is one.
    with mode.asynchronous_for_now(stage):
        done = Switchover(stage.postgres, target=new, within_s=stage.timeouts["switchover"])
        try:
            done.inject()
            done.prove()
        finally:
            done.undo()
        roles.all_streaming(stage.postgres, declared, within_s)


def fill(stage: Stage, one: Instance) -> VolumeFull:
    """Return the fault that fills an instance's data volume."""
    return VolumeFull(
        _processes(stage, one.pod),
        stage.postgres.server(one.pod),
        lambda: claimed(stage, one),
    )


def claimed(stage: Stage, one: Instance) -> int:
    """Return how many bytes the claim of an instance's data volume has."""
    pod = stage.kube.get("Pod", one.pod, stage.namespace)
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or []
        if volume["name"] == _VOLUME and volume.get("persistentVolumeClaim")
    ]
    if not claims:
        raise Inconclusive(f"{one.pod} keeps its data on no claim")
    found = stage.kube.get("PersistentVolumeClaim", claims[0], stage.namespace)
    status: dict[str, Any] = found.get("status") or {}
    told = status.get("capacity") or found["spec"]["resources"]["requests"]
    return size(str(told["storage"]))


def size(quantity: str) -> int:
    """Return the bytes of a Kubernetes quantity.

    :raises Inconclusive: it is none that a volume has.

    >>> size("512Mi")
    536870912
    """
    for unit, factor in _UNITS.items():
        if quantity.endswith(unit):
            return int(float(quantity.removesuffix(unit)) * factor)
    if not quantity.isdigit():
        raise Inconclusive(f"{quantity!r} is no size of a volume")
    return int(quantity)


def _remove(stage: Stage, before: list[dict[str, Any]]) -> None:
    """Take the added instance away and wait until nobody is left of it."""
    stage.postgres.change({"spec": {"instances": before}})

    def gone(seen: Observation) -> bool:
        return not any(one.instance_set == _SET for one in seen.instances)

    within_s = stage.timeouts["healthy-again"]
    stage.postgres.wait(gone, within_s=within_s, what=f"instance set {_SET} to be removed")
    roles.all_recovered(stage.postgres, stage.postgres.declared(), within_s)


def _processes(stage: Stage, pod: str) -> Processes:
    return Processes(stage.kube, stage.namespace, pod)
