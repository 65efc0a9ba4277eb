"""The templates under ``fixtures/aws`` and the parameters that a run gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from pytest_pgo_eks import shipped
from pytest_pgo_eks.clusters.eks.names import EXPIRES_TAG, OWNER_TAG, Names
from pytest_pgo_eks.clusters.eks.wanted import Wanted
from pytest_pgo_eks.errors import ClusterProblem

#: Says of which template a stack was made.
TEMPLATE_TAG = "pgo-eks/template"
#: Resources of each layer, for the progress: lean, and what more there is in the faithful profile.
_SIZES = {"base": (35, 5), "nodes": (4, 0), "addons": (2, 0)}


@dataclass(frozen=True)
class Choice:
    """What the preflight found and decided; it goes into the state file.

    ``runner`` is the ARN of the user or role in IAM that runs the suite. ``reached_by`` are the
    networks that may reach the public endpoint. ``types`` are offered in all of ``zones``.
    """

    region: str
    account: str
    runner: str
    version: str
    extended: bool
    zones: tuple[str, ...]
    types: tuple[str, ...]
    architecture: str
    reached_by: tuple[str, ...]
    owner: str
    estimate_usd: float
    prices: dict[str, float] = field(default_factory=dict)
    price_factor: float = 1.0
    price_source: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        lists = {key: tuple(found[key]) for key in ("zones", "types", "reached_by") if key in found}
        try:
            return cls(**{**found, **lists})
        except TypeError as error:
            raise ClusterProblem(f"the state of the run is of another release: {error}") from error


def body(layer: str) -> str:
    """Return a template as it stands in the file."""
    return (shipped.fixtures() / "aws" / f"{layer}.yaml").read_text("utf-8")


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def size(layer: str, wanted: Wanted) -> int:
    """Return how many resources a layer has, about."""
    lean, more = _SIZES[layer]
    return (
        lean
        + (more if wanted.shape.nat_per_zone else 0)
        + (4 if layer == "addons" and wanted.observability else 0)
    )


def base(names: Names, wanted: Wanted, choice: Choice, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of the network and the control plane."""
    return {
        "ClusterName": names.cluster,
        "KubernetesVersion": choice.version,
        "VpcCidr": wanted.cidr,
        "SubnetBits": str(wanted.subnet_bits),
        "Zones": ",".join(choice.zones),
        # EKS wants a list even where nobody is let in.
        "PublicAccessCidrs": ",".join(choice.reached_by) or "0.0.0.0/0",
        "PublicAccess": "false" if wanted.private else "true",
        "NatPerZone": _flag(wanted.shape.nat_per_zone),
        "PatternPolicies": _flag(wanted.shape.pattern_policies),
        "Identity": wanted.identity,
        "RunnerArn": choice.runner,
        **_marks(names, tags),
    }


def nodes(
    names: Names,
    wanted: Wanted,
    choice: Choice,
    tags: Mapping[str, str],
    *,
    outputs: Mapping[str, str],
    type_: str,
) -> dict[str, str]:
    """Return the parameters of the node groups, on one instance type."""
    arm = choice.architecture == "arm64"
    return {
        "ClusterName": names.cluster,
        "NodeRoleArn": outputs["NodeRoleArn"],
        "PrivateSubnets": outputs["PrivateSubnets"],
        "InstanceTypes": type_,
        "AmiType": "AL2023_ARM_64_STANDARD" if arm else "AL2023_x86_64_STANDARD",
        "NodesPerZone": str(wanted.per_zone),
        **_marks(names, tags),
    }


def addons(names: Names, wanted: Wanted, outputs: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of the addons that need nodes."""
    return {
        "ClusterName": names.cluster,
        "CsiRoleArn": outputs["CsiRoleArn"],
        "Identity": wanted.identity,
        "Observability": _flag(wanted.observability),
    }


#: What stands for the outputs of the base stack in a plan, before there is one.
PLANNED_OUTPUTS = {
    "NodeRoleArn": "arn:aws:iam::000000000000:role/planned",
    "CsiRoleArn": "arn:aws:iam::000000000000:role/planned",
    "PrivateSubnets": "subnet-1,subnet-2,subnet-3",
}


def _marks(names: Names, tags: Mapping[str, str]) -> dict[str, str]:
    return {"Owner": tags[OWNER_TAG], "RunId": names.run, "ExpiresAt": tags[EXPIRES_TAG]}


def _flag(value: bool) -> str:
    return "true" if value else "false"
