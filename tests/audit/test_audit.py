"""Every check says yes to a sound cluster, and no, by name, to each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from audit.sound import ISSUER, NAME, facts, role, service_trust, sound
from pytest_pgo_eks.audit.catalogue import AUDIT, ROWS, named
from pytest_pgo_eks.audit.facts import NAMES
from pytest_pgo_eks.audit.result import Check
from pytest_pgo_eks.errors import UsageProblem

Facts = dict[str, Any]
Spoil = Callable[[Facts], object]

ALL = (*AUDIT, *ROWS)
BY_ID = {check.identifier: check for check in ALL}
# What a lean cluster of today differs in from the pattern's text, or has no use for.
NOT_PLAIN = {
    "S1": "deviation",
    "S2.1": "deviation",
    "S2.4": "deviation",
    "S7": "deviation",
    "S17.2": "not applicable",
    "S18": "not applicable",
}


def test_the_audit_has_its_twenty_checks() -> None:
    assert [check.identifier for check in AUDIT] == [f"A{n}" for n in range(1, 21)]
    titles = [check.title for check in ALL]
    assert len(set(titles)) == len(titles)
    assert all(check.clause.startswith("S") for check in ALL)
    assert all(check.source for check in AUDIT)


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.identifier)
def test_a_sound_cluster_passes(check: Check) -> None:
    result = check.ask(facts(sound()))
    assert result.outcome == NOT_PLAIN.get(check.identifier, "pass"), result


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.identifier)
def test_what_could_not_be_read_is_unknown(check: Check) -> None:
    """No fact at all: never a pass, never a failure."""
    nothing = facts({}, "adopted")
    assert check.ask(nothing).outcome == "unknown"
    assert check.finding(nothing).outcome == "unknown"


def set_in(*path: str | int, to: Any) -> Spoil:
    """Change one value deep in the facts."""

    def spoil(read: Facts) -> None:
        at: Any = read
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = to

    return spoil


CONFIG = ("cluster", "resourcesVpcConfig")
TRUST = ("csi_role", "AssumeRolePolicyDocument", "Statement", 0)
EQUALS = (*TRUST, "Condition", "StringEquals")
CSI = ("addons", "aws-ebs-csi-driver")
HBA = ("postgres", "spec", "patroni", "dynamicConfiguration", "postgresql", "pg_hba")
OPEN = {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
SSH = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 1024, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
LOAD_BALANCER = {
    "metadata": {"name": "open", "namespace": "postgres-operator"},
    "spec": {"type": "LoadBalancer"},
}
MASTERS = {"data": {"mapRoles": "- {rolearn: 'arn:x', groups: ['system:masters']}"}}
POWERLESS = {"data": {"mapRoles": "- {rolearn: 'arn:x', username: somebody}"}}
ROOT = {"metadata": {"name": "p", "labels": {}}, "spec": {"containers": [{"name": "c"}]}}


def pod_with(**context: Any) -> Spoil:
    return set_in("pods", 0, "spec", "containers", 0, "securityContext", to=context)


WRONG: list[tuple[str, str, Spoil, str]] = [
    ("A1", "fail", set_in(*CONFIG, "publicAccessCidrs", to=["0.0.0.0/0"]), "whole internet"),
    ("A1", "fail", set_in(*CONFIG, "publicAccessCidrs", to=[]), "whole internet"),
    ("A1", "fail", set_in(*CONFIG, "publicAccessCidrs", to=["10.0.0.0/8", "::/0"]), "internet"),
    ("A1", "warn", set_in(*CONFIG, "endpointPrivateAccess", to=False), "public endpoint only"),
    ("A2", "fail", set_in("version", "versionStatus", to="EXTENDED_SUPPORT"), "out of standard"),
    ("A2", "fail", set_in("version", "versionStatus", to="UNSUPPORTED"), "out of standard"),
    (
        "A2",
        "warn",
        set_in("version", "endOfStandardSupportDate", to=datetime(2026, 12, 2, tzinfo=UTC)),
        "in 9 days",
    ),
    (
        "A2",
        "fail",
        set_in("version", "endOfStandardSupportDate", to="2026-11-22T00:00:00Z"),
        "out of standard",
    ),
    ("A3", "fail", set_in("cluster", "version", to="1.27"), "not encrypted"),
    ("A4", "fail", set_in("cluster", "logging", to={}), "api, audit, authenticator"),
    (
        "A4",
        "fail",
        set_in("cluster", "logging", "clusterLogging", 0, "enabled", to=False),
        "logs are off",
    ),
    ("A4", "fail", set_in("log_groups", to=[]), "does not exist"),
    (
        "A4",
        "warn",
        set_in("log_groups", 0, "retentionInDays", to=None),
        "for ever",
    ),
    ("A5", "fail", set_in("aws_auth", to=MASTERS), "arn:x"),
    ("A5", "warn", set_in("aws_auth", to=POWERLESS), "no group"),
    (
        "A5",
        "warn",
        set_in("cluster", "accessConfig", "authenticationMode", to="CONFIG_MAP"),
        "alone",
    ),
    ("A6", "fail", set_in("oidc_providers", to=[]), "no OIDC provider"),
    ("A6", "fail", set_in("oidc_providers", 0, "ClientIDList", to=["other"]), "audience"),
    ("A6", "fail", set_in(*EQUALS, to={f"{ISSUER}:aud": "sts.amazonaws.com"}), "the subjects []"),
    ("A6", "fail", lambda f: _at(f, EQUALS).pop(f"{ISSUER}:aud"), "audience"),
    (
        "A6",
        "fail",
        set_in(*EQUALS, f"{ISSUER}:sub", to="system:serviceaccount:default:other"),
        "default:other",
    ),
    (
        "A6",
        "fail",
        set_in(
            *TRUST,
            "Condition",
            "StringLike",
            to={f"{ISSUER}:sub": "system:serviceaccount:kube-system:*"},
        ),
        "wildcard",
    ),
    (
        "A6",
        "fail",
        set_in(*TRUST, "Principal", "Federated", to="arn:aws:iam::1:oidc-provider/other"),
        "another issuer",
    ),
    ("A6", "fail", set_in(*TRUST, "Effect", to="Deny"), "no ServiceAccount"),
    ("A6", "fail", set_in("csi_role", to=None), "no role of its own"),
    (
        "A6",
        "fail",
        set_in(*CSI, "podIdentityAssociations", to=["arn:association"]),
        "not pod identity's alone",
    ),
    ("A7", "fail", set_in("csi_role", to=None), "nodes' role"),
    ("A7", "fail", lambda f: f["node_roles"].append(f["csi_role"]), "nodes' role"),
    (
        "A7",
        "fail",
        set_in("node_roles", 0, "attached", to=["AmazonS3FullAccess"]),
        "AmazonS3FullAccess",
    ),
    ("A7", "warn", set_in("node_roles", 0, "inline", to=["mine"]), "mine"),
    (
        "A8",
        "fail",
        set_in("instances", 1, "MetadataOptions", "HttpPutResponseHopLimit", to=2),
        "metadata service",
    ),
    ("A8", "fail", set_in("launch_templates", 0, "MetadataOptions", to={}), "metadata service"),
    ("A8", "unknown", set_in("instances", to=[]), "no instance"),
    ("A9", "fail", set_in("volumes", 3, "Encrypted", to=False), "1 volumes"),
    (
        "A9",
        "fail",
        set_in("storage_classes", 0, "parameters", to={}),
        "default StorageClass are not",
    ),
    ("A9", "warn", set_in("storage_classes", to=[]), "no default StorageClass"),
    ("A10", "fail", set_in("instances", 0, "PublicIpAddress", to="198.51.100.4"), "1 of 3"),
    (
        "A10",
        "fail",
        set_in(
            "route_tables",
            0,
            "Routes",
            to=[{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}],
        ),
        "public subnets",
    ),
    (
        "A10",
        "warn",
        lambda f: [table["Routes"][1].update(NatGatewayId="nat-0") for table in f["route_tables"]],
        "1 NAT gateway",
    ),
    ("A11", "fail", lambda f: f["nodes"].pop(), "2 of 3 zones"),
    ("A11", "fail", set_in("pods", 0, "spec", "nodeName", to="node-1"), "3 instances stand in 2"),
    ("A12", "fail", set_in("capabilities", to=frozenset()), "stops nothing"),
    (
        "A12",
        "fail",
        lambda f: f.update(capabilities=frozenset(), addons={}),
        "accepted and not enforced",
    ),
    ("A13", "fail", pod_with(privileged=True), "more rights"),
    ("A13", "fail", pod_with(runAsUser=0), "more rights"),
    ("A13", "warn", lambda f: f["pods"].append(ROOT), "asking for more"),
    ("A13", "warn", set_in("namespaces", 0, "metadata", "labels", to={}), "asking for more"),
    ("A14", "deviation", set_in(*HBA, to=["host all all 0.0.0.0/0 trust"]), "without a password"),
    ("A14", "warn", set_in(*HBA, to=["host all all 0.0.0.0/0 scram-sha-256"]), "without TLS"),
    ("A14", "fail", lambda f: f["services"].append(LOAD_BALANCER), "postgres-operator/open"),
    ("A15", "fail", set_in("security_groups", 0, "IpPermissions", to=[SSH]), "port 22"),
    ("A15", "fail", set_in("security_groups", 0, "IpPermissions", to=[OPEN]), "port 5432"),
    (
        "A16",
        "fail",
        set_in(
            "service_accounts",
            0,
            "metadata",
            "annotations",
            to={"eks.amazonaws.com/role-arn": "arn:r"},
        ),
        "postgres-operator/pgo",
    ),
    ("A16", "warn", lambda f: f["pods"].append(pooler()), "PgBouncer"),
    (
        "A17",
        "fail",
        lambda f: f["cluster_role"]["attached"].append("AdministratorAccess"),
        "AdministratorAccess",
    ),
    ("A17", "warn", set_in("cluster_role", "inline", to=["mine"]), "mine"),
    ("A18", "fail", set_in("verified_tls", to=False), "does not verify"),
    ("A19", "fail", set_in("cluster", "tags", to={}), "owner, expires-at"),
    ("A20", "fail", set_in("buckets", "backups", "private", to=False), "backups"),
    ("A20", "not applicable", set_in("buckets", to={}), "no backup repository"),
    ("S1", "fail", set_in("cluster_role", "attached", to=[]), "AmazonEKSClusterPolicy"),
    (
        "S1",
        "fail",
        lambda f: f.update(
            cluster_role=role("r", "AmazonEKSClusterPolicy", trust=service_trust("ec2"))
        ),
        "not trusted",
    ),
    ("S2.1", "fail", set_in("cluster", "status", to="UPDATING"), "UPDATING"),
    ("S2.2", "fail", set_in(*CONFIG, "subnetIds", to=["subnet-0", "subnet-1"]), "2 of 3"),
    (
        "S2.3",
        "fail",
        set_in("cluster", "accessConfig", "authenticationMode", to="CONFIG_MAP"),
        "only aws-auth",
    ),
    ("S2.4", "fail", set_in("nodegroups", to=[]), "no node group"),
    ("S2.4", "fail", set_in("nodegroups", 1, "status", to="DEGRADED"), "ng-2"),
    (
        "S3",
        "fail",
        set_in("nodes", 2, "status", "conditions", 0, "status", to="Unknown"),
        "1 nodes are not Ready",
    ),
    ("S3", "fail", lambda f: f["nodes"].pop(), "2 of 3 zones"),
    ("S4", "fail", set_in("oidc_providers", 0, "Url", to="oidc.example/id/B"), "no OIDC provider"),
    ("S5", "fail", set_in("csi_role", to=None), "no role"),
    ("S5", "fail", set_in("csi_role", "attached", to=["ReadOnlyAccess"]), "no policy"),
    ("S5", "fail", set_in(*EQUALS, to={}), "audience"),
    ("S6", "fail", lambda f: f["addons"].pop("aws-ebs-csi-driver"), "not installed"),
    ("S6", "fail", set_in(*CSI, "status", to="DEGRADED"), "DEGRADED"),
    ("S6", "fail", set_in(*CSI, "serviceAccountRoleArn", to=None), "uses the role None"),
    (
        "S7",
        "warn",
        set_in(
            "service_accounts",
            0,
            "metadata",
            "annotations",
            to={"eks.amazonaws.com/role-arn": "arn:r"},
        ),
        "trust",
    ),
    ("S17.1", "fail", set_in("log_groups", to=[]), "no log group"),
    ("S17.1", "fail", set_in("log_streams", to={}), "nothing of the API server"),
    (
        "S17.2",
        "fail",
        set_in("addons", "amazon-cloudwatch-observability", to={"status": "ACTIVE"}),
        "hippo-pg-1-0",
    ),
]


def _at(read: Facts, path: tuple[str | int, ...]) -> Any:
    at: Any = read
    for step in path:
        at = at[step]
    return at


def pooler() -> Facts:
    labels = {"postgres-operator.crunchydata.com/role": "pgbouncer"}
    return {"metadata": {"name": "hippo-pgbouncer-x", "labels": labels}, "spec": {"containers": []}}


@pytest.mark.parametrize(
    ("identifier", "outcome", "spoil", "said"),
    WRONG,
    ids=[f"{number}-{identifier}" for number, (identifier, *_) in enumerate(WRONG)],
)
def test_what_is_wrong_is_said(identifier: str, outcome: str, spoil: Spoil, said: str) -> None:
    read = sound()
    spoil(read)
    result = BY_ID[identifier].ask(facts(read))
    assert result.outcome == outcome, result
    assert said in f"{result.sentence} {' '.join(result.evidence)}"


def test_every_check_is_shown_failing() -> None:
    """A check that nothing makes fail would be worthless; S18 fails on adopted clusters only."""
    failing = {name for name, outcome, *_ in WRONG if outcome in ("fail", "deviation")}
    assert {check.identifier for check in ALL} - failing == {"S7", "S18"}


@pytest.mark.parametrize(
    ("identifier", "spoil", "deviation"),
    [
        ("A2", lambda f: (f["version"].clear(), f["cluster"].update(version="1.29")), "D1"),
        ("A10", set_in("instances", 0, "PublicIpAddress", to="198.51.100.4"), "D3"),
        ("A11", lambda f: f["nodes"].pop(), "D4"),
        (
            "A16",
            set_in(
                "service_accounts",
                0,
                "metadata",
                "annotations",
                to={"eks.amazonaws.com/role-arn": "arn:r"},
            ),
            "D10",
        ),
        ("A17", lambda f: f["cluster_role"]["attached"].append("AmazonEKSServicePolicy"), "D14"),
        ("A17", lambda f: f["cluster_role"]["attached"].append("CloudWatchFullAccess"), "D15"),
    ],
)
def test_what_the_pattern_asks_for_is_a_deviation_where_it_is_followed(
    identifier: str, spoil: Spoil, deviation: str
) -> None:
    read = sound()
    spoil(read)
    assert BY_ID[identifier].ask(facts(read)).outcome == "fail"
    finding = BY_ID[identifier].finding(facts(read, "faithful"))
    assert (finding.outcome, finding.rule) == ("expected", f"deviation-{deviation}")


def test_the_pattern_excuses_nothing_that_it_does_not_ask_for() -> None:
    read = sound()
    read["cluster_role"]["attached"] += ["AmazonEKSServicePolicy", "AdministratorAccess"]
    assert BY_ID["A17"].finding(facts(read, "faithful")).outcome == "violated"
    read["version"]["versionStatus"] = "EXTENDED_SUPPORT"
    assert BY_ID["A2"].finding(facts(read, "faithful")).outcome == "violated"


def test_pod_identity_needs_no_issuer() -> None:
    read = sound()
    read["oidc_providers"] = []
    read["addons"]["aws-ebs-csi-driver"] |= {
        "podIdentityAssociations": ["arn:association"],
        "serviceAccountRoleArn": None,
    }
    read["csi_role"] = role(
        "csi", "AmazonEBSCSIDriverPolicy", trust=service_trust("pods.eks.amazonaws.com")
    )
    outcomes = {name: BY_ID[name].ask(facts(read)).outcome for name in ("A6", "S4", "S5", "S6")}
    assert outcomes == {"A6": "pass", "S4": "not applicable", "S5": "pass", "S6": "pass"}


def test_an_adopted_cluster() -> None:
    read = sound()
    assert BY_ID["S18"].ask(facts(read, "adopted")).outcome == "fail"
    assert BY_ID["A19"].ask(facts(read, "adopted")).outcome == "warn"
    read["cluster"] |= {
        "tags": {"owner": "team", "expires-at": "never"},
        "deletionProtection": True,
    }
    assert BY_ID["S18"].ask(facts(read, "adopted")).outcome == "pass"
    assert BY_ID["A19"].ask(facts(read, "adopted")).outcome == "pass"
    del read["cluster"]["tags"]["expires-at"]
    assert BY_ID["A19"].ask(facts(read, "adopted")).outcome == "warn"


def test_instance_logs_arrive_one_by_one() -> None:
    read = sound()
    read["addons"]["amazon-cloudwatch-observability"] = {"status": "ACTIVE"}
    group = f"/aws/containerinsights/{NAME}/application"
    read["log_streams"][group] = [
        {"logStreamName": f"node-hippo-pg-1-{number}_database"} for number in range(2)
    ]
    result = BY_ID["S17.2"].ask(facts(read))
    assert (result.outcome, "hippo-pg-1-2" in result.sentence) == ("fail", True)
    read["log_streams"][group].append({"logStreamName": "node-hippo-pg-1-2_database"})
    assert BY_ID["S17.2"].ask(facts(read)).outcome == "pass"


def test_a_check_is_found_by_its_title() -> None:
    assert named("volumes are encrypted").identifier == "A9"
    with pytest.raises(UsageProblem, match="volumes are encrypted"):
        named("volumes are encryptd")


def test_facts_have_no_name_that_nobody_knows() -> None:
    assert set(sound()) == set(NAMES)
    with pytest.raises(KeyError):
        facts({})["weather"]
