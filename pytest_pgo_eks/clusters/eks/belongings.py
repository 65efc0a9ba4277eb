"""What is there of a run, service by service, and how each kind of thing is removed.

Found by tag where a service has tags, by the cluster's name where it has none (log groups), never by
what a name merely looks like. The tagging API alone would miss roles, clusters, addresses and launch
templates, and shows what has been gone for minutes; so every service is asked itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.clusters.eks.calls import Aws, AwsRefused
from pytest_pgo_eks.clusters.eks.names import LAYERS, RUN_TAG, Names, tag_map
from pytest_pgo_eks.clusters.eks.stacks import Stacks
from pytest_pgo_eks.errors import UsageProblem


@dataclass(frozen=True)
class Thing:
    """Something of the run that is there. ``id`` is what its service knows it by."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    def removal(self, region: str) -> str:
        """Return the shell line that removes it."""
        return _LINES[self.kind].format(id=self.id, tail=self.id.rpartition("/")[2]) + (
            f" --region {region}"
        )


# -- finding --------------------------------------------------------------------------------------


def _stacks(aws: Aws, names: Names) -> Iterator[Thing]:
    stacks = Stacks(aws, names)
    for layer in LAYERS:
        try:
            found = stacks.own(layer)
        except UsageProblem:
            continue  # somebody else's, of our name
        if found is not None:
            yield Thing("stack", found.name)


def _cluster(aws: Aws, names: Names) -> Iterator[Thing]:
    found = aws.find("eks", "describe_cluster", name=names.cluster)
    if found is None or not names.owns(found["cluster"].get("tags", {})):
        return
    for group in aws.every("eks", "list_nodegroups", "nodegroups", clusterName=names.cluster):
        yield Thing("nodegroup", f"{names.cluster}/{group}")
    yield Thing("cluster", names.cluster)


def _balancers(aws: Aws, names: Names) -> Iterator[Thing]:
    arns = {
        each["LoadBalancerArn"]: "load-balancer"
        for each in aws.every("elbv2", "describe_load_balancers", "LoadBalancers")
    }
    arns |= {
        each["TargetGroupArn"]: "target-group"
        for each in aws.every("elbv2", "describe_target_groups", "TargetGroups")
    }
    for some in _in_lots(list(arns), 20):
        told = aws.call("elbv2", "describe_tags", ResourceArns=some)
        for each in told["TagDescriptions"]:
            if names.owns(tag_map(each.get("Tags", ()))):
                yield Thing(arns[each["ResourceArn"]], each["ResourceArn"])
    classic = [
        each["LoadBalancerName"]
        for each in aws.every("elb", "describe_load_balancers", "LoadBalancerDescriptions")
    ]
    for some in _in_lots(classic, 20):
        told = aws.call("elb", "describe_tags", LoadBalancerNames=some)
        for each in told["TagDescriptions"]:
            if names.owns(tag_map(each.get("Tags", ()))):
                yield Thing("classic-load-balancer", each["LoadBalancerName"])


