"""EKS: the control plane, node groups, addons and entries, with the traces that each leaves in EC2."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fakes.aws import ec2
from fakes.aws.answers import Answer, Params, Refused, Thing, page
from fakes.aws.world import ACCOUNT, REGION, VERSIONS, World, facts


def missing(what: str, name: str) -> Refused:
    return Refused("ResourceNotFoundException", f"No {what} found for name: {name}.", 404)


def cluster_of(world: World, name: str) -> Thing:
    found = world.kind("cluster").get(name)
    if found is None:
        raise missing("cluster", name)
    return found


def _arn(kind: str, *parts: str) -> str:
    return f"arn:aws:eks:{REGION}:{ACCOUNT}:{kind}/{'/'.join(parts)}"


# -- making ---------------------------------------------------------------------------------------


def make_cluster(world: World, tags: dict[str, str], wanted: Params) -> Thing:
    """Begin a cluster: CREATING, with its security group and its interfaces in the subnets."""
    name = wanted["Name"]
    if name in world.kind("cluster"):
        raise Refused("ResourceInUseException", f"Cluster already exists with name: {name}", 409)
    _check_version(wanted["Version"])
    network = wanted["ResourcesVpcConfig"]
    subnets = [ec2.get(world, "subnet", each) for each in network["SubnetIds"]]
    zones = {each["AvailabilityZone"] for each in subnets}
    if bad := zones & set(world.zones_without_eks):
        usable = ", ".join(zone for zone in world.zones if zone not in world.zones_without_eks)
        raise Refused(
            "UnsupportedAvailabilityZoneException",
            f"Cannot create cluster '{name}' because {min(bad)}, the targeted availability zone, "
            "does not currently have sufficient capacity to support the cluster. Retry and choose "
            f"from these availability zones: {usable}",
        )
    vpc = subnets[0]["VpcId"]
    owned = {f"kubernetes.io/cluster/{name}": "owned", "aws:eks:cluster-name": name}
    group = ec2.make(world, "security-group", {"Name": f"eks-cluster-sg-{name}-1", **owned},
                     GroupName=f"eks-cluster-sg-{name}-1", Description="EKS created security group",
                     VpcId=vpc, IpPermissions=[], OwnerId=ACCOUNT)  # fmt: skip
    for subnet in network["SubnetIds"][:2]:
        ec2.make_eni(world, {}, subnet, [group["GroupId"]], Description=f"Amazon EKS {name}",
                     InterfaceType="interface", RequesterManaged=True, _cluster=name)  # fmt: skip
    issuer = f"https://oidc.eks.{REGION}.amazonaws.com/id/{world.issuer}"
    logging = wanted.get("Logging", {}).get("ClusterLogging", {}).get("EnabledTypes", [])
    _write_logs(world, name, [each["Type"] for each in logging])
    return world.put("cluster", name, {
        "name": name,
        "arn": _arn("cluster", name),
        "createdAt": world.clock.moment(),
        "version": wanted["Version"],
        "platformVersion": "eks.4",
        "endpoint": world.endpoint or f"https://{world.issuer}.gr7.{REGION}.eks.amazonaws.com",
        "roleArn": wanted["RoleArn"],
        "status": "CREATING",
        "certificateAuthority": {"data": world.authority or base64.b64encode(b"ca").decode()},
        "identity": {"oidc": {"issuer": issuer}},
        "accessConfig": {"authenticationMode": wanted["AccessConfig"]["AuthenticationMode"]},
        "upgradePolicy": {"supportType": wanted["UpgradePolicy"]["SupportType"]},
        "logging": {"clusterLogging": [{"types": [e["Type"] for e in logging], "enabled": True}]},
        "resourcesVpcConfig": {
            "subnetIds": list(network["SubnetIds"]),
            "securityGroupIds": [],
            "clusterSecurityGroupId": group["GroupId"],
            "vpcId": vpc,
            "endpointPublicAccess": str(network["EndpointPublicAccess"]).lower() == "true",
            "endpointPrivateAccess": str(network["EndpointPrivateAccess"]).lower() == "true",
            "publicAccessCidrs": list(network["PublicAccessCidrs"]),
        },
        "tags": dict(tags),
        "deletionProtection": False,
    })  # fmt: skip


def _check_version(version: str) -> None:
    for known, status, _, _ in VERSIONS:
        if known == version and status != "UNSUPPORTED":
            return
    raise Refused("InvalidParameterException", f"unsupported Kubernetes version {version}")


def _write_logs(world: World, name: str, kinds: list[str]) -> None:
    group = f"/aws/eks/{name}/cluster"
    if group not in world.kind("log-group"):
        # As EKS does: outside of every stack, kept for ever.
        world.put("log-group", group, {"logGroupName": group, "_tags": {}, "_streams": []})
    spelled = {"api": "kube-apiserver", "audit": "kube-apiserver-audit"}
    world.kind("log-group")[group]["_streams"] = [
        f"{spelled.get(kind, kind)}-0123456789abcdef" for kind in kinds
    ]


def make_nodegroup(world: World, tags: dict[str, str], wanted: Params) -> Thing:
    """Begin a node group: its autoscaling group and its instances are there at once."""
    cluster, name = wanted["ClusterName"], wanted["NodegroupName"]
    if cluster_of(world, cluster)["status"] != "ACTIVE":
        raise Refused("InvalidRequestException", f"Cluster '{cluster}' is not ACTIVE")
    key = f"{cluster}/{name}"
    if key in world.kind("nodegroup"):
        raise Refused("ResourceInUseException", f"NodeGroup already exists with name {name}", 409)
    template = ec2.get(world, "launch-template", wanted["LaunchTemplate"]["Id"])
    scaling = {
        "minSize": int(wanted["ScalingConfig"]["MinSize"]),
        "maxSize": int(wanted["ScalingConfig"]["MaxSize"]),
        "desiredSize": int(wanted["ScalingConfig"]["DesiredSize"]),
    }
    scaler = world.new_id(f"eks-{name}")
    world.put("autoscaling-group", scaler, {
        "AutoScalingGroupName": scaler,
        "_tags": {"eks:cluster-name": cluster, "eks:nodegroup-name": name},
    })  # fmt: skip
    group = world.put("nodegroup", key, {
        "nodegroupName": name,
        "nodegroupArn": _arn("nodegroup", cluster, name, "1"),
        "clusterName": cluster,
        "status": "CREATING",
        "version": cluster_of(world, cluster)["version"],
        "instanceTypes": list(wanted["InstanceTypes"]),
        "amiType": wanted["AmiType"],
        "subnets": list(wanted["Subnets"]),
        "nodeRole": wanted["NodeRole"],
        "scalingConfig": scaling,
        "launchTemplate": {"id": template["LaunchTemplateId"], "version": "1"},
        "resources": {"autoScalingGroups": [{"name": scaler}]},
        "health": {"issues": []},
        "tags": dict(tags),
    })  # fmt: skip
    scale(world, group)
    return group


def scale(world: World, group: Thing) -> None:
    """Bring a group's instances to its desired size, where there is capacity."""
    cluster, name = group["clusterName"], group["nodegroupName"]
    mine = {"eks:cluster-name": cluster, "eks:nodegroup-name": name}
    here = [
        each
        for each, thing in world.kind("instance").items()
        if mine.items() <= thing["_tags"].items()
    ]
    for each in here[group["scalingConfig"]["desiredSize"] :]:
        ec2.terminate(world, each)
    place = ec2.get(world, "subnet", group["subnets"][0])
    template = ec2.get(world, "launch-template", group["launchTemplate"]["id"])
    tags = {
        t["Key"]: t["Value"]
        for spec in template["_data"].get("TagSpecifications", ())
        if spec["ResourceType"] == "instance"
        for t in spec["Tags"]
    }
    owned = {f"kubernetes.io/cluster/{cluster}": "owned"}
    security = cluster_of(world, cluster)["resourcesVpcConfig"]["clusterSecurityGroupId"]
    for _ in range(len(here), group["scalingConfig"]["desiredSize"]):
        kinds = [k for k in group["instanceTypes"] if (k, place["AvailabilityZone"]) not in world.no_capacity]  # fmt: skip
        if not kinds:
            group["health"]["issues"] = [{
                "code": "AsgInstanceLaunchFailures",
                "message": "Could not launch On-Demand Instances. InsufficientInstanceCapacity - "
                f"We currently do not have sufficient {group['instanceTypes'][0]} capacity in the "
                f"Availability Zone you requested ({place['AvailabilityZone']}).",
                "resourceIds": [group["resources"]["autoScalingGroups"][0]["name"]],
            }]  # fmt: skip
            return
        instance = ec2.make_instance(world, {**tags, **mine, **owned}, group["subnets"][0],
                                     security, kind=kinds[0],
                                     template=group["launchTemplate"]["id"])  # fmt: skip
        cni = {"cluster.k8s.amazonaws.com/name": cluster,
               "node.k8s.amazonaws.com/instance_id": instance["InstanceId"],
               "node.k8s.amazonaws.com/createdAt": "2026-11-23T20:20:00Z"}  # fmt: skip
        ec2.make_eni(world, cni, group["subnets"][0], [security],
                     Description=f"aws-K8S-{instance['InstanceId']}",
                     Attachment={"InstanceId": instance["InstanceId"]},
                     _leaks=world.leak_eni)  # fmt: skip


