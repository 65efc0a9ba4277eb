"""Faults through AWS, aimed at the instance that is the primary now."""

from __future__ import annotations

from pytest_pgo_eks.clusters.base import AwsSide
from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.faults.cloud import (
    ZONE,
    InstanceGone,
    VolumeDetached,
    ZoneClosed,
    ZoneEmptied,
)
from pytest_pgo_eks.pgo import Instance, names
from pytest_pgo_eks.scenario import roles
from pytest_pgo_eks.scenario.stage import Stage

# Past the page cache, or a write to a device that is gone would succeed.
_WRITE = (
    "f=$PGDATA/../.pgo-write-test; "
    "dd if=/dev/zero of=$f bs=4096 count=1 oflag=direct conv=fsync 2>/dev/null; s=$?; "
    "rm -f $f; exit $s"
)
_WRITE_S = 30.0


def stop_instance(stage: Stage, aws: AwsSide) -> None:
    """Stop the EC2 instance under the primary."""
    node = _node(_primary(stage))
    stage.bench.inject(InstanceGone(aws.clients, stage.kube, node, terminate=False))


def terminate_instance(stage: Stage, aws: AwsSide) -> None:
    """Terminate the EC2 instance under the primary."""
    node = _node(_primary(stage))
    stage.bench.inject(InstanceGone(aws.clients, stage.kube, node, terminate=True))


def detach_volume(stage: Stage, aws: AwsSide) -> None:
    """Detach the data volume of the primary.

    :raises Inconclusive: its claim cannot be found.
    """
    one = _primary(stage)
    labels = {names.CLUSTER: stage.postgres.name, names.INSTANCE: one.name, names.DATA: "postgres"}
    claims = stage.kube.list("PersistentVolumeClaim", stage.namespace, labels=labels)
    data = [c for c in claims if c["metadata"]["labels"].get(names.ROLE) == "pgdata"]
    if len(data) != 1:
        raise Inconclusive(f"{one.pod} has {len(data)} claims for data, expected one")

    def write() -> int:
        done = stage.kube.exec(
            stage.namespace,
            one.pod,
            ["bash", "-c", _WRITE],
            container=names.DATABASE,
            deadline_s=_WRITE_S,
        )
        return done.exit_status

    claim = data[0]["metadata"]["name"]
    stage.bench.inject(VolumeDetached(aws.clients, stage.kube, stage.namespace, claim, write))


def empty_zone(stage: Stage, aws: AwsSide) -> None:
    """Take the nodes of the primary's zone away."""
    zone = _zone(_primary(stage))
    stage.bench.inject(ZoneEmptied(aws.clients, stage.kube, aws.cluster, zone))


def close_zone(stage: Stage, aws: AwsSide) -> None:
    """Deny the primary's zone all traffic."""
    zone = _zone(_primary(stage))
    nodes = [
        node["metadata"]["name"]
        for node in stage.kube.list("Node")
        if node["metadata"].get("labels", {}).get(ZONE) == zone
    ]
    stage.bench.inject(ZoneClosed(aws.clients, stage.kube, zone, nodes, aws.tags))


def _primary(stage: Stage) -> Instance:
    seen = stage.remember() if stage.before is None else stage.postgres.observe(sql=True)
    return roles.primary(seen)


def _node(one: Instance) -> str:
    if one.node is None:
        raise Inconclusive(f"{one.pod} is on no node")
    return one.node


def _zone(one: Instance) -> str:
    if not one.zone:
        raise Inconclusive(f"the node of {one.pod} is in no zone")
    return one.zone