#: Kinds in EC2: how they are listed, and where their id stands.
_EC2 = {
    "instance": ("describe_instances", "Reservations", "InstanceId"),
    "natgateway": ("describe_nat_gateways", "NatGateways", "NatGatewayId"),
    "network-interface": (
        "describe_network_interfaces",
        "NetworkInterfaces",
        "NetworkInterfaceId",
    ),
    "elastic-ip": ("describe_addresses", "Addresses", "AllocationId"),
    "volume": ("describe_volumes", "Volumes", "VolumeId"),
    "snapshot": ("describe_snapshots", "Snapshots", "SnapshotId"),
    "launch-template": ("describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    "security-group": ("describe_security_groups", "SecurityGroups", "GroupId"),
    "network-acl": ("describe_network_acls", "NetworkAcls", "NetworkAclId"),
    "subnet": ("describe_subnets", "Subnets", "SubnetId"),
    "route-table": ("describe_route_tables", "RouteTables", "RouteTableId"),
    "internet-gateway": ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "vpc": ("describe_vpcs", "Vpcs", "VpcId"),
}
#: Shown for up to an hour after they are gone.
_GONE = frozenset({"terminated", "shutting-down", "deleted", "deleting"})


def _of_ec2(kind: str) -> Callable[[Aws, Names], Iterator[Thing]]:
    operation, listed, member = _EC2[kind]

    def find(aws: Aws, names: Names) -> Iterator[Thing]:
        arguments: dict[str, Any] = {"OwnerIds": ["self"]} if kind == "snapshot" else {}
        for each in aws.every("ec2", operation, listed, **arguments):
            for one in each["Instances"] if kind == "instance" else (each,):
                # An interface's tags are spelled as no other's.
                tags = tag_map(one.get("Tags", one.get("TagSet", ())))
                if names.owns(tags) and _state(one) not in _GONE:
                    yield Thing(kind, one[member])

    return find


def _state(one: Mapping[str, Any]) -> str:
    state = one.get("State", "")
    return str(state.get("Name", "")) if isinstance(state, Mapping) else str(state)


def _scalers(aws: Aws, names: Names) -> Iterator[Thing]:
    for each in aws.every("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups"):
        if names.owns(tag_map(each.get("Tags", ()))):
            yield Thing("autoscaling-group", each["AutoScalingGroupName"])


def _log_groups(aws: Aws, names: Names) -> Iterator[Thing]:
    for prefix in names.log_groups:
        for each in aws.every(
            "logs", "describe_log_groups", "logGroups", logGroupNamePrefix=prefix
        ):
            yield Thing("log-group", each["logGroupName"])


def _roles(aws: Aws, names: Names) -> Iterator[Thing]:
    for each in aws.every("iam", "list_roles", "Roles"):
        name = each["RoleName"]
        # Tags cost a call for each role of the account, so names choose who is asked for them.
        if name.startswith(f"{names.cluster}-"):
            told = aws.find("iam", "list_role_tags", RoleName=name)
            if told is not None and names.owns(tag_map(told.get("Tags", ()))):
                yield Thing("role", name)


def _providers(aws: Aws, names: Names) -> Iterator[Thing]:
    listed = aws.call("iam", "list_open_id_connect_providers")["OpenIDConnectProviderList"]
    for each in listed:
        told = aws.find("iam", "get_open_id_connect_provider", OpenIDConnectProviderArn=each["Arn"])
        if told is not None and names.owns(tag_map(told.get("Tags", ()))):
            yield Thing("oidc-provider", each["Arn"])


def _schedules(aws: Aws, names: Names) -> Iterator[Thing]:
    found = aws.find("scheduler", "get_schedule_group", Name=names.reaper)
    if found is None or found.get("State") == "DELETING":
        return
    told = aws.call("scheduler", "list_tags_for_resource", ResourceArn=found["Arn"])
    if names.owns(tag_map(told.get("Tags", ()))):
        yield Thing("schedule-group", names.reaper)


_ELSEWHERE = ("ec2", "eks", "iam", "logs", "elasticloadbalancing", "cloudformation", "autoscaling")


def _anything_else(aws: Aws, names: Names) -> Iterator[Thing]:
    """What carries the run's tag in a service that is not asked above: buckets, keys …"""
    filters = [{"Key": RUN_TAG, "Values": [names.run]}]
    for each in aws.every(
        "resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList", TagFilters=filters
    ):
        if each["ResourceARN"].split(":")[2] not in (*_ELSEWHERE, "scheduler"):
            yield Thing("resource", each["ResourceARN"])


#: Every kind in the order in which they can be removed.
FINDERS: Mapping[str, Callable[[Aws, Names], Iterator[Thing]]] = {
    "stack": _stacks,
    "load-balancer": _balancers,
    "autoscaling-group": _scalers,
    "cluster": _cluster,
    **{kind: _of_ec2(kind) for kind in _EC2},
    "log-group": _log_groups,
    "oidc-provider": _providers,
    "role": _roles,
    "schedule-group": _schedules,
    "resource": _anything_else,
}


def find(aws: Aws, names: Names, kinds: Iterable[str] = FINDERS) -> list[Thing]:
    """Return what is there of the run, in the order in which it can be removed."""
    return [thing for kind in kinds for thing in FINDERS[kind](aws, names)]


# -- removing -------------------------------------------------------------------------------------

_DELETE: Mapping[str, tuple[str, str, str]] = {
    "load-balancer": ("elbv2", "delete_load_balancer", "LoadBalancerArn"),
    "target-group": ("elbv2", "delete_target_group", "TargetGroupArn"),
    "classic-load-balancer": ("elb", "delete_load_balancer", "LoadBalancerName"),
    "cluster": ("eks", "delete_cluster", "name"),
    "natgateway": ("ec2", "delete_nat_gateway", "NatGatewayId"),
    "network-interface": ("ec2", "delete_network_interface", "NetworkInterfaceId"),
    "elastic-ip": ("ec2", "release_address", "AllocationId"),
    "volume": ("ec2", "delete_volume", "VolumeId"),
    "snapshot": ("ec2", "delete_snapshot", "SnapshotId"),
    "launch-template": ("ec2", "delete_launch_template", "LaunchTemplateId"),
    "security-group": ("ec2", "delete_security_group", "GroupId"),
    "network-acl": ("ec2", "delete_network_acl", "NetworkAclId"),
    "subnet": ("ec2", "delete_subnet", "SubnetId"),
    "vpc": ("ec2", "delete_vpc", "VpcId"),
    "log-group": ("logs", "delete_log_group", "logGroupName"),
    "oidc-provider": ("iam", "delete_open_id_connect_provider", "OpenIDConnectProviderArn"),
    "schedule-group": ("scheduler", "delete_schedule_group", "Name"),
}
_LINES: Mapping[str, str] = {
    "stack": "aws cloudformation delete-stack --stack-name {id}",
    "nodegroup": "aws eks delete-nodegroup --cluster-name {id} --nodegroup-name {tail}",
    "cluster": "aws eks delete-cluster --name {id}",
    "load-balancer": "aws elbv2 delete-load-balancer --load-balancer-arn {id}",
    "target-group": "aws elbv2 delete-target-group --target-group-arn {id}",
    "classic-load-balancer": "aws elb delete-load-balancer --load-balancer-name {id}",
    "autoscaling-group": (
        "aws autoscaling delete-auto-scaling-group --force-delete --auto-scaling-group-name {id}"
    ),
    "instance": "aws ec2 terminate-instances --instance-ids {id}",
    "natgateway": "aws ec2 delete-nat-gateway --nat-gateway-id {id}",
    "network-interface": "aws ec2 delete-network-interface --network-interface-id {id}",
    "elastic-ip": "aws ec2 release-address --allocation-id {id}",
    "volume": "aws ec2 delete-volume --volume-id {id}",
    "snapshot": "aws ec2 delete-snapshot --snapshot-id {id}",
    "launch-template": "aws ec2 delete-launch-template --launch-template-id {id}",
    "security-group": "aws ec2 delete-security-group --group-id {id}",
    "network-acl": "aws ec2 delete-network-acl --network-acl-id {id}",
    "subnet": "aws ec2 delete-subnet --subnet-id {id}",
    "route-table": "aws ec2 delete-route-table --route-table-id {id}",
    "internet-gateway": "aws ec2 delete-internet-gateway --internet-gateway-id {id}",
    "vpc": "aws ec2 delete-vpc --vpc-id {id}",
    "log-group": "aws logs delete-log-group --log-group-name {id}",
    "oidc-provider": (
        "aws iam delete-open-id-connect-provider --open-id-connect-provider-arn {id}"
    ),
    "role": "aws iam delete-role --role-name {id}",
    "schedule-group": "aws scheduler delete-schedule-group --name {id}",
    "resource": "aws resourcegroupstaggingapi get-resources --resource-arn-list {id}",
}


def delete(aws: Aws, thing: Thing) -> None:
    """Ask for the removal of one thing; one that is gone already is fine.

    :raises AwsRefused: it is in use, or may not be removed.
    """
    special = _SPECIAL.get(thing.kind)
    try:
        if special is not None:
            special(aws, thing.id)
        elif thing.kind in _DELETE:
            service, operation, member = _DELETE[thing.kind]
            aws.call(service, operation, **{member: thing.id})
    except AwsRefused as refused:
        if not refused.missing:
            raise


def _terminate(aws: Aws, name: str) -> None:
    aws.call("ec2", "terminate_instances", InstanceIds=[name])


def _scaler(aws: Aws, name: str) -> None:
    aws.call(
        "autoscaling", "delete_auto_scaling_group", AutoScalingGroupName=name, ForceDelete=True
    )


def _nodegroup(aws: Aws, name: str) -> None:
    cluster, _, group = name.partition("/")
    aws.call("eks", "delete_nodegroup", clusterName=cluster, nodegroupName=group)


def _table(aws: Aws, name: str) -> None:
    (found,) = aws.call("ec2", "describe_route_tables", RouteTableIds=[name])["RouteTables"]
    for each in found.get("Associations", ()):
        if not each.get("Main"):
            aws.call(
                "ec2", "disassociate_route_table", AssociationId=each["RouteTableAssociationId"]
            )
    aws.call("ec2", "delete_route_table", RouteTableId=name)


def _gateway(aws: Aws, name: str) -> None:
    (found,) = aws.call("ec2", "describe_internet_gateways", InternetGatewayIds=[name])[
        "InternetGateways"
    ]
    for each in found.get("Attachments", ()):
        aws.call("ec2", "detach_internet_gateway", InternetGatewayId=name, VpcId=each["VpcId"])
    aws.call("ec2", "delete_internet_gateway", InternetGatewayId=name)


def _role(aws: Aws, name: str) -> None:
    profiles = aws.every(
        "iam", "list_instance_profiles_for_role", "InstanceProfiles", RoleName=name
    )
    for each in list(profiles):
        profile = each["InstanceProfileName"]
        aws.call(
            "iam", "remove_role_from_instance_profile", RoleName=name, InstanceProfileName=profile
        )
        aws.call("iam", "delete_instance_profile", InstanceProfileName=profile)
    attached = aws.every("iam", "list_attached_role_policies", "AttachedPolicies", RoleName=name)
    for each in list(attached):
        aws.call("iam", "detach_role_policy", RoleName=name, PolicyArn=each["PolicyArn"])
    for each in list(aws.every("iam", "list_role_policies", "PolicyNames", RoleName=name)):
        aws.call("iam", "delete_role_policy", RoleName=name, PolicyName=each)
    aws.call("iam", "delete_role", RoleName=name)


def _leave(_aws: Aws, _name: str) -> None:
    """A kind that is only told of: stacks go by their own path, and what this program never makes
    (a bucket with the run's tag) is somebody's to look at."""


_SPECIAL: Mapping[str, Callable[[Aws, str], None]] = {
    "stack": _leave,
    "resource": _leave,
    "instance": _terminate,
    "autoscaling-group": _scaler,
    "nodegroup": _nodegroup,
    "route-table": _table,
    "internet-gateway": _gateway,
    "role": _role,
}


def _in_lots(items: list[str], size: int) -> Iterator[list[str]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
