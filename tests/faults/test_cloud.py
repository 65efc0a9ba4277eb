"""Faults through AWS, on a small account in memory that refuses every call it does not know."""

# ruff: noqa: N803 - the names are those of AWS's parameters

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.validate import ParamValidator

from faults.fakes import FakeKube
from pytest_pgo_eks.errors import FaultNotProven, Inconclusive
from pytest_pgo_eks.faults import cloud
from pytest_pgo_eks.faults.bench import Bench, Fault
from pytest_pgo_eks.faults.cloud import ZONE, InstanceGone, VolumeDetached, ZoneClosed, ZoneEmptied

ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")


@cache
def real_client(service: str) -> Any:
    """Return a client that knows its service's model; nothing is ever sent by it."""
    return boto3.client(
        service, region_name="eu-central-1", aws_access_key_id="k", aws_secret_access_key="s"
    )


class Checked:
    """A client of the account that takes only what the service's own model allows."""

    def __init__(self, account: Account, service: str) -> None:
        self._account = account
        self._client = real_client(service)

    def __getattr__(self, operation: str) -> Any:
        model = self._client.meta.service_model.operation_model(
            self._client.meta.method_to_api_mapping[operation]
        )

        def call(**arguments: Any) -> Any:
            report = ParamValidator().validate(arguments, model.input_shape)
            assert not report.has_errors(), report.generate_report()
            return getattr(self._account, operation)(**arguments)

        return call


