"""Faults through AWS: an instance stopped or terminated, a volume detached, a zone emptied or closed.

They hit whatever AWS hits, on the account's bill, so a run may do this only where it was allowed by
``--pgo-allow-aws-faults``. Each is proven by what AWS and Kubernetes say afterwards, and each undo
waits until the cluster has as many Ready nodes again as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.wait import eventually

ZONE = "topology.kubernetes.io/zone"
Clients = Callable[[str], Any]

#: EC2 moves an instance to "stopped" within a minute or two; a forced stop is quicker.
_EC2_S = 300.0
#: The node lease is stale after 40 s, and the controller looks every 5 s.
_NODE_S = 180.0
#: An autoscaling group replaces an instance and the new node joins in 2 to 5 minutes.
_BACK_S = 900.0
_EVERY_S = 5.0


def instance_of(node: Mapping[str, Any]) -> str:
    """Return the EC2 instance behind a Node: ``aws:///ZONE/INSTANCE`` in ``spec.providerID``.

    :raises Inconclusive: the node does not run on EC2.
    """
    provider = str(node["spec"].get("providerID", ""))
    if not provider.startswith("aws://") or "/i-" not in provider:
        raise Inconclusive(
            f"node {node['metadata']['name']} does not run on EC2: its providerID is {provider!r}"
        )
    return provider.rpartition("/")[2]


def ready_nodes(kube: Kube, zone: str | None = None) -> list[str]:
    """Return the names of the Ready nodes, of one zone or of all."""
    return sorted(
        node["metadata"]["name"]
        for node in kube.list("Node")
        if (zone is None or node["metadata"].get("labels", {}).get(ZONE) == zone)
        and any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in node.get("status", {}).get("conditions", [])
        )
    )


class InstanceGone:
    """The EC2 instance of a node, stopped or terminated; proven by EC2 and by the node's lease.

    Undo starts a stopped instance again. A managed node group may have replaced it by then, and
    replaces a terminated one in any case: what has to come back is the number of Ready nodes.
    """

    def __init__(self, clients: Clients, kube: Kube, node: str, *, terminate: bool) -> None:
        self.kind = "instance-terminated" if terminate else "instance-stopped"
        self.target = node
        self._ec2 = clients("ec2")
        self._kube = kube
        self._terminate = terminate
        self._instance = ""
        self._before = 0

    def inject(self) -> None:
        self._before = len(ready_nodes(self._kube))
        self._instance = instance_of(self._kube.get("Node", self.target, None))
        if self._terminate:
            self._ec2.terminate_instances(InstanceIds=[self._instance])
        else:
            self._ec2.stop_instances(InstanceIds=[self._instance], Force=True)

    def prove(self) -> Proof:
        wanted = ("shutting-down", "terminated") if self._terminate else ("stopped",)
        state = eventually(
            self._state,
            accept=lambda seen: seen in (*wanted, "terminated"),
            within_s=_EC2_S,
            what=f"{self._instance} to be {wanted[0]}",
            successes=1,
            poll_s=_EVERY_S,
        )
        _not_ready(self._kube, [self.target])
        return Proof(f"{self._instance} is {state} and {self.target} is no longer Ready")

    def undo(self) -> None:
        if not self._instance:
            return
        if not self._terminate and self._state() in ("stopping", "stopped"):
            eventually(
                self._state,
                accept=lambda seen: seen != "stopping",
                within_s=_EC2_S,
                what=f"{self._instance} to stop before it is started",
                successes=1,
                poll_s=_EVERY_S,
            )
            if self._state() == "stopped":
                self._ec2.start_instances(InstanceIds=[self._instance])
        _nodes_back(self._kube, self._before)

    def _state(self) -> str:
        answer = self._ec2.describe_instances(InstanceIds=[self._instance])
        found = [i for r in answer["Reservations"] for i in r["Instances"]]
        # EC2 forgets a terminated instance after an hour or so.
        return str(found[0]["State"]["Name"]) if found else "terminated"


class VolumeDetached:
    """The EBS volume of a claim torn from its instance; proven by EC2 and by what a write gets.

    ``write`` makes the database's container write to the volume and returns its exit status: a
    detached device answers with an input/output error. Undo attaches the volume where it was,
    unless Kubernetes has by then attached it somewhere itself.
    """

    kind = "volume-detached"

    def __init__(
        self, clients: Clients, kube: Kube, namespace: str, claim: str, write: Callable[[], int]
    ) -> None:
        self.target = claim
        self._ec2 = clients("ec2")
        self._kube = kube
        self._namespace = namespace
        self._write = write
        self._volume = ""
        self._was: dict[str, Any] = {}

    def inject(self) -> None:
        claim = self._kube.get("PersistentVolumeClaim", self.target, self._namespace)
        volume = self._kube.get("PersistentVolume", claim["spec"]["volumeName"], None)
        self._volume = str(volume["spec"].get("csi", {}).get("volumeHandle", ""))
        if not self._volume.startswith("vol-"):
            raise Inconclusive(f"the volume of {self.target} is not one of EBS")
        attached = self._attachments()
        if len(attached) != 1:
            raise Inconclusive(f"{self._volume} is attached {len(attached)} times")
        self._was = attached[0]
        self._ec2.detach_volume(VolumeId=self._volume, Force=True)

    def prove(self) -> Proof:
        eventually(
            self._attachments,
            accept=lambda seen: not seen,
            within_s=_EC2_S,
            what=f"{self._volume} to be detached",
            successes=1,
            poll_s=_EVERY_S,
            show=str,
        )
        status = eventually(
            self._write,
            accept=lambda seen: seen != 0,
            within_s=_NODE_S,
            what=f"a write to {self.target} to fail",
            successes=1,
            poll_s=_EVERY_S,
        )
        return Proof(
            f"{self._volume} is detached from {self._was['InstanceId']} and a write fails",
            {"exit_status": status},
        )

    def undo(self) -> None:
        if self._was and not self._attachments():
            self._ec2.attach_volume(
                VolumeId=self._volume,
                InstanceId=self._was["InstanceId"],
                Device=self._was["Device"],
            )

    def _attachments(self) -> list[dict[str, Any]]:
        (volume,) = self._ec2.describe_volumes(VolumeIds=[self._volume])["Volumes"]
        return [a for a in volume.get("Attachments", []) if a.get("State") != "detached"]


class ZoneEmptied:
    """The node group of a zone taken to no nodes; proven by no node of the zone being Ready.

    It is a loss with notice: a managed group drains its nodes first. Undo gives it back its size.
    """

    kind = "zone-emptied"

    def __init__(self, clients: Clients, kube: Kube, cluster: str, zone: str) -> None:
        self.target = zone
        self._eks = clients("eks")
        self._kube = kube
        self._cluster = cluster
        self._sizes: dict[str, dict[str, int]] = {}
        self._before = 0

    def inject(self) -> None:
        self._before = len(ready_nodes(self._kube))
        groups = {
            node["metadata"]["labels"].get("eks.amazonaws.com/nodegroup", "")
            for node in self._kube.list("Node")
            if node["metadata"].get("labels", {}).get(ZONE) == self.target
        } - {""}
        elsewhere = {
            node["metadata"]["labels"].get("eks.amazonaws.com/nodegroup", "")
            for node in self._kube.list("Node")
            if node["metadata"].get("labels", {}).get(ZONE) != self.target
        }
        if not groups or groups & elsewhere:
            raise Inconclusive(
                f"no node group is in {self.target} alone, so emptying one would take other zones "
                "with it"
            )
        for group in sorted(groups):
            found = self._eks.describe_nodegroup(clusterName=self._cluster, nodegroupName=group)
            self._sizes[group] = dict(found["nodegroup"]["scalingConfig"])
            self._resize(group, {**self._sizes[group], "minSize": 0, "desiredSize": 0})

    def prove(self) -> Proof:
        began = time.monotonic()
        eventually(
            lambda: ready_nodes(self._kube, self.target),
            accept=lambda seen: not seen,
            within_s=_BACK_S,
            what=f"no node of {self.target} to be Ready",
            successes=1,
            poll_s=_EVERY_S,
            show=", ".join,
        )
        took_s = round(time.monotonic() - began, 1)
        return Proof(f"no node of {self.target} is Ready", {"took_s": took_s})

    def undo(self) -> None:
        for group, size in self._sizes.items():
            self._resize(group, size)
        if self._sizes:
            _nodes_back(self._kube, self._before)

    def _resize(self, group: str, size: dict[str, int]) -> None:
        self._eks.update_nodegroup_config(
            clusterName=self._cluster, nodegroupName=group, scalingConfig=size
        )


class ZoneClosed:
    """Every packet from and to a zone's subnets denied by a network ACL: a loss without notice.

    A new ACL denies everything by default. Its rules have no state, so open connections are cut as
    well. Proven by EC2's associations and by the zone's nodes missing their lease. Undo gives the
    subnets back the ACL they had, and deletes ours.
    """

    kind = "zone-closed"

    def __init__(
        self, clients: Clients, kube: Kube, zone: str, nodes: list[str], tags: Mapping[str, str]
    ) -> None:
        self.target = zone
        self._ec2 = clients("ec2")
        self._kube = kube
        self._nodes = nodes
        self._tags = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._acl = ""
        self._was: dict[str, str] = {}
        self._before = 0

    def inject(self) -> None:
        self._before = len(ready_nodes(self._kube))
        subnets, vpc = self._subnets()
        made = self._ec2.create_network_acl(
            VpcId=vpc,
            TagSpecifications=[{"ResourceType": "network-acl", "Tags": self._tags}],
        )
        self._acl = made["NetworkAcl"]["NetworkAclId"]
        for association, old in self._associations(subnets).items():
            answer = self._ec2.replace_network_acl_association(
                AssociationId=association, NetworkAclId=self._acl
            )
            self._was[answer["NewAssociationId"]] = old

    def prove(self) -> Proof:
        if not self._was:
            raise TimeoutError(f"no subnet of {self.target} has a network ACL to replace")
        _not_ready(self._kube, self._nodes)
        return Proof(
            f"{len(self._was)} subnets of {self.target} are closed by {self._acl}, and "
            f"{', '.join(self._nodes)} are no longer Ready",
            {"subnets": len(self._was)},
        )

    def undo(self) -> None:
        for association, old in self._was.items():
            self._ec2.replace_network_acl_association(AssociationId=association, NetworkAclId=old)
        if self._acl:
            self._ec2.delete_network_acl(NetworkAclId=self._acl)
            _nodes_back(self._kube, self._before)

    def _subnets(self) -> tuple[list[str], str]:
        """Return the subnets that the zone's nodes stand in, and their VPC."""
        instances = [instance_of(self._kube.get("Node", name, None)) for name in self._nodes]
        answer = self._ec2.describe_instances(InstanceIds=instances)
        found = [i for r in answer["Reservations"] for i in r["Instances"]]
        return sorted({i["SubnetId"] for i in found}), str(found[0]["VpcId"])

    def _associations(self, subnets: list[str]) -> dict[str, str]:
        asked = [{"Name": "association.subnet-id", "Values": subnets}]
        return {
            one["NetworkAclAssociationId"]: one["NetworkAclId"]
            for acl in self._ec2.describe_network_acls(Filters=asked)["NetworkAcls"]
            for one in acl["Associations"]
            if one["SubnetId"] in subnets
        }


def _not_ready(kube: Kube, nodes: list[str]) -> None:
    eventually(
        lambda: sorted(set(nodes) & set(ready_nodes(kube))),
        accept=lambda seen: not seen,
        within_s=_NODE_S,
        what=f"{', '.join(nodes)} to be no longer Ready",
        successes=1,
        poll_s=_EVERY_S,
        show=", ".join,
    )


def _nodes_back(kube: Kube, count: int) -> None:
    eventually(
        lambda: ready_nodes(kube),
        accept=lambda seen: len(seen) >= count,
        within_s=_BACK_S,
        what=f"{count} nodes to be Ready again",
        poll_s=_EVERY_S,
        show=", ".join,
    )
