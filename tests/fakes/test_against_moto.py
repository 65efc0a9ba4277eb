"""A second opinion: where moto knows a service well, our fake answers as it does, and our finders
and removers work on what was made through AWS's own calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from eks.lives import Told, fake_aws
from moto import mock_aws

from fakes.aws import Clock, FakeAws
from fakes.aws.world import REGION
from pytest_pgo_eks.clusters.eks.belongings import find
from pytest_pgo_eks.clusters.eks.calls import Aws
from pytest_pgo_eks.clusters.eks.names import Names
from pytest_pgo_eks.clusters.eks.removal import Removal
from pytest_pgo_eks.clusters.eks.sweeping import runs, sweep

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "scheduler.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "ec2:DescribeVpcs", "Resource": "*"}],
    }
)
# Of these moto wants a hundred packages, or its engine is no oracle: our own fake answers.
OWN = ("cloudformation", "resourcegroupstaggingapi")
OURS = {"pgo-eks/run": "night", "pgo-eks/expires-at": "2026-11-20T00:00:00Z"}
THEIRS = {"pgo-eks/run": "nights", "pgo-eks/expires-at": "2036-11-20T00:00:00Z"}


class Moto:
    """Clients that end in moto."""

    def __init__(self) -> None:
        self._session = boto3.Session("AKIDEXAMPLE", "secret", region_name=REGION)
        self._clients: dict[str, Any] = {}
        self._own = fake_aws()

    def __call__(self, service: str) -> Any:
        if service in OWN:
            return self._own.clients(service)
        if service not in self._clients:
            self._clients[service] = self._session.client(service)
        return self._clients[service]


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with mock_aws():
        yield Moto()


@pytest.fixture
def fake() -> FakeAws:
    return fake_aws()


def code(clients: Any, service: str, operation: str, arguments: dict[str, Any]) -> str:
    """Return the error code of a call that must fail."""
    with pytest.raises(ClientError) as error:
        getattr(clients(service), operation)(**arguments)
    return str(error.value.response["Error"]["Code"])


@pytest.mark.parametrize(
    ("service", "operation", "arguments"),
    [
        ("ec2", "delete_volume", {"VolumeId": "vol-0123456789abcdef0"}),
        ("ec2", "delete_snapshot", {"SnapshotId": "snap-0123456789abcdef0"}),
        ("ec2", "delete_vpc", {"VpcId": "vpc-0123456789abcdef0"}),
        ("ec2", "delete_subnet", {"SubnetId": "subnet-0123456789abcdef0"}),
        ("ec2", "delete_security_group", {"GroupId": "sg-0123456789abcdef0"}),
        ("ec2", "delete_network_interface", {"NetworkInterfaceId": "eni-0123456789abcdef0"}),
        ("ec2", "delete_route_table", {"RouteTableId": "rtb-0123456789abcdef0"}),
        ("ec2", "delete_internet_gateway", {"InternetGatewayId": "igw-0123456789abcdef0"}),
        ("ec2", "release_address", {"AllocationId": "eipalloc-0123456789abcdef0"}),
        ("ec2", "terminate_instances", {"InstanceIds": ["i-0123456789abcdef0"]}),
        ("ec2", "describe_volumes", {"VolumeIds": ["vol-0123456789abcdef0"]}),
        ("eks", "describe_cluster", {"name": "nobody"}),
        ("iam", "get_role", {"RoleName": "nobody"}),
        ("iam", "delete_role", {"RoleName": "nobody"}),
        ("iam", "list_role_tags", {"RoleName": "nobody"}),
        ("logs", "delete_log_group", {"logGroupName": "nothing"}),
        ("scheduler", "get_schedule_group", {"Name": "nothing"}),
    ],
)
def test_what_is_not_there_is_missed_in_the_same_words(
    moto: Moto, fake: FakeAws, service: str, operation: str, arguments: dict[str, Any]
) -> None:
    assert code(fake.clients, service, operation, arguments) == code(
        moto, service, operation, arguments
    )
    # And our own code understands both as "not there".
    for clients in (moto, fake.clients):
        assert Aws(clients, REGION, Clock()).find(service, operation, **arguments) is None


def test_roles_and_schedule_groups_refuse_alike(moto: Moto, fake: FakeAws) -> None:
    told = []
    for clients in (moto, fake.clients):
        iam, scheduler = clients("iam"), clients("scheduler")
        role = {"RoleName": "same", "AssumeRolePolicyDocument": TRUST}
        made = iam.create_role(**role)["Role"]
        policy = {"RoleName": "same", "PolicyName": "p", "PolicyDocument": POLICY}
        iam.put_role_policy(**policy)
        scheduler.create_schedule_group(Name="same", Tags=[{"Key": "a", "Value": "b"}])
        arn = scheduler.get_schedule_group(Name="same")["Arn"]
        codes = [
            code(clients, "iam", "create_role", role),
            code(clients, "iam", "delete_role", {"RoleName": "same"}),
        ]
        iam.delete_role_policy(RoleName="same", PolicyName="p")
        iam.delete_role(RoleName="same")
        tags = scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"]
        scheduler.delete_schedule_group(Name="same")
        told.append((codes, made["AssumeRolePolicyDocument"], tags))
    assert told[0] == told[1]


def tagged(kind: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": kind, "Tags": pairs}]


def plant(clients: Moto, tags: dict[str, str], name: str) -> set[str]:
    """Make one of everything that a run may leave; return what each is known by."""
    ec2, iam = clients("ec2"), clients("iam")
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tagged("vpc", tags))["Vpc"][
        "VpcId"
    ]
    subnet = ec2.create_subnet(
        VpcId=vpc, CidrBlock="10.0.0.0/24", TagSpecifications=tagged("subnet", tags)
    )["Subnet"]["SubnetId"]
    group = ec2.create_security_group(
        GroupName=f"g-{name}", Description="d", VpcId=vpc,
        TagSpecifications=tagged("security-group", tags),
    )["GroupId"]  # fmt: skip
    eni = ec2.create_network_interface(
        SubnetId=subnet, Groups=[group], TagSpecifications=tagged("network-interface", tags)
    )["NetworkInterface"]["NetworkInterfaceId"]
    volume = ec2.create_volume(
        AvailabilityZone="us-east-1a", Size=1, TagSpecifications=tagged("volume", tags)
    )["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=volume, TagSpecifications=tagged("snapshot", tags))
    gateway = ec2.create_internet_gateway(TagSpecifications=tagged("internet-gateway", tags))
    internet = gateway["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=internet, VpcId=vpc)
    table = ec2.create_route_table(VpcId=vpc, TagSpecifications=tagged("route-table", tags))
    routes = table["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=routes, SubnetId=subnet)
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip", tags))
    template = ec2.create_launch_template(
        LaunchTemplateName=f"t-{name}", LaunchTemplateData={"InstanceType": "m5.large"},
        TagSpecifications=tagged("launch-template", tags),
    )["LaunchTemplate"]["LaunchTemplateId"]  # fmt: skip
    role = f"pgoeks-{name}-NodeRole"
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=TRUST, Tags=pairs)
    iam.create_instance_profile(InstanceProfileName=f"p-{name}")
    iam.add_role_to_instance_profile(InstanceProfileName=f"p-{name}", RoleName=role)
    issuer = iam.create_open_id_connect_provider(
        Url=f"https://issuer.example/{name}", ClientIDList=["sts.amazonaws.com"],
        ThumbprintList=["0" * 40], Tags=pairs,
    )["OpenIDConnectProviderArn"]  # fmt: skip
    logs = f"/aws/eks/pgoeks-{name}/cluster"
    clients("logs").create_log_group(logGroupName=logs)
    balancer = clients("elbv2").create_load_balancer(
        Name=f"b-{name}", Subnets=[subnet], Type="network", Tags=pairs
    )["LoadBalancers"][0]["LoadBalancerArn"]
    clients("scheduler").create_schedule_group(Name=f"pgoeks-{name}-reaper", Tags=pairs)
    return {
        vpc, subnet, group, eni, volume, snapshot["SnapshotId"], internet, routes,
        address["AllocationId"], template, role, issuer, logs, balancer, f"pgoeks-{name}-reaper",
    }  # fmt: skip


def test_one_run_s_rest_is_removed_and_another_s_stays(moto: Moto) -> None:
    ours, theirs = plant(moto, OURS, "night"), plant(moto, THEIRS, "nights")
    aws = Aws(moto, REGION, Clock())
    assert {thing.id for thing in find(aws, Names("night"))} == ours
    assert [found.run for found in runs(aws)] == ["night", "nights"]
    assert Removal(aws, Names("night"), Told()).remove() == []
    assert {thing.id for thing in find(aws, Names("nights"))} == theirs
    # Tags outlive their things here, as they do on AWS; the sweep looks at the things.
    assert {found.run for found in runs(aws)} >= {"nights"}
    assert sweep(aws, Told(), every=False, really=False) == []
