"""The plan of the cluster's network: who has which address.

One L3 network as on Amazon EKS: a pod's address is routed, never translated between pods. All
addresses exist only inside the network namespaces of one stand-in, so several stand-ins side by
side use the same ones.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CLUSTER_DOMAIN = "cluster.local"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
CORE_NETWORK = "10.250.0.0/24"
CORE_IP = "10.250.0.1"
API_PORT = 6443
API_SERVICE_IP = "10.96.0.1"
API_SERVICE_PORT = 443
DNS_PORT = 53
DNS_SERVICE_IP = "10.96.0.10"


def is_ipv4(text: str, *, network: bool = False) -> bool:
    """Say whether this is an IPv4 address, or with ``network`` a network in CIDR form.

    Whatever else the API lets through must not get into a rule: nftables refuses a transaction as
    a whole, so one bad line would freeze the rules of the whole cluster.
    """
    try:
        ipaddress.IPv4Network(text, strict=False) if network else ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def collapsed(addresses: Iterable[str]) -> str:
    """Return addresses and networks as the inside of an nftables set, which refuses overlaps."""
    networks = ipaddress.collapse_addresses(
        ipaddress.IPv4Network(each, strict=False) for each in addresses
    )
    return ", ".join(str(each).removesuffix("/32") for each in networks)


@dataclass(frozen=True)
class NodeSpec:
    """One node: a network namespace with its own address and a /24 for its pods."""

    name: str
    zone: str
    pod_cidr: str
    ip: str

    @property
    def gateway(self) -> str:
        """The node's address on its pods' side: the first of its pod network."""
        return self.pod_cidr.rpartition(".")[0] + ".1"


@dataclass(frozen=True)
class PodAttachment:
    """A pod's place in the network: its address, and the file that names its namespace.

    ``netns`` is for ``setns`` or ``nsenter --net=``; ``eth0`` and ``lo`` in it are up.
    """

    ip: str
    netns: Path


def three_zones() -> tuple[NodeSpec, ...]:
    """Return the default plan: node-1..3 in zone-a..c."""
    return tuple(
        NodeSpec(f"node-{i}", f"zone-{zone}", f"10.244.{i}.0/24", f"10.250.0.{10 + i}")
        for i, zone in enumerate("abc", start=1)
    )
