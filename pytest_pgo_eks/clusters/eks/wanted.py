"""What a run wants of AWS: its profile with what the user said otherwise."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.settings import Settings, nearest
from pytest_pgo_eks.settings_eks import IDENTITIES, PROFILES

ZONES = 3
#: AWS allows a VPC of /16 to /28; six subnets with room for pods need at least a /21: 256 each.
_LARGEST, _SMALLEST = 16, 21
#: EKS takes these for the Services of a cluster, whatever the VPC has.
_SERVICES = ("10.100.0.0/16", "172.20.0.0/16")
_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")


@dataclass(frozen=True)
class Profile:
    """A shape of cluster. ``types`` are instance types, the first choice first."""

    name: str
    types: tuple[str, ...]
    per_zone: int
    nat_per_zone: bool
    pattern_policies: bool
    hours: float


#: The hours are those of one night: the control plane's 2.6, the nodes' 2.25, the rest billed as 3.
SHAPES: Mapping[str, Profile] = {
    "lean": Profile(
        "lean",
        ("m7g.large", "m6g.large", "m7g.xlarge"),
        per_zone=1,
        nat_per_zone=False,
        pattern_policies=False,
        hours=2.6,
    ),
    "faithful": Profile(
        "faithful",
        ("m5.16xlarge", "m6i.16xlarge", "m5a.16xlarge"),
        per_zone=2,
        nat_per_zone=True,
        pattern_policies=True,
        hours=2.6,
    ),
}


@dataclass(frozen=True)
class Wanted:
    """Everything about the cluster that the user decides; ``subnet_bits`` follow from ``cidr``.

    ``reached_by`` are networks that may reach the public endpoint; None asks for this machine's
    address. ``version`` None is for the newest.
    """

    shape: Profile
    types: tuple[str, ...]
    per_zone: int
    cidr: str
    subnet_bits: int
    zones: tuple[str, ...] | None
    version: str | None
    private: bool
    reached_by: tuple[str, ...] | None
    identity: str
    observability: bool
    hours: float
    max_usd: float
    owner: str | None

    @property
    def nodes(self) -> int:
        return self.per_zone * ZONES

    @property
    def gateways(self) -> int:
        return ZONES if self.shape.nat_per_zone else 1


def wanted(settings: Settings) -> Wanted:
    """Return what the settings ask for.

    :raises UsageProblem: a value cannot work, found without asking AWS.
    """
    eks = settings.eks
    if eks.profile not in SHAPES:
        raise UsageProblem(
            f"--pgo-eks-profile: there is no profile {eks.profile!r}"
            f"{nearest(eks.profile, PROFILES)}; known are {', '.join(PROFILES)}"
        )
    if eks.identity not in IDENTITIES:
        raise UsageProblem(f"--pgo-eks-identity: {eks.identity!r} is not {' or '.join(IDENTITIES)}")
    shape = SHAPES[eks.profile]
    types = _words(eks.instance_types) or shape.types
    for name in types:
        if not _TYPE.fullmatch(name):
            raise UsageProblem(f"--pgo-eks-instance-types: {name!r} is no instance type")
    zones = _words(eks.zones) or None
    if zones is not None and len(set(zones)) != ZONES:
        raise UsageProblem(
            f"--pgo-eks-zones: {', '.join(zones)} are not three different zones, which the "
            "pattern's cluster spans"
        )
    per_zone = shape.per_zone if eks.nodes_per_zone is None else eks.nodes_per_zone
    if not 1 <= per_zone <= 20:
        raise UsageProblem(f"--pgo-eks-nodes-per-zone: {per_zone} is not between 1 and 20")
    network = _network(eks.cidr)
    reached_by = _words(eks.public_cidrs) or None
    for each in reached_by or ():
        _cidr(each, "--pgo-eks-public-cidrs")
    if reached_by and eks.endpoint == "private":
        raise UsageProblem("--pgo-eks-public-cidrs: a private endpoint has no public access")
    return Wanted(
        shape=shape,
        types=types,
        per_zone=per_zone,
        cidr=str(network),
        subnet_bits=32 - network.prefixlen - 3,
        zones=zones,
        version=settings.kubernetes_version,
        private=eks.endpoint == "private",
        reached_by=reached_by,
        identity=eks.identity,
        observability=eks.observability,
        hours=eks.hours,
        max_usd=eks.max_cost_usd,
        owner=eks.owner,
    )


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _cidr(text: str, option: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise UsageProblem(f"{option}: {text!r} is no network: {error}") from None


def _network(text: str) -> ipaddress.IPv4Network:
    network = _cidr(text, "--pgo-eks-cidr")
    if not _LARGEST <= network.prefixlen <= _SMALLEST:
        raise UsageProblem(
            f"--pgo-eks-cidr: {text} has to be between a /{_LARGEST} and a /{_SMALLEST}: six "
            "subnets with room for pods are cut from it"
        )
    for services in map(ipaddress.IPv4Network, _SERVICES):
        if network.overlaps(services):
            raise UsageProblem(
                f"--pgo-eks-cidr: {text} overlaps {services}, which EKS gives to Services; "
                "take one under 192.168.0.0/16"
            )
    return network
