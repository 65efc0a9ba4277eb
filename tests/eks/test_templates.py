"""The templates: cfn-lint, then what it misses, then row by row what the pattern asks for."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from fakes.aws import template as language
from fakes.aws.world import BEGAN, MANAGED

from eks.lives import settings
from eks.template_checks import Resources, filled, problems
from pytest_pgo_eks import shipped
from pytest_pgo_eks.clusters.eks import templates
from pytest_pgo_eks.clusters.eks.names import LAYERS, Names
from pytest_pgo_eks.clusters.eks.templates import Choice
from pytest_pgo_eks.clusters.eks.wanted import wanted

NAMES = Names("night")
LINT = Path(sysconfig.get_path("scripts")) / "cfn-lint"
FILES = [shipped.fixtures() / "aws" / f"{layer}.yaml" for layer in LAYERS]
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"profile": "faithful"},
    {"identity": "pod-identity", "observability": True, "endpoint": "private"},
    {"cidr": "10.8.0.0/20", "instance_types": "m5.large"},
)


@functools.cache
def managed_policies() -> frozenset[str]:
    """The names of AWS's managed policies, from data that is kept apart from this repository."""
    from moto.iam.aws_managed_policies import aws_managed_policies_data

    return frozenset(
        (policy.get("Path", "/") + name).removeprefix("/")
        for name, policy in json.loads(aws_managed_policies_data).items()
    )


def choice(types: tuple[str, ...], architecture: str) -> Choice:
    return Choice(
        region="us-east-1", account="111122223333", runner="arn:aws:iam::111122223333:role/r",
        version="1.36", extended=False, zones=("us-east-1a", "us-east-1b", "us-east-1c"),
        types=types, architecture=architecture, reached_by=("203.0.113.7/32",), owner="r",
        estimate_usd=1.0,
    )  # fmt: skip


def parameters(layer: str, variant: dict[str, Any]) -> dict[str, str]:
    wish = wanted(settings(**variant))
    tags = NAMES.tags(owner="r", created=BEGAN, expires=BEGAN, commit=None)
    made = choice(wish.types, "arm64" if "g." in wish.types[0] else "x86_64")
    outputs = templates.PLANNED_OUTPUTS
    if layer == "base":
        return templates.base(NAMES, wish, made, tags)
    if layer == "nodes":
        return templates.nodes(NAMES, wish, made, tags, outputs=outputs, type_=wish.types[0])
    return templates.addons(NAMES, wish, outputs)


def resources(layer: str, variant: dict[str, Any], body: str | None = None) -> Resources:
    return filled(body or templates.body(layer), parameters(layer, variant))


