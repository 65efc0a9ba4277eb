"""The cluster's network: node and pod namespaces, Services, NetworkPolicy, DNS, and its faults."""

from __future__ import annotations

from pytest_pgo_eks.local.network.model import (
    API_PORT,
    API_SERVICE_IP,
    API_SERVICE_PORT,
    CORE_IP,
    DNS_SERVICE_IP,
    NodeSpec,
    PodAttachment,
    three_zones,
)
from pytest_pgo_eks.local.network.network import Network

__all__ = [
    "API_PORT",
    "API_SERVICE_IP",
    "API_SERVICE_PORT",
    "CORE_IP",
    "DNS_SERVICE_IP",
    "Network",
    "NodeSpec",
    "PodAttachment",
    "three_zones",
]
