"""EC2: networks, instances and volumes, and above all what must be gone before what."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from fakes.aws.answers import Answer, Params, Refused, Thing, matching, page, shown, tag_map
from fakes.aws.world import ACCOUNT, TYPES, World

#: Kind: (resource type in tags, prefix of ids, name of the id member, list member).
KINDS = {
    "vpc": ("vpc", "VpcId", "Vpcs"),
    "subnet": ("subnet", "SubnetId", "Subnets"),
    "internet-gateway": ("igw", "InternetGatewayId", "InternetGateways"),
    "route-table": ("rtb", "RouteTableId", "RouteTables"),
    "elastic-ip": ("eipalloc", "AllocationId", "Addresses"),
    "natgateway": ("nat", "NatGatewayId", "NatGateways"),
    "security-group": ("sg", "GroupId", "SecurityGroups"),
    "network-interface": ("eni", "NetworkInterfaceId", "NetworkInterfaces"),
    "network-acl": ("acl", "NetworkAclId", "NetworkAcls"),
    "launch-template": ("lt", "LaunchTemplateId", "LaunchTemplates"),
    "instance": ("i", "InstanceId", "Reservations"),
    "volume": ("vol", "VolumeId", "Volumes"),
    "snapshot": ("snap", "SnapshotId", "Snapshots"),
}


#: Each kind is missed in words of its own.
_MISSING = {
    "vpc": "InvalidVpcID.NotFound",
    "subnet": "InvalidSubnetID.NotFound",
    "internet-gateway": "InvalidInternetGatewayID.NotFound",
    "route-table": "InvalidRouteTableID.NotFound",
    "elastic-ip": "InvalidAllocationID.NotFound",
    "natgateway": "NatGatewayNotFound",
    "security-group": "InvalidGroup.NotFound",
    "network-interface": "InvalidNetworkInterfaceID.NotFound",
    "network-acl": "InvalidNetworkAclID.NotFound",
    "launch-template": "InvalidLaunchTemplateId.NotFound",
    "instance": "InvalidInstanceID.NotFound",
    "volume": "InvalidVolume.NotFound",
    "snapshot": "InvalidSnapshot.NotFound",
}


def make(world: World, kind: str, tags: dict[str, str], **facts: Any) -> Thing:
    """Make a thing of EC2 and return it."""
    prefix, member, _ = KINDS[kind]
    name = world.new_id(prefix)
    return world.put(kind, name, {member: name, "_tags": dict(tags), **facts})


def get(world: World, kind: str, name: str) -> Thing:
    found = world.kind(kind).get(name)
    if found is None:
        raise Refused(_MISSING[kind], f"The {kind} '{name}' does not exist")
    return found


def in_use(what: str, name: str) -> Refused:
    return Refused(
        "DependencyViolation",
        f"The {what} '{name}' has dependencies and cannot be deleted.",
    )


# -- making --------------------------------------------------------------------------------------


def make_vpc(world: World, tags: dict[str, str], cidr: str) -> Thing:
    vpc = make(world, "vpc", tags, CidrBlock=cidr, State="available")
    name = vpc["VpcId"]
    make(world, "security-group", {}, GroupName="default", Description="default", VpcId=name,
         IpPermissions=[], OwnerId=ACCOUNT, _with_vpc=True)  # fmt: skip
    make(world, "network-acl", {}, VpcId=name, IsDefault=True, Associations=[], Entries=[],
         _with_vpc=True)  # fmt: skip
    make(world, "route-table", {}, VpcId=name, Associations=[{"Main": True}], Routes=[],
         _with_vpc=True)  # fmt: skip
    return vpc


def make_subnet(world: World, tags: dict[str, str], vpc: str, zone: str, cidr: str) -> Thing:
    wanted = ipaddress.ip_network(cidr)
    if not wanted.subnet_of(ipaddress.ip_network(get(world, "vpc", vpc)["CidrBlock"])):  # type: ignore[arg-type]
        raise Refused("InvalidSubnet.Range", f"The CIDR '{cidr}' is invalid.")
    for other in world.kind("subnet").values():
        if other["VpcId"] == vpc and wanted.overlaps(ipaddress.ip_network(other["CidrBlock"])):
            raise Refused("InvalidSubnet.Conflict", f"The CIDR '{cidr}' conflicts")
    subnet = make(world, "subnet", tags, VpcId=vpc, AvailabilityZone=zone, CidrBlock=cidr,
                  State="available")  # fmt: skip
    for acl in world.kind("network-acl").values():
        if acl["VpcId"] == vpc and acl["IsDefault"]:
            acl["Associations"].append(_association(world, acl, subnet["SubnetId"]))
    return subnet


def _association(world: World, acl: Thing, subnet: str) -> Thing:
    return {
        "NetworkAclAssociationId": world.new_id("aclassoc"),
        "NetworkAclId": acl["NetworkAclId"],
        "SubnetId": subnet,
    }


def make_eni(
    world: World, tags: dict[str, str], subnet: str, groups: list[str], **facts: Any
) -> Thing:
    return make(
        world,
        "network-interface",
        tags,
        SubnetId=subnet,
        VpcId=get(world, "subnet", subnet)["VpcId"],
        Groups=[{"GroupId": group} for group in groups],
        Status=facts.pop("status", "in-use"),
        **facts,
    )


def make_instance(
    world: World, tags: dict[str, str], subnet: str, group: str, *, kind: str, template: str
) -> Thing:
    place = get(world, "subnet", subnet)
    options = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    instance = make(world, "instance", tags, InstanceType=kind, SubnetId=subnet,
                    VpcId=place["VpcId"], State={"Code": 16, "Name": "running"},
                    Placement={"AvailabilityZone": place["AvailabilityZone"]},
                    PrivateDnsName="", MetadataOptions=options,
                    LaunchTime=world.clock.moment(), _template=template)  # fmt: skip
    name = instance["InstanceId"]
    instance["PrivateDnsName"] = f"{name}.{place['AvailabilityZone'][:-1]}.compute.internal"
    make_eni(world, tags, subnet, [group], Description="", Attachment={"InstanceId": name})
    root = make_volume(world, tags, place["AvailabilityZone"], 40)
    attach(world, root, name, "/dev/xvda", delete_with_instance=True)
    return instance


def make_volume(world: World, tags: dict[str, str], zone: str, size: int) -> Thing:
    return make(world, "volume", tags, AvailabilityZone=zone, Size=size, VolumeType="gp3",
                Encrypted=True, State="available", Attachments=[])  # fmt: skip


def attach(
    world: World, volume: Thing, instance: str, device: str, *, delete_with_instance: bool = False
) -> None:
    volume["State"] = "in-use"
    volume["Attachments"] = [
        {
            "InstanceId": instance,
            "VolumeId": volume["VolumeId"],
            "Device": device,
            "State": "attached",
            "DeleteOnTermination": delete_with_instance,
        }
    ]
    world.touched()


# -- unmaking, with the rules ---------------------------------------------------------------------


def drop_vpc(world: World, name: str) -> None:
    get(world, "vpc", name)
    own = ("subnet", "security-group", "route-table", "network-acl", "natgateway")
    for kind in own:
        for thing in world.kind(kind).values():
            if thing["VpcId"] == name and not thing.get("_with_vpc") and not _gone(thing):
                raise in_use("vpc", name)
    for gateway in world.kind("internet-gateway").values():
        if any(each["VpcId"] == name for each in gateway["Attachments"]):
            raise in_use("vpc", name)
    for kind in own:
        for each, thing in list(world.kind(kind).items()):
            if thing["VpcId"] == name and thing.get("_with_vpc"):
                world.drop(kind, each)
    world.drop("vpc", name)


def _gone(thing: Thing) -> bool:
    return thing.get("State") == "deleted"


def drop_subnet(world: World, name: str) -> None:
    get(world, "subnet", name)
    for kind in ("network-interface", "natgateway"):
        if any(t["SubnetId"] == name and not _gone(t) for t in world.kind(kind).values()):
            raise in_use("subnet", name)
    for kind in ("route-table", "network-acl"):
        for thing in world.kind(kind).values():
            thing["Associations"] = [a for a in thing["Associations"] if a.get("SubnetId") != name]
    world.drop("subnet", name)


def drop_group(world: World, name: str) -> None:
    group = get(world, "security-group", name)
    if group.get("_with_vpc"):
        raise Refused("CannotDelete", "the specified group is named 'default'")
    for eni in world.kind("network-interface").values():
        if any(each["GroupId"] == name for each in eni["Groups"]):
            raise Refused("DependencyViolation", f"resource {name} has a dependent object")
    world.drop("security-group", name)


def drop_eni(world: World, name: str) -> None:
    if get(world, "network-interface", name)["Status"] != "available":
        raise Refused("InvalidParameterValue", f"Network interface '{name}' is currently in use.")
    world.drop("network-interface", name)


def drop_gateway(world: World, name: str) -> None:
    if get(world, "internet-gateway", name)["Attachments"]:
        raise in_use("internetGateway", name)
    world.drop("internet-gateway", name)


def detach_gateway(world: World, gateway: str, vpc: str) -> None:
    found = get(world, "internet-gateway", gateway)
    for nat in world.kind("natgateway").values():
        if nat["VpcId"] == vpc and not _gone(nat):
            raise Refused(
                "DependencyViolation",
                f"Network {vpc} has some mapped public address(es). Please unmap those first",
            )
    if not any(each["VpcId"] == vpc for each in found["Attachments"]):
        raise Refused("Gateway.NotAttached", f"resource {gateway} is not attached")
    found["Attachments"] = []
    world.touched()


def drop_table(world: World, name: str) -> None:
    if get(world, "route-table", name)["Associations"]:
        raise in_use("routeTable", name)
    world.drop("route-table", name)


def drop_address(world: World, name: str) -> None:
    get(world, "elastic-ip", name)
    for nat in world.kind("natgateway").values():
        if nat["_address"] == name and not _gone(nat):
            raise Refused("InvalidIPAddress.InUse", f"Address {name} is in use.")
    world.drop("elastic-ip", name)


def drop_nat(world: World, name: str) -> None:
    get(world, "natgateway", name)
    # Listed as deleted for an hour; the fake forgets it at once where nobody looks at states.
    world.drop("natgateway", name)


def drop_volume(world: World, name: str) -> None:
    if get(world, "volume", name)["State"] == "in-use":
        raise Refused("VolumeInUse", f"Volume {name} is currently attached")
    world.drop("volume", name)


def drop_acl(world: World, name: str) -> None:
    acl = get(world, "network-acl", name)
    if acl["IsDefault"] or acl["Associations"]:
        raise in_use("networkAcl", name)
    world.drop("network-acl", name)


def terminate(world: World, name: str) -> None:
    get(world, "instance", name)
    for each, eni in list(world.kind("network-interface").items()):
        if eni.get("Attachment", {}).get("InstanceId") == name:
            if eni.get("_leaks"):
                eni["Status"] = "available"
                del eni["Attachment"]
            else:
                world.drop("network-interface", each)
    for each, volume in list(world.kind("volume").items()):
        for attachment in volume["Attachments"]:
            if attachment["InstanceId"] == name:
                if attachment["DeleteOnTermination"]:
                    world.drop("volume", each)
                else:
                    volume.update(State="available", Attachments=[])
    world.drop("instance", name)


# -- looking --------------------------------------------------------------------------------------

_COMMON: dict[str, Callable[[Thing], Any]] = {
    "vpc-id": lambda t: t.get("VpcId"),
    "subnet-id": lambda t: t.get("SubnetId"),
    "status": lambda t: t.get("Status", t.get("State")),
    "state": lambda t: t.get("State"),
    "description": lambda t: t.get("Description"),
    "group-id": lambda t: t.get("GroupId", [g["GroupId"] for g in t.get("Groups", ())]),
    "group-name": lambda t: t.get("GroupName"),
    "instance-state-name": lambda t: t["State"]["Name"],
    "attachment.instance-id": lambda t: [a["InstanceId"] for a in t.get("Attachments", ())],
    "attachment.vpc-id": lambda t: [a["VpcId"] for a in t.get("Attachments", ())],
    "association.subnet-id": lambda t: [a.get("SubnetId") for a in t.get("Associations", ())],
    "availability-zone": lambda t: t.get("AvailabilityZone", t.get("Placement", {}).get("AvailabilityZone")),
    "private-dns-name": lambda t: t.get("PrivateDnsName"),
    "default": lambda t: str(t.get("IsDefault", False)).lower(),
}  # fmt: skip


def _describe(kind: str, ids: str, filters: str = "Filters") -> Callable[[World, Params], Answer]:
    _, _, listed = KINDS[kind]

    def describe(world: World, params: Params) -> Answer:
        if params.get(ids):
            found = [get(world, kind, name) for name in params[ids]]
        else:
            found = list(world.kind(kind).values())
        found = matching(found, params.get(filters, ()), _COMMON)
        items: list[Thing] = [shown(each) for each in found]
        if kind == "network-interface":
            # The one kind whose tags have another name.
            items = [{**each, "TagSet": each["Tags"]} for each in items]
            for each in items:
                del each["Tags"]
        if kind == "instance":
            items = [{"ReservationId": "r-1", "Instances": [each]} for each in items]
        if kind == "elastic-ip":
            return {listed: items}
        return page(items, params, listed, "NextToken", 50)

    return describe


def _delete(
    kind: str, member: str, drop: Callable[[World, str], None] | None = None
) -> Callable[[World, Params], Answer]:
    def delete(world: World, params: Params) -> Answer:
        if drop is not None:
            drop(world, params[member])
        else:
            get(world, kind, params[member])
            world.drop(kind, params[member])
        return {}

    return delete


def _tags(world: World, params: Params) -> Answer:
    found = [
        {"ResourceId": name, "ResourceType": kind, "Key": key, "Value": value}
        for kind in KINDS
        for name, thing in world.kind(kind).items()
        for key, value in thing["_tags"].items()
    ]
    for each in params.get("Filters", ()):
        member = {
            "key": "Key", "value": "Value", "resource-id": "ResourceId",
            "resource-type": "ResourceType",
        }.get(each["Name"])  # fmt: skip
        if member is None:
            raise Refused("InvalidParameterValue", f"The filter '{each['Name']}' is invalid")
        found = [t for t in found if t[member] in each["Values"]]
    return page(found, params, "Tags", "NextToken", 50)


def _zones(world: World, params: Params) -> Answer:
    del params
    return {
        "AvailabilityZones": [
            {"ZoneName": zone, "State": "available", "ZoneType": "availability-zone",
             "OptInStatus": "opt-in-not-required", "RegionName": zone[:-1]}
            for zone in world.zones
        ]
    }  # fmt: skip


def _offerings(world: World, params: Params) -> Answer:
    wanted = [
        v for f in params.get("Filters", ()) if f["Name"] == "instance-type" for v in f["Values"]
    ]
    found = [
        {"InstanceType": kind, "Location": zone, "LocationType": "availability-zone"}
        for kind in TYPES
        for zone in world.zones
        if kind in wanted and (kind, zone) not in world.not_offered
    ]
    return page(found, params, "InstanceTypeOfferings", "NextToken", 50)


def _types(_world: World, params: Params) -> Answer:
    for name in params["InstanceTypes"]:
        if name not in TYPES:
            raise Refused(
                "InvalidInstanceType",
                f"The following supplied instance types do not exist: [{name}]",
            )
    return {
        "InstanceTypes": [
            {"InstanceType": name, "ProcessorInfo": {"SupportedArchitectures": [TYPES[name][0]]},
             "VCpuInfo": {"DefaultVCpus": TYPES[name][1]}}
            for name in params["InstanceTypes"]
        ]
    }  # fmt: skip


def _template_versions(world: World, params: Params) -> Answer:
    found = get(world, "launch-template", params["LaunchTemplateId"])
    version = {
        "LaunchTemplateId": found["LaunchTemplateId"],
        "LaunchTemplateName": found["LaunchTemplateName"],
        "VersionNumber": 1,
        "DefaultVersion": True,
        "LaunchTemplateData": found["_data"],
    }
    return {"LaunchTemplateVersions": [version]}


def _set_state(state: str, code: int) -> Callable[[World, Params], Answer]:
    def change(world: World, params: Params) -> Answer:
        changes = []
        for name in params["InstanceIds"]:
            instance = get(world, "instance", name)
            before = dict(instance["State"])
            if state == "terminated":
                terminate(world, name)
            else:
                instance["State"] = {"Code": code, "Name": state}
                world.touched()
            now = {"Code": code, "Name": state}
            changes.append({"InstanceId": name, "PreviousState": before, "CurrentState": now})
        member = {
            "terminated": "TerminatingInstances",
            "stopped": "StoppingInstances",
            "running": "StartingInstances",
        }[state]
        return {member: changes}

    return change


def _detach_volume(world: World, params: Params) -> Answer:
    volume = get(world, "volume", params["VolumeId"])
    if not volume["Attachments"]:
        raise Refused("IncorrectState", f"Volume '{params['VolumeId']}' is in state 'available'")
    (attachment,) = volume["Attachments"]
    volume.update(State="available", Attachments=[])
    world.touched()
    return {**_attachment(attachment), "State": "detaching"}


def _attach_volume(world: World, params: Params) -> Answer:
    volume = get(world, "volume", params["VolumeId"])
    if volume["Attachments"]:
        raise Refused("VolumeInUse", f"{params['VolumeId']} is already attached")
    attach(world, volume, params["InstanceId"], params["Device"])
    return {**_attachment(volume["Attachments"][0]), "State": "attaching"}


def _attachment(found: Thing) -> Thing:
    return dict(found)


def _create_acl(world: World, params: Params) -> Answer:
    tags = {
        k: v for s in params.get("TagSpecifications", ()) for k, v in tag_map(s["Tags"]).items()
    }
    get(world, "vpc", params["VpcId"])
    # Without an entry a network ACL denies everything.
    acl = make(world, "network-acl", tags, VpcId=params["VpcId"], IsDefault=False,
               Associations=[], Entries=[])  # fmt: skip
    return {"NetworkAcl": shown(acl)}


def _replace_association(world: World, params: Params) -> Answer:
    new = get(world, "network-acl", params["NetworkAclId"])
    for acl in world.kind("network-acl").values():
        for each in acl["Associations"]:
            if each["NetworkAclAssociationId"] == params["AssociationId"]:
                acl["Associations"].remove(each)
                made = _association(world, new, each["SubnetId"])
                new["Associations"].append(made)
                world.touched()
                return {"NewAssociationId": made["NetworkAclAssociationId"]}
    raise Refused("InvalidAssociationID.NotFound", "no such association")


def _create_tags(world: World, params: Params) -> Answer:
    for name in params["Resources"]:
        for kind in KINDS:
            if name in world.kind(kind):
                world.kind(kind)[name]["_tags"].update(tag_map(params["Tags"]))
                world.touched()
    return {}


def _detach_gateway(world: World, params: Params) -> Answer:
    detach_gateway(world, params["InternetGatewayId"], params["VpcId"])
    return {}


def _delete_nat(world: World, params: Params) -> Answer:
    drop_nat(world, params["NatGatewayId"])
    return {"NatGatewayId": params["NatGatewayId"]}


def _delete_template(world: World, params: Params) -> Answer:
    found = get(world, "launch-template", params["LaunchTemplateId"])
    world.drop("launch-template", params["LaunchTemplateId"])
    return {"LaunchTemplate": shown(found)}


def _disassociate(world: World, params: Params) -> Answer:
    for table in world.kind("route-table").values():
        for each in table["Associations"]:
            if each.get("RouteTableAssociationId") == params["AssociationId"]:
                table["Associations"].remove(each)
                world.touched()
                return {}
    raise Refused("InvalidAssociationID.NotFound", "no such association")


HANDLERS: dict[str, Callable[[World, Params], Answer]] = {
    "DescribeAvailabilityZones": _zones,
    "DescribeInstanceTypeOfferings": _offerings,
    "DescribeInstanceTypes": _types,
    "DescribeTags": _tags,
    "DescribeVpcs": _describe("vpc", "VpcIds"),
    "DescribeSubnets": _describe("subnet", "SubnetIds"),
    "DescribeRouteTables": _describe("route-table", "RouteTableIds"),
    "DescribeSecurityGroups": _describe("security-group", "GroupIds"),
    "DescribeNetworkInterfaces": _describe("network-interface", "NetworkInterfaceIds"),
    "DescribeInternetGateways": _describe("internet-gateway", "InternetGatewayIds"),
    "DescribeNatGateways": _describe("natgateway", "NatGatewayIds", "Filter"),
    "DescribeAddresses": _describe("elastic-ip", "AllocationIds"),
    "DescribeNetworkAcls": _describe("network-acl", "NetworkAclIds"),
    "DescribeLaunchTemplates": _describe("launch-template", "LaunchTemplateIds"),
    "DescribeLaunchTemplateVersions": _template_versions,
    "DescribeInstances": _describe("instance", "InstanceIds"),
    "DescribeVolumes": _describe("volume", "VolumeIds"),
    "DescribeSnapshots": _describe("snapshot", "SnapshotIds"),
    "GetEbsEncryptionByDefault": lambda _w, _p: {"EbsEncryptionByDefault": False},
    "TerminateInstances": _set_state("terminated", 48),
    "StopInstances": _set_state("stopped", 80),
    "StartInstances": _set_state("running", 16),
    "DetachVolume": _detach_volume,
    "AttachVolume": _attach_volume,
    "CreateNetworkAcl": _create_acl,
    "ReplaceNetworkAclAssociation": _replace_association,
    "CreateTags": _create_tags,
    "DeleteNetworkAcl": _delete("network-acl", "NetworkAclId", drop_acl),
    "DeleteVpc": _delete("vpc", "VpcId", drop_vpc),
    "DeleteSubnet": _delete("subnet", "SubnetId", drop_subnet),
    "DeleteSecurityGroup": _delete("security-group", "GroupId", drop_group),
    "DeleteNetworkInterface": _delete("network-interface", "NetworkInterfaceId", drop_eni),
    "DeleteInternetGateway": _delete("internet-gateway", "InternetGatewayId", drop_gateway),
    "DetachInternetGateway": _detach_gateway,
    "DisassociateRouteTable": _disassociate,
    "DeleteRouteTable": _delete("route-table", "RouteTableId", drop_table),
    "ReleaseAddress": _delete("elastic-ip", "AllocationId", drop_address),
    "DeleteNatGateway": _delete_nat,
    "DeleteVolume": _delete("volume", "VolumeId", drop_volume),
    "DeleteSnapshot": _delete("snapshot", "SnapshotId"),
    "DeleteLaunchTemplate": _delete_template,
}