def make_addon(world: World, tags: dict[str, str], wanted: Params) -> Thing:
    cluster, name = wanted["ClusterName"], wanted["AddonName"]
    cluster_of(world, cluster)
    key = f"{cluster}/{name}"
    if key in world.kind("addon"):
        raise Refused("ResourceInUseException", f"Addon already exists: {name}", 409)
    identities = []
    for each in wanted.get("PodIdentityAssociations", ()):
        identity = world.new_id("a")
        world.put("pod-identity", identity, {
            "associationId": identity,
            "associationArn": _arn("podidentityassociation", cluster, identity),
            "clusterName": cluster,
            "namespace": "amazon-cloudwatch" if "cloudwatch" in name else "kube-system",
            "serviceAccount": each["ServiceAccount"],
            "roleArn": each["RoleArn"],
            "_addon": key,
        })  # fmt: skip
        identities.append(_arn("podidentityassociation", cluster, identity))
    found = {
        "addonName": name,
        "addonArn": _arn("addon", cluster, name, "1"),
        "clusterName": cluster,
        "status": "CREATING",
        "addonVersion": "v1.2.3-eksbuild.1",
        "health": {"issues": []},
        "tags": dict(tags),
    }
    found |= facts(
        serviceAccountRoleArn=wanted.get("ServiceAccountRoleArn"),
        configurationValues=wanted.get("ConfigurationValues"),
        podIdentityAssociations=identities or None,
    )
    return world.put("addon", key, found)