def test_cfn_lint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [LINT, "--regions", "us-east-1", "--", *FILES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_cfn_lint_is_not_asleep(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(templates.body("base").replace("API_AND_CONFIG_MAP", "ANYBODY"), "utf-8")
    done = subprocess.run(
        [LINT, "--regions", "us-east-1", "--", bad], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "E3030" in done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_that_cfn_lint_misses_is_wrong(layer: str, variant: dict[str, Any]) -> None:
    assert problems(resources(layer, variant), managed_policies()) == []


@pytest.mark.parametrize(
    ("layer", "old", "new", "said"),
    [
        ("nodes", "Subnets:\n        - !Select [1,", "Subnets:\n        - !Select [0,", "share a zone"),
        ("nodes", "      AmiType: !Ref AmiType", "      AmiType: AL2023_x86_64_STANDARD", "does not run"),
        ("nodes", "InstanceTypes: !Ref InstanceTypes", "InstanceTypes: [m99.huge]", "no instance type"),
        ("nodes", "AmiType: !Ref AmiType", "AmiType: !Ref AmiType\n      DiskSize: 20", "exclude each other"),
        ("nodes", "HttpPutResponseHopLimit: 1", "HttpPutResponseHopLimit: 2", "node's metadata"),
        ("nodes", "Encrypted: true", "Encrypted: false", "not encrypted"),
        ("nodes", "ResourceType: volume", "ResourceType: spot-instances-request", "a volume would not"),
        ("addons", "AddonName: coredns", "AddonName: core-dns", "no addon core-dns"),
        ("base", "ConfigurationValues: '{\"", "ConfigurationValues: '{", "is no JSON"),
        ("base", "!Select [5, !Cidr [!Ref VpcCidr", "!Select [5, !Cidr [10.9.0.0/16", "outside of the VPC"),
        ("base", "!Select [5, !Cidr", "!Select [4, !Cidr", "overlaps another subnet"),
        ("base", "      GatewayId: !Ref", "      InstanceId: i-1\n      GatewayId: !Ref", "one target"),
        ("base", "policy/AmazonEKSWorkerNodePolicy", "policy/AmazonEKSWorkerPolicy", "no managed policy"),
        ("base", '"${Issuer}:aud"', '"!Sub ${!Issuer}:aud"', "function was not carried out"),
        ("base", '"${Issuer}:sub"', '"${Issuer}:who"', "names no ServiceAccount"),
        ("base", '"${Issuer}:aud"', '"${Issuer}:azp"', "names no audience"),
        ("base", '"Statement": [{', '"Statement": [', "no JSON"),
        ("base", "cluster-access-policy/AmazonEKSClusterAdminPolicy", "access/Admin", "no access policy"),
        ("base", "/aws/eks/${ClusterName}/cluster", "/aws/eks/${ClusterName}", "outside of the stack"),
        ("base", "SupportType: STANDARD", "SupportType: EXTENDED", "extended support"),
    ],
)  # fmt: skip
def test_each_check_finds_what_it_is_for(layer: str, old: str, new: str, said: str) -> None:
    body = templates.body(layer)
    assert old in body
    found = problems(resources(layer, {}, body.replace(old, new)), managed_policies())
    assert any(said in each for each in found), found


def test_the_fake_knows_no_policy_that_aws_does_not() -> None:
    assert set(MANAGED) <= managed_policies()


def test_templates_fit_into_a_call() -> None:
    assert all(len(path.read_bytes()) < 51_200 for path in FILES)


def test_every_row_of_the_pattern_that_builds_something_is_named() -> None:
    text = "".join(path.read_text("utf-8") for path in FILES)
    comments = "\n".join(line for line in text.splitlines() if line.strip().startswith("#"))
    assert {f"S{n}" for n in range(1, 7)} <= set(re.findall(r"\bS\d+\b", comments))


def test_the_faithful_profile_has_the_pattern_s_values() -> None:
    faithful = {"profile": "faithful"}
    base, nodes = resources("base", faithful), resources("nodes", faithful)
    assert base["Vpc"]["CidrBlock"] == "192.168.0.0/16"
    blocks = [
        base[f"{kind}Subnet{n}"]["CidrBlock"] for kind in ("Public", "Private") for n in (1, 2, 3)
    ]
    assert blocks == [f"192.168.{32 * n}.0/19" for n in range(6)]
    assert sum(r["Type"] == "AWS::EC2::NatGateway" for r in base.values()) == 3
    attached = [arn.rpartition("/")[2] for arn in base["ClusterRole"]["ManagedPolicyArns"]]
    assert attached == ["AmazonEKSClusterPolicy", "AmazonEKSServicePolicy", "CloudWatchFullAccess"]
    assert base["Cluster"]["AccessConfig"]["AuthenticationMode"] == "API_AND_CONFIG_MAP"
    assert "AccessPolicies" not in base["PatternAccess"]
    groups = [r for r in nodes.values() if r["Type"] == "AWS::EKS::Nodegroup"]
    assert [g["NodegroupName"] for g in groups] == ["ng-1", "ng-2", "ng-3"]
    assert {(g["InstanceTypes"][0], str(g["ScalingConfig"]["DesiredSize"])) for g in groups} == {
        ("m5.16xlarge", "2")
    }


def test_each_private_subnet_has_a_way_out_of_its_own_zone_where_there_are_three() -> None:
    base = resources("base", {"profile": "faithful"})
    targets = [base[f"PrivateRoute{n}"]["NatGatewayId"] for n in (1, 2, 3)]
    assert targets == ["<NatGateway1>", "<NatGateway2>", "<NatGateway3>"]
    lean = resources("base", {})
    assert {lean[f"PrivateRoute{n}"]["NatGatewayId"] for n in (1, 2, 3)} == {"<NatGateway1>"}


def test_pod_identity_needs_no_issuer() -> None:
    variant = {"identity": "pod-identity"}
    base, addons = resources("base", variant), resources("addons", variant)
    assert "OidcProvider" not in base
    (statement,) = base["CsiRole"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert "ServiceAccountRoleArn" not in addons["EbsCsiDriver"]
    (given,) = addons["EbsCsiDriver"]["PodIdentityAssociations"]
    assert given["ServiceAccount"] == "ebs-csi-controller-sa"


def test_a_private_endpoint_lets_nobody_in_from_outside() -> None:
    base = resources("base", {"endpoint": "private"})
    assert base["Cluster"]["ResourcesVpcConfig"]["EndpointPublicAccess"] == "false"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_progress_counts_what_there_is(variant: dict[str, Any]) -> None:
    wish = wanted(settings(**variant))
    for layer in ("nodes", "addons"):
        assert templates.size(layer, wish) == len(resources(layer, variant))
    base = len(resources("base", variant))
    assert abs(templates.size("base", wish) - base) <= 1


def test_what_is_written_is_what_is_read() -> None:
    for layer in LAYERS:
        assert language.parse(templates.body(layer))["Resources"]
