"""What each type of CloudFormation resource makes, tells and removes, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fakes.aws import ec2, eks, iam, services
from fakes.aws.answers import Refused, Thing, tag_map
from fakes.aws.template import as_json
from fakes.aws.world import World

Properties = Mapping[str, Any]
Tags = dict[str, str]


@dataclass(frozen=True)
class Made:
    """What came of a resource: its physical id and its attributes."""

    physical: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Maker:
    """``make`` begins, ``done`` ends it after ``takes_s``; ``drop`` removes by physical id."""

    make: Callable[[World, Properties, Tags, str], Made]
    drop: Callable[[World, str], None]
    takes_s: float = 2.0
    drop_s: float = 2.0
    done: Callable[[World, str], dict[str, Any] | None] = lambda _world, _name: None


def _own(properties: Properties, tags: Tags) -> Tags:
    given = properties.get("Tags", ())
    return {**tags, **tag_map(given)}


def _vpc(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    return Made(ec2.make_vpc(world, _own(p, tags), p["CidrBlock"])["VpcId"])


def _gateway(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    thing = ec2.make(world, "internet-gateway", _own(p, tags), Attachments=[])
    return Made(thing["InternetGatewayId"])


def _attachment(world: World, p: Properties, _tags: Tags, _name: str) -> Made:
    gateway = ec2.get(world, "internet-gateway", p["InternetGatewayId"])
    gateway["Attachments"].append({"VpcId": p["VpcId"], "State": "available"})
    return Made(f"{p['InternetGatewayId']}|{p['VpcId']}")


def _drop_attachment(world: World, name: str) -> None:
    gateway, vpc = name.split("|")
    ec2.detach_gateway(world, gateway, vpc)


def _subnet(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    made = ec2.make_subnet(world, _own(p, tags), p["VpcId"], p["AvailabilityZone"], p["CidrBlock"])
    return Made(made["SubnetId"])


def _table(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    thing = ec2.make(world, "route-table", _own(p, tags), VpcId=p["VpcId"], Associations=[],
                     Routes=[])  # fmt: skip
    return Made(thing["RouteTableId"])


def _route(world: World, p: Properties, _tags: Tags, _name: str) -> Made:
    route = {k: v for k, v in p.items() if k != "RouteTableId"}
    ec2.get(world, "route-table", p["RouteTableId"])["Routes"].append(route)
    return Made(f"{p['RouteTableId']}|{p['DestinationCidrBlock']}")


def _drop_route(world: World, name: str) -> None:
    table, cidr = name.split("|")
    found = ec2.get(world, "route-table", table)
    found["Routes"] = [r for r in found["Routes"] if r["DestinationCidrBlock"] != cidr]


def _association(world: World, p: Properties, _tags: Tags, _name: str) -> Made:
    name = world.new_id("rtbassoc")
    ec2.get(world, "subnet", p["SubnetId"])
    ec2.get(world, "route-table", p["RouteTableId"])["Associations"].append(
        {"RouteTableAssociationId": name, "SubnetId": p["SubnetId"]}
    )
    return Made(name)


def _drop_association(world: World, name: str) -> None:
    for table in world.kind("route-table").values():
        table["Associations"] = [
            a for a in table["Associations"] if a.get("RouteTableAssociationId") != name
        ]


def _address(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    thing = ec2.make(world, "elastic-ip", _own(p, tags), Domain="vpc")
    return Made(thing["AllocationId"], {"AllocationId": thing["AllocationId"]})


def _nat(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    vpc = ec2.get(world, "subnet", p["SubnetId"])["VpcId"]
    ec2.get(world, "elastic-ip", p["AllocationId"])
    thing = ec2.make(world, "natgateway", _own(p, tags), SubnetId=p["SubnetId"], VpcId=vpc,
                     State="available", _address=p["AllocationId"])  # fmt: skip
    return Made(thing["NatGatewayId"])


def _role(world: World, p: Properties, tags: Tags, name: str) -> Made:
    role = iam.make_role(world, p.get("RoleName", name), as_json(p["AssumeRolePolicyDocument"]),
                         _own(p, tags), policies=tuple(p.get("ManagedPolicyArns", ())))  # fmt: skip
    return Made(role["RoleName"], {"Arn": role["Arn"]})


def _drop_role(world: World, name: str) -> None:
    iam.role_of(world, name)["_attached"].clear()
    iam.drop_role(world, name)


def _log_group(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    days = int(p["RetentionInDays"])
    services.make_log_group(world, _own(p, tags), p["LogGroupName"], days)
    return Made(p["LogGroupName"])


def _cluster(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    return Made(eks.make_cluster(world, _own(p, tags), p)["name"])


def _cluster_done(world: World, name: str) -> dict[str, Any]:
    found = eks.cluster_of(world, name)
    found["status"] = "ACTIVE"
    return {
        "Arn": found["arn"],
        "Endpoint": found["endpoint"],
        "OpenIdConnectIssuerUrl": found["identity"]["oidc"]["issuer"],
        "ClusterSecurityGroupId": found["resourcesVpcConfig"]["clusterSecurityGroupId"],
    }


def _provider(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    return Made(iam.make_provider(world, _own(p, tags), p["Url"], p["ClientIdList"])["Arn"])


def _entry(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    eks.make_entry(world, _own(p, tags), p)
    return Made(f"{p['ClusterName']}/{p['PrincipalArn']}")


def _addon(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    eks.make_addon(world, _own(p, tags), p)
    return Made(f"{p['ClusterName']}/{p['AddonName']}")


def _addon_done(world: World, key: str) -> None:
    addon = world.kind("addon")[key]
    needs_nodes = addon["addonName"] in {"coredns", "aws-ebs-csi-driver"}
    if needs_nodes and not world.kind("instance"):
        addon["status"] = "DEGRADED"
        raise Refused("NotStabilized", "Addon is DEGRADED: InsufficientNumberOfReplicas")
    addon["status"] = "ACTIVE"


def _template(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    data = p["LaunchTemplateData"]
    thing = ec2.make(world, "launch-template", _own(p, tags), LaunchTemplateName=world.new_id("t"),
                     DefaultVersionNumber=1, LatestVersionNumber=1,
                     _data=_typed(data))  # fmt: skip
    return Made(thing["LaunchTemplateId"], {"LatestVersionNumber": "1"})


def _typed(data: Any) -> Any:
    """Return launch template data with the numbers that EC2's API has where templates have text."""
    for mapping in data.get("BlockDeviceMappings", ()):
        mapping["Ebs"]["VolumeSize"] = int(mapping["Ebs"]["VolumeSize"])
    return data