class Account:
    """Three instances in three zones, and the Nodes that they are; ``deaf`` does as it likes."""

    def __init__(self) -> None:
        self.kube = FakeKube()
        self.deaf = False
        self.calls: list[str] = []
        self.states = {f"i-{n}": "running" for n in range(3)}
        self.volume: dict[str, Any] = {
            "Attachments": [{"InstanceId": "i-0", "Device": "/dev/xvdaa", "State": "attached"}]
        }
        self.size = {"minSize": 0, "maxSize": 1, "desiredSize": 1}
        self.acls: dict[str, str] = {f"aclassoc-{n}": "acl-default" for n in range(3)}
        self.made: dict[str, list[dict[str, str]]] = {}
        for number, zone in enumerate(ZONES):
            self.kube.objects["Node", f"node-{number}"] = {
                "kind": "Node",
                "metadata": {
                    "name": f"node-{number}",
                    "labels": {ZONE: zone, "eks.amazonaws.com/nodegroup": f"ng-{number + 1}"},
                },
                "spec": {"providerID": f"aws:///{zone}/i-{number}"},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
        self.kube.list = self._list  # type: ignore[method-assign]

    def _list(self, kind: str, _namespace: str = "", *, labels: Any = None) -> Any:
        return FakeKube.list(self.kube, kind, "", labels=labels)

    def __call__(self, service: str) -> Any:
        return Checked(self, service)

    def ready(self, number: int, status: str) -> None:
        node = self.kube.objects["Node", f"node-{number}"]
        node["status"]["conditions"][0]["status"] = status

    def stop_instances(self, *, InstanceIds: list[str], Force: bool) -> None:
        assert Force
        self._gone(InstanceIds, "stopped")

    def terminate_instances(self, *, InstanceIds: list[str]) -> None:
        self._gone(InstanceIds, "terminated")
        # What an autoscaling group does a little later.

    def start_instances(self, *, InstanceIds: list[str]) -> None:
        self.calls.append("start")
        for one in InstanceIds:
            assert self.states[one] == "stopped"
            self.states[one] = "running"
            self.ready(int(one[2:]), "True")

    def describe_instances(self, *, InstanceIds: list[str]) -> dict[str, Any]:
        found = [
            {
                "InstanceId": one,
                "State": {"Name": self.states[one]},
                "SubnetId": f"subnet-{one[2:]}",
                "VpcId": "vpc-1",
            }
            for one in InstanceIds
        ]
        return {"Reservations": [{"Instances": found}]}

    def _gone(self, instances: list[str], state: str) -> None:
        self.calls.append(state)
        if self.deaf:
            return
        for one in instances:
            self.states[one] = state
            self.ready(int(one[2:]), "Unknown")

    def detach_volume(self, *, VolumeId: str, Force: bool) -> None:
        assert (VolumeId, Force) == ("vol-1", True)
        if not self.deaf:
            self.volume["Attachments"] = []

    def attach_volume(self, *, VolumeId: str, InstanceId: str, Device: str) -> None:
        attached = {"InstanceId": InstanceId, "Device": Device, "State": "attached"}
        assert VolumeId == "vol-1"
        self.calls.append("attach")
        self.volume["Attachments"] = [attached]

    def describe_volumes(self, *, VolumeIds: list[str]) -> dict[str, Any]:
        assert VolumeIds == ["vol-1"]
        return {"Volumes": [self.volume]}

    def describe_nodegroup(self, *, clusterName: str, nodegroupName: str) -> dict[str, Any]:
        assert (clusterName, nodegroupName) == ("night", "ng-1")
        return {"nodegroup": {"scalingConfig": dict(self.size)}}

    def update_nodegroup_config(
        self, *, clusterName: str, nodegroupName: str, scalingConfig: dict[str, int]
    ) -> None:
        assert (clusterName, nodegroupName) == ("night", "ng-1")
        self.size = dict(scalingConfig)
        if not self.deaf:
            self.ready(0, "True" if scalingConfig["desiredSize"] else "Unknown")

    def create_network_acl(
        self, *, VpcId: str, TagSpecifications: list[dict[str, Any]]
    ) -> dict[str, Any]:
        assert VpcId == "vpc-1"
        self.made["acl-ours"] = TagSpecifications[0]["Tags"]
        return {"NetworkAcl": {"NetworkAclId": "acl-ours"}}

    def describe_network_acls(self, *, Filters: list[dict[str, Any]]) -> dict[str, Any]:
        assert Filters == [{"Name": "association.subnet-id", "Values": ["subnet-0"]}]
        associations = [
            {
                "NetworkAclAssociationId": name,
                "NetworkAclId": acl,
                "SubnetId": f"subnet-{name[-1]}",
            }
            for name, acl in self.acls.items()
        ]
        return {"NetworkAcls": [{"Associations": associations}]}

    def replace_network_acl_association(
        self, *, AssociationId: str, NetworkAclId: str
    ) -> dict[str, str]:
        del self.acls[AssociationId]
        number = AssociationId[-1]
        new = f"aclassoc-{len(AssociationId)}{number}"
        self.acls[new] = NetworkAclId
        closed = NetworkAclId == "acl-ours" and not self.deaf
        self.ready(int(number), "Unknown" if closed else "True")
        return {"NewAssociationId": new}

    def delete_network_acl(self, *, NetworkAclId: str) -> None:
        assert NetworkAclId not in self.acls.values(), "an ACL in use cannot be deleted"
        del self.made[NetworkAclId]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    for name in ("_EC2_S", "_NODE_S", "_BACK_S"):
        monkeypatch.setattr(cloud, name, 0.05)
    monkeypatch.setattr(cloud, "_EVERY_S", 0.01)
    return Account()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    assert not made.standing


def claimed(account: Account, status: int = 1) -> VolumeDetached:
    account.kube.objects["PersistentVolumeClaim", "data"] = {
        "kind": "PersistentVolumeClaim",
        "spec": {"volumeName": "pv-1"},
    }
    account.kube.objects.setdefault(
        ("PersistentVolume", "pv-1"), {"spec": {"csi": {"volumeHandle": "vol-1"}}}
    )
    return VolumeDetached(account, account.kube.kube, "ns", "data", lambda: status)


def closed(account: Account) -> ZoneClosed:
    tags = {"pgo-eks/run": "night"}
    return ZoneClosed(account, account.kube.kube, ZONES[0], ["node-0"], tags)


def test_a_stopped_instance_is_started_again(account: Account, bench: Bench) -> None:
    done = bench.inject(InstanceGone(account, account.kube.kube, "node-0", terminate=False))
    assert done.proof.sentence == "i-0 is stopped and node-0 is no longer Ready"
    bench.undo_all()
    assert (account.calls, account.states["i-0"]) == (["stopped", "start"], "running")


def test_a_terminated_instance_is_waited_for_until_another_is_there(
    account: Account, bench: Bench
) -> None:
    bench.inject(InstanceGone(account, account.kube.kube, "node-1", terminate=True))
    with pytest.raises(Inconclusive, match="3 nodes to be Ready again"):
        bench.undo_all()
    bench.inject(InstanceGone(account, account.kube.kube, "node-2", terminate=True))
    account.ready(1, "True")
    account.ready(2, "True")
    bench.undo_all()
    assert account.calls == ["terminated", "terminated"]


@pytest.mark.parametrize("terminate", [True, False])
def test_an_instance_that_goes_on_proves_nothing(
    account: Account, bench: Bench, terminate: bool
) -> None:
    account.deaf = True
    with pytest.raises(FaultNotProven, match="i-0"):
        bench.inject(InstanceGone(account, account.kube.kube, "node-0", terminate=terminate))
    bench.undo_all()
    assert "start" not in account.calls


def test_a_node_that_is_none_of_ec2_is_left_alone(account: Account, bench: Bench) -> None:
    account.kube.objects["Node", "node-0"]["spec"] = {"providerID": "kind://docker/x/y"}
    with pytest.raises(Inconclusive, match="does not run on EC2"):
        bench.inject(InstanceGone(account, account.kube.kube, "node-0", terminate=True))
    bench.undo_all()
    assert not account.calls


def test_a_detached_volume_is_attached_where_it_was(account: Account, bench: Bench) -> None:
    done = bench.inject(claimed(account))
    assert done.proof.numbers == {"exit_status": 1}
    bench.undo_all()
    assert account.volume["Attachments"][0]["Device"] == "/dev/xvdaa"


def test_a_volume_that_kubernetes_attached_meanwhile_stays_there(
    account: Account, bench: Bench
) -> None:
    bench.inject(claimed(account))
    account.volume["Attachments"] = [{"InstanceId": "i-2", "Device": "d", "State": "attaching"}]
    bench.undo_all()
    assert "attach" not in account.calls


def test_a_write_that_still_works_proves_nothing(account: Account, bench: Bench) -> None:
    with pytest.raises(FaultNotProven, match="a write to data to fail"):
        bench.inject(claimed(account, status=0))
    bench.undo_all()
    assert account.calls == ["attach"]


def test_a_volume_that_is_none_of_ebs_is_left_alone(account: Account, bench: Bench) -> None:
    account.kube.objects["PersistentVolume", "pv-1"] = {"spec": {"hostPath": {"path": "/x"}}}
    with pytest.raises(Inconclusive, match="not one of EBS"):
        bench.inject(claimed(account))
    bench.undo_all()


def test_an_emptied_zone_gets_its_size_back(account: Account, bench: Bench) -> None:
    bench.inject(ZoneEmptied(account, account.kube.kube, "night", ZONES[0]))
    assert account.size["desiredSize"] == 0
    bench.undo_all()
    assert account.size == {"minSize": 0, "maxSize": 1, "desiredSize": 1}


def test_a_zone_whose_nodes_stay_proves_nothing(account: Account, bench: Bench) -> None:
    account.deaf = True
    with pytest.raises(FaultNotProven, match="node-0"):
        bench.inject(ZoneEmptied(account, account.kube.kube, "night", ZONES[0]))
    bench.undo_all()
    assert account.size["desiredSize"] == 1


def test_a_group_that_spans_zones_is_not_emptied(account: Account, bench: Bench) -> None:
    node = account.kube.objects["Node", "node-1"]
    node["metadata"]["labels"]["eks.amazonaws.com/nodegroup"] = "ng-1"
    with pytest.raises(Inconclusive, match="other zones"):
        bench.inject(ZoneEmptied(account, account.kube.kube, "night", ZONES[0]))
    bench.undo_all()
    assert account.size["desiredSize"] == 1


def test_a_closed_zone_is_opened_and_nothing_is_left(account: Account, bench: Bench) -> None:
    bench.inject(closed(account))
    assert account.made == {"acl-ours": [{"Key": "pgo-eks/run", "Value": "night"}]}
    assert sorted(account.acls.values()) == ["acl-default", "acl-default", "acl-ours"]
    bench.undo_all()
    assert not account.made
    assert set(account.acls.values()) == {"acl-default"}


def test_a_closed_zone_that_goes_on_proves_nothing(account: Account, bench: Bench) -> None:
    account.deaf = True
    with pytest.raises(FaultNotProven, match="node-0 to be no longer Ready"):
        bench.inject(closed(account))
    bench.undo_all()
    assert not account.made


def test_every_fault_of_the_cloud_can_be_put_on_the_bench(account: Account) -> None:
    faults: list[Fault] = [
        InstanceGone(account, account.kube.kube, "node-0", terminate=False),
        claimed(account),
        ZoneEmptied(account, account.kube.kube, "night", ZONES[0]),
        closed(account),
    ]
    assert len({fault.kind for fault in faults}) == len(faults)
    for fault in faults:
        # Nothing was injected, so there is nothing to take back and nobody to ask.
        fault.undo()
    assert not account.calls
