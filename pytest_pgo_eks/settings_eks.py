"""What a run on Amazon EKS can be told beyond what every provider is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PROFILES = ("lean", "faithful")
IDENTITIES = ("irsa", "pod-identity")
ENDPOINTS = ("public", "private")


@dataclass(frozen=True)
class EksSettings:
    """Everything about AWS; None leaves the choice to the profile or to AWS.

    ``zones``, ``instance_types`` and ``public_cidrs`` are lists separated by commas, as given.
    ``name`` adopts the cluster of that name and makes nothing in AWS. ``run`` goes on with a run
    that was killed. ``max_cost_usd`` is the most that one run may be estimated to cost, ``hours``
    how long it may live before AWS itself removes it.
    """

    region: str | None = None
    profile: str = "lean"
    zones: str | None = None
    instance_types: str | None = None
    nodes_per_zone: int | None = None
    cidr: str = "192.168.0.0/16"
    endpoint: str = "public"
    public_cidrs: str | None = None
    identity: str = "irsa"
    observability: bool = False
    name: str | None = None
    run: str | None = None
    owner: str | None = None
    hours: float = 6.0
    max_cost_usd: float = 5.0
    plan: bool = False
    allow_faults: bool = False


DEFAULT = EksSettings()
Kind = Literal["text", "flag", "whole", "number", "path"]
#: Field, flag, kind, help, metavar: one row for each field of :class:`EksSettings`.
EKS_ROWS: tuple[tuple[str, str, Kind, str, str | None], ...] = (
    ("region", "--pgo-eks-region", "text", "AWS region (the one of your AWS settings)", "REGION"),
    (
        "profile",
        "--pgo-eks-profile",
        "text",
        "lean (three small nodes, one NAT gateway) or faithful (the pattern's shape) (lean)",
        "PROFILE",
    ),
    (
        "zones",
        "--pgo-eks-zones",
        "text",
        "three availability zones, separated by commas (three that have the instance types)",
        "ZONES",
    ),
    (
        "instance_types",
        "--pgo-eks-instance-types",
        "text",
        "instance types in the order of preference, separated by commas (the profile's)",
        "TYPES",
    ),
    (
        "nodes_per_zone",
        "--pgo-eks-nodes-per-zone",
        "whole",
        "nodes in each of the three zones (lean: 1, faithful: 2)",
        "N",
    ),
    ("cidr", "--pgo-eks-cidr", "text", "addresses of the VPC (192.168.0.0/16)", "CIDR"),
    (
        "endpoint",
        "--pgo-eks-endpoint",
        "text",
        "how the API server is reached: public or private (public)",
        "ACCESS",
    ),
    (
        "public_cidrs",
        "--pgo-eks-public-cidrs",
        "text",
        "who may reach the public endpoint, separated by commas (the address this machine shows)",
        "CIDRS",
    ),
    (
        "identity",
        "--pgo-eks-identity",
        "text",
        "how the EBS CSI driver gets its role: irsa or pod-identity (irsa)",
        "WAY",
    ),
    (
        "observability",
        "--pgo-eks-observability",
        "flag",
        "send the logs of pods to CloudWatch as well",
        None,
    ),
    (
        "name",
        "--pgo-eks-name",
        "text",
        "adopt this EKS cluster and make nothing in AWS",
        "CLUSTER",
    ),
    ("run", "--pgo-eks-run", "text", "go on with the run of this id after it was killed", "ID"),
    (
        "owner",
        "--pgo-eks-owner",
        "text",
        "who is named as owner in every tag (the caller's name)",
        "NAME",
    ),
    (
        "hours",
        "--pgo-eks-hours",
        "number",
        "hours after which AWS removes what was made even if this machine is gone (6)",
        "HOURS",
    ),
    (
        "max_cost_usd",
        "--pgo-max-cost",
        "number",
        "refuse a run that is estimated to cost more US dollars than this (5)",
        "USD",
    ),
    (
        "plan",
        "--pgo-plan",
        "flag",
        "with --cluster=eks: check everything, print what would be made and its price, and stop",
        None,
    ),
    (
        "allow_faults",
        "--pgo-allow-aws-faults",
        "flag",
        "let scenarios stop instances, detach volumes and close networks through AWS",
        None,
    ),
)