def make_entry(world: World, tags: dict[str, str], wanted: Params) -> Thing:
    cluster, who = wanted["ClusterName"], wanted["PrincipalArn"]
    cluster_of(world, cluster)
    key = f"{cluster}/{who}"
    if key in world.kind("access-entry"):
        raise Refused("ResourceInUseException", f"The entry {who} already exists", 409)
    policies = [
        {"policyArn": each["PolicyArn"], "accessScope": {"type": each["AccessScope"]["Type"]}}
        for each in wanted.get("AccessPolicies", ())
    ]
    return world.put("access-entry", key, {
        "clusterName": cluster, "principalArn": who, "type": wanted.get("Type", "STANDARD"),
        "username": wanted.get("Username", who), "kubernetesGroups": [], "tags": dict(tags),
        "accessEntryArn": _arn("access-entry", cluster, "1"), "_policies": policies,
    })  # fmt: skip


# -- unmaking -------------------------------------------------------------------------------------


def drop_cluster(world: World, name: str) -> None:
    found = cluster_of(world, name)
    if any(key.startswith(f"{name}/") for key in world.kind("nodegroup")):
        raise Refused("ResourceInUseException", "Cluster has nodegroups attached", 409)
    if found["deletionProtection"]:
        raise Refused("InvalidRequestException", "deletion protection is enabled")
    for each, eni in list(world.kind("network-interface").items()):
        if eni.get("_cluster") == name:
            world.drop("network-interface", each)
    # The group goes with the cluster, unless something is still in it.
    group = found["resourcesVpcConfig"]["clusterSecurityGroupId"]
    if group in world.kind("security-group"):
        try:
            ec2.drop_group(world, group)
        except Refused:
            world.touched()
    for kind in ("addon", "access-entry"):
        for key in [k for k in world.kind(kind) if k.startswith(f"{name}/")]:
            world.drop(kind, key)
    for key in [k for k, t in world.kind("pod-identity").items() if t["clusterName"] == name]:
        world.drop("pod-identity", key)
    world.drop("cluster", name)
    if world.late_logs:
        # A last audit event comes when the stack has already deleted the group.
        world.put("late-log", name, {"_at": world.clock.now() + 20.0})


def drop_nodegroup(world: World, key: str) -> None:
    group = world.kind("nodegroup").get(key)
    if group is None:
        raise missing("node group", key)
    mine = {"eks:cluster-name": group["clusterName"], "eks:nodegroup-name": group["nodegroupName"]}
    for each, instance in list(world.kind("instance").items()):
        if mine.items() <= instance["_tags"].items():
            ec2.terminate(world, each)
    world.drop("autoscaling-group", group["resources"]["autoScalingGroups"][0]["name"])
    world.drop("nodegroup", key)


def drop_addon(world: World, key: str) -> None:
    if key not in world.kind("addon"):
        raise missing("addon", key)
    for each in [k for k, t in world.kind("pod-identity").items() if t["_addon"] == key]:
        world.drop("pod-identity", each)
    world.drop("addon", key)


def drop_entry(world: World, key: str) -> None:
    if key not in world.kind("access-entry"):
        raise missing("access entry", key)
    world.drop("access-entry", key)


# -- the API --------------------------------------------------------------------------------------


def _public(thing: Thing) -> Thing:
    return {key: value for key, value in thing.items() if not key.startswith("_")}