def _nodegroup(world: World, p: Properties, tags: Tags, _name: str) -> Made:
    key = f"{p['ClusterName']}/{p['NodegroupName']}"
    eks.make_nodegroup(world, _own(p, tags), p)
    return Made(key)


def _nodegroup_done(world: World, key: str) -> None:
    group = world.kind("nodegroup")[key]
    if group["health"]["issues"]:
        group["status"] = "CREATE_FAILED"
        issue = group["health"]["issues"][0]
        raise Refused("NotStabilized", f"{issue['code']}: {issue['message']}")
    group["status"] = "ACTIVE"


def _drop_ec2(kind: str) -> Callable[[World, str], None]:
    def drop(world: World, name: str) -> None:
        ec2.get(world, kind, name)
        world.drop(kind, name)

    return drop


def _drop_provider(world: World, name: str) -> None:
    world.drop("oidc-provider", name)


# Seconds as they are about on AWS: a control plane takes a quarter of an hour, whatever one does.
MAKERS: dict[str, Maker] = {
    "AWS::EC2::VPC": Maker(_vpc, ec2.drop_vpc),
    "AWS::EC2::InternetGateway": Maker(_gateway, ec2.drop_gateway),
    "AWS::EC2::VPCGatewayAttachment": Maker(_attachment, _drop_attachment),
    "AWS::EC2::Subnet": Maker(_subnet, ec2.drop_subnet),
    "AWS::EC2::RouteTable": Maker(_table, ec2.drop_table),
    "AWS::EC2::Route": Maker(_route, _drop_route),
    "AWS::EC2::SubnetRouteTableAssociation": Maker(_association, _drop_association),
    "AWS::EC2::EIP": Maker(_address, ec2.drop_address, 15),
    "AWS::EC2::NatGateway": Maker(_nat, ec2.drop_nat, 120, 60),
    "AWS::EC2::LaunchTemplate": Maker(_template, _drop_ec2("launch-template")),
    "AWS::IAM::Role": Maker(_role, _drop_role, 15),
    "AWS::IAM::OIDCProvider": Maker(_provider, _drop_provider),
    "AWS::Logs::LogGroup": Maker(_log_group, services.drop_log_group),
    "AWS::EKS::Cluster": Maker(_cluster, eks.drop_cluster, 840, 240, _cluster_done),
    "AWS::EKS::AccessEntry": Maker(_entry, eks.drop_entry, 5),
    "AWS::EKS::Addon": Maker(_addon, eks.drop_addon, 60, 20, _addon_done),
    "AWS::EKS::Nodegroup": Maker(_nodegroup, eks.drop_nodegroup, 150, 240, _nodegroup_done),
}


def name_of(thing: Thing) -> str:
    return str(thing["LogicalResourceId"])
