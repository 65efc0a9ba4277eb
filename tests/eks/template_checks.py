"""What cfn-lint lets through and AWS does not: looked for in templates with their values filled in."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fakes.aws import template as language
from fakes.aws.world import TYPES

Resources = dict[str, dict[str, Any]]

ISSUER = "oidc.eks.us-east-1.amazonaws.com/id/0123"
ADDONS = {
    "vpc-cni",
    "kube-proxy",
    "coredns",
    "eks-pod-identity-agent",
    "aws-ebs-csi-driver",
    "amazon-cloudwatch-observability",
}
ARCHITECTURES = {"AL2023_ARM_64_STANDARD": "arm64", "AL2023_x86_64_STANDARD": "x86_64"}
TARGETS = {"GatewayId", "NatGatewayId", "InstanceId", "TransitGatewayId", "VpcPeeringConnectionId"}
_ACCESS = re.compile(r"arn:aws[\w-]*:eks::aws:cluster-access-policy/AmazonEKS\w+Policy")


def filled(body: str, given: Mapping[str, str]) -> Resources:
    """Return the resources that a template makes with these parameters, every function carried out.

    A reference to another resource becomes ``<Name>`` or ``<Name.Attribute>``.
    """
    found = language.parse(body)
    values = language.parameters(found, given)
    known = {"AWS::Partition": "aws", "AWS::AccountId": "111122223333", **values}

    def resolve(name: str, attribute: str | None) -> Any:
        if attribute is None and name in known:
            return known[name]
        if attribute == "OpenIdConnectIssuerUrl":
            return f"https://{ISSUER}"
        return f"<{name}.{attribute}>" if attribute else f"<{name}>"

    holds = language.conditions(found, resolve)
    return {
        name: {
            **language.evaluate(what.get("Properties", {}), resolve, holds),
            # Last: access entries have a property of that name, too.
            "Type": what["Type"],
        }
        for name, what in found["Resources"].items()
        if holds.get(what.get("Condition", ""), True)
    }


def problems(resources: Resources, policies: frozenset[str]) -> list[str]:
    """Return everything that AWS would refuse; ``policies`` are the managed ones that exist."""
    return [
        f"{name}: {said}"
        for name, what in resources.items()
        for check in _CHECKS.get(what["Type"], ())
        for said in check(what, resources, policies)
    ]


Check = Callable[[dict[str, Any], Resources, frozenset[str]], Iterator[str]]


def _subnet(what: dict[str, Any], resources: Resources, _policies: frozenset[str]) -> Iterator[str]:
    own = ipaddress.ip_network(what["CidrBlock"])
    (vpc,) = [r for r in resources.values() if r["Type"] == "AWS::EC2::VPC"]
    if not own.subnet_of(ipaddress.ip_network(vpc["CidrBlock"])):  # type: ignore[arg-type]
        yield f"{own} is outside of the VPC"
    for other in resources.values():
        if other["Type"] != "AWS::EC2::Subnet" or other is what:
            continue
        if own.overlaps(ipaddress.ip_network(other["CidrBlock"])):
            yield f"{own} overlaps another subnet"


def _route(what: dict[str, Any], _resources: Resources, _policies: frozenset[str]) -> Iterator[str]:
    if len(TARGETS & what.keys()) != 1:
        yield f"a route has one target, not {sorted(TARGETS & what.keys())}"


def _role(what: dict[str, Any], _resources: Resources, policies: frozenset[str]) -> Iterator[str]:
    for arn in what.get("ManagedPolicyArns", ()):
        if arn.partition(":policy/")[2] not in policies:
            yield f"there is no managed policy {arn}"
    trust = what["AssumeRolePolicyDocument"]
    if isinstance(trust, str):
        try:
            trust = json.loads(trust)
        except ValueError as error:
            yield f"the trust document is no JSON: {error}"
            return
    for statement in trust["Statement"]:
        for operator in statement.get("Condition", {}).values():
            for key in operator:
                if re.search(r"[${}<>]|Fn::|!Sub", key):
                    yield f"a function was not carried out in the condition key {key}"
        if "AssumeRoleWithWebIdentity" in str(statement["Action"]):
            asked = statement.get("Condition", {}).get("StringEquals", {})
            if asked.get(f"{ISSUER}:aud") != "sts.amazonaws.com":
                yield "the trust names no audience"
            if (
                asked.get(f"{ISSUER}:sub")
                != "system:serviceaccount:kube-system:ebs-csi-controller-sa"
            ):
                yield "the trust names no ServiceAccount"


def _nodegroup(
    what: dict[str, Any], resources: Resources, _policies: frozenset[str]
) -> Iterator[str]:
    for name in what["InstanceTypes"]:
        if name not in TYPES:
            yield f"there is no instance type {name}"
        elif TYPES[name][0] != ARCHITECTURES[what["AmiType"]]:
            yield f"{name} does not run an image of {what['AmiType']}"
    if "DiskSize" in what and "LaunchTemplate" in what:
        yield "DiskSize and a launch template exclude each other"
    if len(what["Subnets"]) != 1:
        yield "a node group is in one zone"
    same = [
        r for r in resources.values()
        if r["Type"] == what["Type"] and r["Subnets"] == what["Subnets"]
    ]  # fmt: skip
    if len(same) != 1:
        yield "two node groups share a zone"


def _addon(what: dict[str, Any], _resources: Resources, _policies: frozenset[str]) -> Iterator[str]:
    if what["AddonName"] not in ADDONS:
        yield f"there is no addon {what['AddonName']}"
    if "ConfigurationValues" in what:
        try:
            json.loads(what["ConfigurationValues"])
        except ValueError as error:
            yield f"the configuration is no JSON: {error}"


def _entry(what: dict[str, Any], _resources: Resources, _policies: frozenset[str]) -> Iterator[str]:
    for each in what.get("AccessPolicies", ()):
        if not _ACCESS.fullmatch(each["PolicyArn"]):
            yield f"{each['PolicyArn']} is no access policy"


def _template(
    what: dict[str, Any], _resources: Resources, _policies: frozenset[str]
) -> Iterator[str]:
    data = what["LaunchTemplateData"]
    options = data.get("MetadataOptions", {})
    if (
        options.get("HttpTokens") != "required"
        or str(options.get("HttpPutResponseHopLimit")) != "1"
    ):
        yield "pods reach the node's metadata"
    if not all(str(m["Ebs"]["Encrypted"]).lower() == "true" for m in data["BlockDeviceMappings"]):
        yield "a root volume is not encrypted"
    tagged = {s["ResourceType"]: {t["Key"] for t in s["Tags"]} for s in data["TagSpecifications"]}
    for kind in ("instance", "volume", "network-interface"):
        if "pgo-eks/run" not in tagged.get(kind, ()):
            yield f"a {kind} would not carry the run's tag"


def _cluster(
    what: dict[str, Any], resources: Resources, _policies: frozenset[str]
) -> Iterator[str]:
    name = f"/aws/eks/{what['Name']}/cluster"
    if not any(r.get("LogGroupName") == name for r in resources.values()):
        yield f"EKS would make {name} outside of the stack"
    if what["UpgradePolicy"]["SupportType"] != "STANDARD":
        yield "the cluster would slide into extended support"


_CHECKS: Mapping[str, tuple[Check, ...]] = {
    "AWS::EC2::Subnet": (_subnet,),
    "AWS::EC2::Route": (_route,),
    "AWS::IAM::Role": (_role,),
    "AWS::EKS::Nodegroup": (_nodegroup,),
    "AWS::EKS::Addon": (_addon,),
    "AWS::EKS::AccessEntry": (_entry,),
    "AWS::EC2::LaunchTemplate": (_template,),
    "AWS::EKS::Cluster": (_cluster,),
}