def _describe_cluster(world: World, params: Params) -> Answer:
    return {"cluster": _public(cluster_of(world, params["name"]))}


def _delete_cluster(world: World, params: Params) -> Answer:
    found = dict(_public(cluster_of(world, params["name"])))
    drop_cluster(world, params["name"])
    return {"cluster": {**found, "status": "DELETING"}}


def _inner(kind: str, member: str, answer: str, what: str) -> Callable[[World, Params], Answer]:
    def describe(world: World, params: Params) -> Answer:
        cluster_of(world, params["clusterName"])
        found = world.kind(kind).get(f"{params['clusterName']}/{params[member]}")
        if found is None:
            raise missing(what, params[member])
        return {answer: _public(found)}

    return describe


def _list_inner(kind: str, member: str, key: str) -> Callable[[World, Params], Answer]:
    def listed(world: World, params: Params) -> Answer:
        cluster_of(world, params["clusterName"])
        found = [
            thing[member]
            for thing in world.kind(kind).values()
            if thing["clusterName"] == params["clusterName"]
        ]
        return page(found, params, key, "nextToken", 20)

    return listed


def _delete_nodegroup(world: World, params: Params) -> Answer:
    key = f"{params['clusterName']}/{params['nodegroupName']}"
    found = dict(_public(world.kind("nodegroup").get(key, {})))
    drop_nodegroup(world, key)
    return {"nodegroup": {**found, "status": "DELETING"}}


def _update_nodegroup(world: World, params: Params) -> Answer:
    key = f"{params['clusterName']}/{params['nodegroupName']}"
    group = world.kind("nodegroup").get(key)
    if group is None:
        raise missing("node group", params["nodegroupName"])
    group["scalingConfig"].update(params.get("scalingConfig", {}))
    scale(world, group)
    world.touched()
    return {"update": {"id": world.new_id("u"), "status": "Successful", "type": "ConfigUpdate"}}


def _tag(world: World, params: Params) -> Answer:
    for found in world.kind("cluster").values():
        if found["arn"] == params["resourceArn"]:
            found["tags"].update(params["tags"])
            world.touched()
            return {}
    raise missing("resource", params["resourceArn"])


def _versions(_world: World, params: Params) -> Answer:
    wanted = params.get("clusterVersions")
    return {
        "clusterVersions": [
            {
                "clusterVersion": version,
                "clusterType": "eks",
                "defaultVersion": version == "1.35",
                "versionStatus": status,
                "endOfStandardSupportDate": _date(standard),
                "endOfExtendedSupportDate": _date(extended),
            }
            for version, status, standard, extended in VERSIONS
            if (not wanted or version in wanted) and (wanted or status != "UNSUPPORTED")
        ]
    }


def _date(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _associations(world: World, params: Params) -> Answer:
    cluster_of(world, params["clusterName"])
    fields = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")
    return {
        "associations": [
            {field: thing[field] for field in fields}
            for thing in world.kind("pod-identity").values()
            if thing["clusterName"] == params["clusterName"]
        ]
    }


def _association(world: World, params: Params) -> Answer:
    found = world.kind("pod-identity").get(params["associationId"])
    if found is None:
        raise missing("association", params["associationId"])
    return {"association": _public(found)}


def _policies(world: World, params: Params) -> Answer:
    found = world.kind("access-entry").get(f"{params['clusterName']}/{params['principalArn']}")
    if found is None:
        raise missing("access entry", params["principalArn"])
    return {
        "clusterName": params["clusterName"],
        "principalArn": params["principalArn"],
        "associatedAccessPolicies": found["_policies"],
    }


def _clusters(world: World, params: Params) -> Answer:
    return page(list(world.kind("cluster")), params, "clusters", "nextToken", 20)


HANDLERS: dict[str, Callable[[World, Params], Any]] = {
    "DescribeCluster": _describe_cluster,
    "ListClusters": _clusters,
    "DeleteCluster": _delete_cluster,
    "DescribeClusterVersions": _versions,
    "TagResource": _tag,
    "ListNodegroups": _list_inner("nodegroup", "nodegroupName", "nodegroups"),
    "DescribeNodegroup": _inner("nodegroup", "nodegroupName", "nodegroup", "node group"),
    "DeleteNodegroup": _delete_nodegroup,
    "UpdateNodegroupConfig": _update_nodegroup,
    "ListAddons": _list_inner("addon", "addonName", "addons"),
    "DescribeAddon": _inner("addon", "addonName", "addon", "addon"),
    "ListAccessEntries": _list_inner("access-entry", "principalArn", "accessEntries"),
    "DescribeAccessEntry": _inner("access-entry", "principalArn", "accessEntry", "access entry"),
    "ListAssociatedAccessPolicies": _policies,
    "ListPodIdentityAssociations": _associations,
    "DescribePodIdentityAssociation": _association,
}
