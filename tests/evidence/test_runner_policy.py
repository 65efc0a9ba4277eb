"""The runner's policy on AWS allows what the provider calls, and of what changes anything no more."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_pgo_eks"
AWS = ROOT / "examples" / "aws"
PREFIX = "pgoeks-"

# A client's name at boto3, and the service's in policies.
SERVICES = {
    "autoscaling": "autoscaling",
    "cloudformation": "cloudformation",
    "ec2": "ec2",
    "eks": "eks",
    "elb": "elasticloadbalancing",
    "elbv2": "elasticloadbalancing",
    "iam": "iam",
    "logs": "logs",
    "pricing": "pricing",
    "resourcegroupstaggingapi": "tag",
    "s3": "s3",
    "scheduler": "scheduler",
    "service-quotas": "servicequotas",
    "sts": "sts",
}
# Where the right is not called like the operation.
OTHER_NAMES = {
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
}
# What CloudFormation does with the runner's own rights for each kind of resource of the templates.
BY_RESOURCE: dict[str, tuple[str, ...]] = {
    "AWS::EC2::VPC": ("ec2:CreateVpc", "ec2:DeleteVpc", "ec2:ModifyVpcAttribute", "ec2:CreateTags"),
    "AWS::EC2::Subnet": ("ec2:CreateSubnet", "ec2:DeleteSubnet", "ec2:ModifySubnetAttribute"),
    "AWS::EC2::InternetGateway": ("ec2:CreateInternetGateway", "ec2:DeleteInternetGateway"),
    "AWS::EC2::VPCGatewayAttachment": ("ec2:AttachInternetGateway", "ec2:DetachInternetGateway"),
    "AWS::EC2::RouteTable": ("ec2:CreateRouteTable", "ec2:DeleteRouteTable"),
    "AWS::EC2::Route": ("ec2:CreateRoute", "ec2:DeleteRoute"),
    "AWS::EC2::SubnetRouteTableAssociation": (
        "ec2:AssociateRouteTable",
        "ec2:DisassociateRouteTable",
    ),
    "AWS::EC2::EIP": ("ec2:AllocateAddress", "ec2:ReleaseAddress", "ec2:DisassociateAddress"),
    "AWS::EC2::NatGateway": ("ec2:CreateNatGateway", "ec2:DeleteNatGateway"),
    # EKS asks whether the caller might start instances of the template itself.
    "AWS::EC2::LaunchTemplate": (
        "ec2:CreateLaunchTemplate",
        "ec2:DeleteLaunchTemplate",
        "ec2:RunInstances",
    ),
    "AWS::EKS::Cluster": (
        "eks:CreateCluster",
        "eks:DeleteCluster",
        "eks:TagResource",
        "iam:PassRole",
        "iam:CreateServiceLinkedRole",
    ),
    "AWS::EKS::Nodegroup": ("eks:CreateNodegroup", "eks:DeleteNodegroup", "iam:PassRole"),
    "AWS::EKS::Addon": (
        "eks:CreateAddon",
        "eks:DeleteAddon",
        "eks:CreatePodIdentityAssociation",
        "eks:DeletePodIdentityAssociation",
    ),
    "AWS::EKS::AccessEntry": (
        "eks:CreateAccessEntry",
        "eks:DeleteAccessEntry",
        "eks:AssociateAccessPolicy",
    ),
    "AWS::EKS::PodIdentityAssociation": (
        "eks:CreatePodIdentityAssociation",
        "eks:DeletePodIdentityAssociation",
    ),
    "AWS::IAM::Role": (
        "iam:CreateRole",
        "iam:DeleteRole",
        "iam:TagRole",
        "iam:PutRolePolicy",
        "iam:DeleteRolePolicy",
        "iam:AttachRolePolicy",
        "iam:DetachRolePolicy",
    ),
    "AWS::IAM::OIDCProvider": (
        "iam:CreateOpenIDConnectProvider",
        "iam:DeleteOpenIDConnectProvider",
        "iam:TagOpenIDConnectProvider",
    ),
    "AWS::Logs::LogGroup": (
        "logs:CreateLogGroup",
        "logs:DeleteLogGroup",
        "logs:PutRetentionPolicy",
        "logs:TagResource",
    ),
}
# What an operation needs beside the right of its own name.
BESIDE = {
    "scheduler:CreateScheduleGroup": ("scheduler:TagResource",),
    # Deleting a group deletes what is in it.
    "scheduler:DeleteScheduleGroup": ("scheduler:DeleteSchedule",),
    "scheduler:CreateSchedule": ("iam:PassRole",),
}
_READS = re.compile(r"[a-z0-9]+:(Describe|List|Get|Simulate)")


@cache
def policy(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((AWS / name).read_text("utf-8"))
    return found


def statements() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = policy("runner-policy.json")["Statement"]
    return found


def allowed(action: str) -> bool:
    return any(fnmatchcase(action, one) for each in statements() for one in each["Action"])


@cache
def operations() -> dict[str, dict[str, str]]:
    """Return boto3's name of every operation, with the right it needs by client's name."""
    import botocore.session
    from botocore import xform_name

    session = botocore.session.get_session()
    found: dict[str, dict[str, str]] = {}
    for client, service in SERVICES.items():
        for operation in session.get_service_model(client).operation_names:
            action = f"{service}:{operation}"
            found.setdefault(xform_name(operation), {})[client] = OTHER_NAMES.get(action, action)
    return found


def called() -> dict[str, set[str]]:
    """Return the rights of what the provider calls, with where; several where the client is not told."""
    known = operations()
    found: dict[str, set[str]] = {}
    sources = sorted((PACKAGE / "clusters" / "eks").glob("*.py"))
    assert sources
    for path in sources:
        tree = ast.parse(path.read_text("utf-8"))
        told: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and len(node.args) >= 2:
                first, second = node.args[:2]
                pair = [one.value for one in (first, second) if isinstance(one, ast.Constant)]
                if len(pair) == 2 and pair[0] in SERVICES and pair[1] in known:
                    found.setdefault(known[pair[1]][pair[0]], set()).add(path.name)
                    told.add(pair[1])
        for node in ast.walk(tree):
            # In tables the operation stands alone; its name alone must be enough to tell.
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                mine = known.get(node.value, {}) if "_" in node.value else {}
                if node.value not in told and mine:
                    found.setdefault(" or ".join(sorted(set(mine.values()))), set()).add(path.name)
    return found


def by_templates() -> Iterator[str]:
    kinds = set()
    for path in sorted((ROOT / "fixtures" / "aws").glob("*.yaml")):
        kinds |= set(re.findall(r"Type: (AWS::\w+::\w+)", path.read_text("utf-8")))
    assert kinds
    for kind in sorted(kinds):
        assert kind in BY_RESOURCE, f"{kind} is new in the templates: which rights does it need?"
        yield from BY_RESOURCE[kind]


def test_everything_that_the_provider_calls_is_allowed() -> None:
    missing = {
        action: sorted(where)
        for action, where in called().items()
        if not any(allowed(one) for one in action.split(" or "))
    }
    assert missing == {}


def test_everything_that_cloudformation_does_for_it_is_allowed() -> None:
    assert [action for action in by_templates() if not allowed(action)] == []


def test_nothing_that_changes_anything_is_allowed_beyond_that() -> None:
    used = {one for action in called() for one in action.split(" or ")} | set(by_templates())
    used |= {beside for one in used for beside in BESIDE.get(one, ())}
    granted = {action for each in statements() for action in each["Action"]}
    changing = {action for action in granted if not _READS.match(action)}
    assert not {action for action in changing if "*" in action}
    assert changing - used == set()


def test_faults_through_aws_need_a_policy_of_their_own_and_no_more() -> None:
    """Only a runner that may use --pgo-allow-aws-faults is given the second policy."""
    text = (PACKAGE / "faults" / "cloud.py").read_text("utf-8")
    used = {
        operations()[operation][client]
        for client, operation in re.findall(r"self\._(ec2|eks)\.([a-z_]+)\(", text)
    }
    assert len(used) >= 10
    second = {a for each in policy("faults-policy.json")["Statement"] for a in each["Action"]}
    assert {action for action in used if not allowed(action) and action not in second} == set()
    # Making a list that carries tags takes the right to tag.
    assert second - used == {"ec2:CreateTags"}
    assert not {action for action in second if "*" in action}


def test_what_is_changed_is_the_runs_own_by_name_or_by_tag() -> None:
    """Making a network is the exception: it has no name, and no tag yet that a right could ask for."""
    free = [
        each["Sid"]
        for each in statements()
        if not all(_READS.match(action) for action in each["Action"])
        and "Condition" not in each
        and not all(PREFIX in one or "oidc.eks." in one or "/eks-" in one for one in _list(each))
    ]
    assert free == ["MakeNetworkAndNodes"]
    (making,) = [each for each in statements() if each["Sid"] == free[0]]
    assert not [a for a in making["Action"] if re.search(":(Delete|Terminate|Release|Put)", a)]


def _list(statement: dict[str, Any]) -> list[str]:
    resource = statement["Resource"]
    return [resource] if isinstance(resource, str) else list(resource)


def test_roles_are_passed_and_given_only_what_is_meant() -> None:
    by_sid = {each["Sid"]: each for each in statements()}
    assert by_sid["PassOnlyOwnRoles"]["Condition"]["StringEquals"]["iam:PassedToService"]
    attached = by_sid["AttachOnlyPoliciesOfAws"]["Condition"]["ArnLike"]["iam:PolicyARN"]
    assert attached == "arn:aws:iam::aws:policy/*"
    for each in statements():
        for action in ("iam:PassRole", "iam:AttachRolePolicy"):
            assert action not in each["Action"] or "Condition" in each


@pytest.mark.parametrize("name", sorted(path.name for path in AWS.glob("*.json")))
def test_every_file_is_a_policy(name: str) -> None:
    found = policy(name)
    assert found["Version"] == "2012-10-17"
    for each in found["Statement"]:
        assert each["Effect"] == "Allow"
        assert set(each) <= {"Sid", "Effect", "Action", "Resource", "Condition", "Principal"}
        assert each["Action"] != "*"
        assert "*" not in each["Action"]
    # IAM counts a managed policy without its white space.
    assert len(json.dumps(found, separators=(",", ":"))) <= 6144


@pytest.mark.parametrize("name", ["trust-github.json", "trust-gitlab.json"])
def test_only_one_branch_of_one_repository_is_trusted(name: str) -> None:
    (each,) = policy(name)["Statement"]
    assert each["Action"] == "sts:AssumeRoleWithWebIdentity"
    conditions = each["Condition"]
    assert set(conditions) == {"StringEquals"}, "a pattern would let others in"
    asked = {key.partition(":")[2]: value for key, value in conditions["StringEquals"].items()}
    assert asked["aud"] == "sts.amazonaws.com"
    assert asked["sub"].endswith("main")
