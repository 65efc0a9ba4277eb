"""What all pods of one node share: clients, namespaces of users, caches, settings."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pytest_pgo_eks.local.apiclient import ApiClient, Cache
from pytest_pgo_eks.local.kubelet.events import Recorder
from pytest_pgo_eks.local.kubelet.namespaces import Home
from pytest_pgo_eks.local.kubelet.probing import SocketFactory
from pytest_pgo_eks.local.kubelet.users import Users
from pytest_pgo_eks.local.kubelet.volumes import Attachments
from pytest_pgo_eks.local.objects import Obj


class NodeLike(Protocol):
    """The part of the network's ``NodeSpec`` that a kubelet reads."""

    @property
    def name(self) -> str: ...
    @property
    def zone(self) -> str: ...
    @property
    def pod_cidr(self) -> str: ...
    @property
    def ip(self) -> str: ...


class Attachment(Protocol):
    """A pod's place in the network."""

    @property
    def ip(self) -> str: ...
    @property
    def netns(self) -> Path: ...


class NetworkLike(Protocol):
    """The part of ``Network`` that a kubelet uses."""

    dns_ip: str

    async def attach(self, node: str, pod_uid: str) -> Attachment: ...
    async def detach(self, pod_uid: str) -> None: ...
    def socket_factory(self, node: str) -> SocketFactory: ...


@dataclass(frozen=True)
class Settings:
    """What may differ from Kubernetes' own numbers (seconds)."""

    back_off_first_s: float = 10.0
    back_off_longest_s: float = 300.0
    mount_retry_s: float = 0.5
    housekeeping_s: float = 10.0
    lease_period_s: float = 10.0
    status_period_s: float = 300.0


@dataclass
class Shared:
    """One node's surroundings."""

    node: NodeLike
    client: ApiClient
    network: NetworkLike
    home: Home
    users: Users
    recorder: Recorder
    attachments: Attachments
    secrets: Cache
    config_maps: Cache
    probe_tls: ssl.SSLContext
    sockets: SocketFactory
    state: Path
    host_etc: Path
    allocatable: Mapping[str, str]
    settings: Settings = field(default_factory=Settings)

    def secret(self, namespace: str, name: str) -> Obj | None:
        return self.secrets.get(name, namespace)

    def config_map(self, namespace: str, name: str) -> Obj | None:
        return self.config_maps.get(name, namespace)
