"""Where nodes stand, how they get out, and who gets in."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.audit.control_plane import addon_values
from pytest_pgo_eks.audit.facts import Facts, Unread
from pytest_pgo_eks.audit.result import Check, Result, failed, passed, warned

ZONE = "topology.kubernetes.io/zone"
_CLOSED = (22, 5432, 10250)


def private_nodes(facts: Facts) -> Result:
    instances = _instances(facts)
    seen = [
        f"{i['InstanceId']}: subnet {i['SubnetId']}, public address {i.get('PublicIpAddress')}"
        for i in instances
    ]
    public = [
        i["InstanceId"]
        for i in instances
        if i.get("PublicIpAddress") or _default_route(facts, i["SubnetId"]).get("GatewayId")
    ]
    if public:
        told = f"{len(public)} of {len(instances)} nodes stand in public subnets"
        return failed(told, *seen, asked_for_by="D3")
    ways = {
        i["SubnetId"]: _default_route(facts, i["SubnetId"]).get("NatGatewayId") for i in instances
    }
    zones = {facts["subnets"][subnet]["AvailabilityZone"] for subnet in ways}
    gateways = {way for way in ways.values() if way}
    if gateways and len(gateways) < len(zones):
        return warned(
            f"{len(zones)} zones leave through {len(gateways)} NAT gateway(s): "
            "the loss of its zone cuts the others off",
            *seen,
        )
    return passed("all nodes stand in private subnets and leave through their own zone", *seen)


def spread(facts: Facts) -> Result:
    zones = {
        node["metadata"]["name"]: node["metadata"].get("labels", {}).get(ZONE, "")
        for node in facts["nodes"]
    }
    used = {zone for zone in zones.values() if zone}
    seen = [f"{name}: {zone or 'no zone'}" for name, zone in sorted(zones.items())]
    if len(used) < facts.expected_zones:
        told = f"nodes stand in {len(used)} of {facts.expected_zones} zones"
        return failed(told, *seen, asked_for_by="D4")
    places = {
        pod["metadata"]["name"]: zones.get(pod["spec"].get("nodeName", ""), "")
        for pod in facts.instance_pods
    }
    seen += [f"{name}: {zone}" for name, zone in sorted(places.items())]
    wanted = min(len(places), facts.expected_zones)
    if len(set(places.values())) < wanted:
        return failed(f"{len(places)} instances stand in {len(set(places.values()))} zones", *seen)
    return passed(f"nodes and instances stand in {len(used)} zones", *seen)


def policies_enforced(facts: Facts) -> Result:
    addon = facts["addons"].get("vpc-cni") or {}
    told = str(addon_values(addon).get("enableNetworkPolicy", "false")).lower()
    seen = f"vpc-cni {addon.get('addonVersion', 'not as an addon')}: enableNetworkPolicy {told}"
    if "network-policy" in facts["capabilities"]:
        return passed("a NetworkPolicy stops a connection that is let through without it", seen)
    if told == "true":
        return failed("the network policy engine is on and stops nothing", seen)
    return failed("NetworkPolicies are accepted and not enforced", seen)


def security_groups(facts: Facts) -> Result:
    open_ports = [
        f"{group['GroupId']} ({group.get('GroupName', '')}): port {port} from {source}"
        for group in facts["security_groups"]
        for rule in group.get("IpPermissions", [])
        for source in _sources(rule)
        if source in ("0.0.0.0/0", "::/0")
        for port in _CLOSED
        if _covers(rule, port)
    ]
    if open_ports:
        return failed("security groups let the internet in", *open_ports)
    count = len(facts["security_groups"])
    return passed(
        f"none of {count} security groups opens ssh, PostgreSQL or the kubelet to the internet"
    )


def metadata_service(facts: Facts) -> Result:
    asked = [(f"launch template {d.get('Name', '')}", d) for d in facts["launch_templates"]]
    asked += [(i["InstanceId"], i) for i in _instances(facts)]
    loose = [
        f"{name}: {problem}"
        for name, one in asked
        if (problem := _metadata_problem(one.get("MetadataOptions") or {}))
    ]
    if loose:
        return failed("pods can take the node's role from its metadata service", *loose)
    return passed("nodes answer metadata requests with a token only, and never a pod's")


def _metadata_problem(options: dict[str, Any]) -> str:
    tokens, hops = options.get("HttpTokens"), options.get("HttpPutResponseHopLimit")
    if options.get("HttpEndpoint") == "disabled" or (tokens, hops) == ("required", 1):
        return ""
    return f"HttpTokens {tokens}, hop limit {hops}"


def _instances(facts: Facts) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = facts["instances"]
    if not found:
        raise Unread("EC2 lists no instance of the cluster")
    return found


def _default_route(facts: Facts, subnet: str) -> dict[str, Any]:
    """Return the route to everywhere that a subnet uses; a subnet without a table of its own uses
    the VPC's main one."""
    tables = facts["route_tables"]
    own = [t for t in tables if any(a.get("SubnetId") == subnet for a in t["Associations"])]
    main = [t for t in tables if any(a.get("Main") for a in t["Associations"])]
    for table in own or main:
        for route in table["Routes"]:
            gateway = route.get("GatewayId", "")
            if route.get("DestinationCidrBlock") == "0.0.0.0/0" and gateway != "local":
                return dict(route)
    return {}


def _sources(rule: dict[str, Any]) -> list[str]:
    return [r["CidrIp"] for r in rule.get("IpRanges", [])] + [
        r["CidrIpv6"] for r in rule.get("Ipv6Ranges", [])
    ]


def _covers(rule: dict[str, Any], port: int) -> bool:
    if rule.get("IpProtocol") == "-1":
        return True
    if rule.get("IpProtocol") not in ("tcp", "6"):
        return False
    return int(rule.get("FromPort", 0)) <= port <= int(rule.get("ToPort", 65535))


CHECKS = (
    Check(
        "A8",
        "the nodes' metadata service is closed to pods",
        "S16: IAM roles for service accounts",
        metadata_service,
        "EKS best practices, restrict access to the instance profile",
    ),
    Check(
        "A10",
        "nodes stand in private subnets",
        "S2, S16: nodes behind NAT gateways",
        private_nodes,
        "EKS best practices, VPC and subnet considerations",
    ),
    Check(
        "A11",
        "nodes and instances stand in three zones",
        "S2, S14, S16: several zones",
        spread,
        "EKS best practices, reliability",
    ),
    Check(
        "A12",
        "NetworkPolicies are enforced",
        "S16: network policies, a CNI that enforces them",
        policies_enforced,
        "EKS user guide, VPC CNI network policy",
    ),
    Check(
        "A15",
        "security groups keep the internet out",
        "S16: security groups",
        security_groups,
        "Security Hub EC2.13, EC2.19",
    ),
)
