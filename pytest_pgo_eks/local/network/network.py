"""The cluster's network: node namespaces around a core bridge, pods on routed veth pairs.

::

    supervisor's namespace                 node-1's namespace            a pod's namespace
    core 10.250.0.1 (API 6443, DNS 53) --- eth0 10.250.0.11
      bridge of all nodes                  10.244.1.7 dev p3 ----------- eth0 10.244.1.7
                                           the rest of 10.244.1.0/24 is a black hole

As on Amazon EKS a pod has a routed address of its own and all pods meet through their nodes, so
Services, policies and faults are rules in the nodes. Nothing has a route beyond these networks.
An address whose pod is gone answers nothing at all, as a terminated instance's does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local.apiclient import ApiClient, Cache
from pytest_pgo_eks.local.network import netns
from pytest_pgo_eks.local.network.dns import Records, Responder, Zone, records
from pytest_pgo_eks.local.network.model import (
    API_SERVICE_IP,
    API_SERVICE_PORT,
    CORE_IP,
    DNS_SERVICE_IP,
    SERVICE_NETWORK,
    NodeSpec,
    PodAttachment,
)
from pytest_pgo_eks.local.network.netns import NetworkCommandError, Place
from pytest_pgo_eks.local.network.policies import member, policy_rules, selected
from pytest_pgo_eks.local.network.ruleset import FRAME, update
from pytest_pgo_eks.local.network.services import endpoints_by_service, service_rules
from pytest_pgo_eks.local.objects import (
    ENDPOINT_SLICE,
    ENDPOINTS,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    SERVICE,
    Obj,
    labels_of,
)

_log = logging.getLogger(__name__)

_RUN = Path("/run/netns")
_MTU = 9001
# Changes come in bursts (a slice, its Endpoints, the pod): one transaction for all of them.
_COALESCE_S = 0.01
_RETRY_S = 1.0
# A new namespace takes over what the host has set for IPv4, and the hosts of other people's
# clusters have set strange things: arp_ignore=1 alone would hide every pod's gateway.
_PLAIN: dict[str, int] = {
    f"net.ipv4.conf.{which}.{name}": 0
    for which in ("all", "default")
    for name in ("arp_ignore", "arp_announce", "arp_filter", "rp_filter", "log_martians")
} | {
    "net.ipv4.ip_forward": 0,
    # No neighbour discovery or router solicitation: it would be the only traffic of an idle
    # cluster. Loopback keeps ::1, as pods on an IPv4 cluster have it.
    "net.ipv6.conf.default.disable_ipv6": 1,
}
_FORWARD = {"net.ipv4.ip_forward": 1}


@dataclass
class Node:
    """A node while the network runs."""

    spec: NodeSpec
    place: Place
    free: deque[str]
    # Its name on the core bridge. Counted: a link's name has at most 15 characters.
    link: str
    applied: str = ""
    chains: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Attached:
    """A pod's end of the network, and the node's name for it."""

    node: str
    uid: str
    ip: str
    link: str
    netns: Path


class Network:
    """Owns every namespace, link and rule of one cluster. Use from one event loop only."""

    api_url = f"https://{API_SERVICE_IP}:{API_SERVICE_PORT}"
    dns_ip = DNS_SERVICE_IP

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Attached] = {}
        self._links = itertools.count(1)
        self._caches: dict[str, Cache] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._dirty = asyncio.Event()
        self._asked = 0
        self._applied = 0
        self._settled = asyncio.Condition()
        self._zone = Zone(self._records)
        self._responder: Responder | None = None

    # ------------------------------------------------------------------ life

    async def plumb(self, nodes: Sequence[NodeSpec]) -> None:
        """Make the core bridge and the nodes: no API server is needed yet.

        :raises NetworkCommandError: the kernel or a tool refused.
        """
        for number, spec in enumerate(nodes, start=1):
            netns_file = _RUN / spec.name
            # Links take their settings when they are made: these come first.
            await asyncio.to_thread(netns.create, netns_file, _plain)
            free = deque(f"{spec.pod_cidr.rpartition('.')[0]}.{i}" for i in range(2, 255))
            place = Place(spec.name, netns_file)
            self.nodes[spec.name] = Node(spec, place, free, f"n{number}")
        await asyncio.to_thread(_make_core, list(self.nodes.values()))
        await asyncio.gather(
            *(self._in(node, _make_node, node.spec, nodes) for node in self.nodes.values())
        )

    async def start(self, client: ApiClient, nodes: Sequence[NodeSpec]) -> None:
        """Start following Services, policies and pods through ``client``; answer DNS.

        Returns when the rules of what the API server lists now are in force.
        """
        if not self.nodes:
            await self.plumb(nodes)
        kinds = (SERVICE, ENDPOINTS, ENDPOINT_SLICE, POD, NAMESPACE, NETWORK_POLICY)
        self._caches = {kind.plural: Cache(client, kind, changed=self._changed) for kind in kinds}
        self._responder = Responder(self._zone)
        await self._responder.start(CORE_IP)
        self._tasks = [
            asyncio.create_task(cache.run(), name=f"network {name}")
            for name, cache in self._caches.items()
        ]
        for cache in self._caches.values():
            await cache.synced.wait()
        self._tasks.append(asyncio.create_task(self._keep_rules(), name="network rules"))
        await self.settle()

    async def stop(self) -> None:
        """Stop following and end the threads. The namespaces end with the supervisor's."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._responder:
            await self._responder.stop()
        for uid in list(self.pods):
            with contextlib.suppress(NetworkCommandError):
                await self.detach(uid)
        for node in self.nodes.values():
            await asyncio.to_thread(node.place.close)
            netns.remove(_RUN / node.spec.name)
        self.nodes.clear()

    # ------------------------------------------------------------------ pods

    async def attach(self, node: str, pod_uid: str) -> PodAttachment:
        """Give a pod a namespace and an address; the same ones when it has them already.

        :raises KeyError: no such node.
        :raises NetworkCommandError: no address is free, or the kernel refused.
        """
        known = self.pods.get(pod_uid)
        if known:
            return PodAttachment(known.ip, known.netns)
        here = self.nodes[node]
        if not here.free:
            raise NetworkCommandError(f"{node} has no free pod address in {here.spec.pod_cidr}")
        ip = here.free.popleft()
        pod = Attached(node, pod_uid, ip, f"p{next(self._links)}", _RUN / f"pod-{pod_uid}")
        self.pods[pod_uid] = pod
        try:
            await asyncio.to_thread(netns.create, pod.netns, lambda: _make_pod(pod, here.spec))
            await self._in(here, netns.ip_batch, _pod_on_node(pod, here.spec))
        except BaseException:
            self.pods.pop(pod_uid)
            here.free.append(ip)
            netns.remove(pod.netns)
            raise
        # A pod that a policy selects must not run one moment without it.
        if self._policies_select(pod_uid):
            self._mark()
            await self.settle()
        return PodAttachment(ip, pod.netns)

    async def detach(self, pod_uid: str) -> None:
        """Take a pod off the network; from now on its address is a black hole. Idempotent."""
        pod = self.pods.pop(pod_uid, None)
        if pod is None:
            return
        node = self.nodes[pod.node]
        try:
            await self._in(node, netns.ip_batch, [f"link del {pod.link}"])
        except NetworkCommandError as error:
            # The pair goes with the pod's namespace, which may have ended first.
            if "Cannot find device" not in str(error):
                raise
        finally:
            netns.remove(pod.netns)
            # Last in the queue: an address must not come back while clients still believe in it.
            node.free.append(pod.ip)

    def pod_by_name(self, namespace: str, name: str) -> Attached | None:
        """Return a running pod's end of the network by its name in the API."""
        obj = self._caches["pods"].get(name, namespace) if self._caches else None
        return self.pods.get(obj["metadata"]["uid"]) if obj else None

    # ------------------------------------------------------------------ sockets

    def node_ip(self, node: str) -> str:
        return self.nodes[node].spec.ip

    def socket_factory(self, node: str) -> Callable[[Any], socket.socket]:
        """Return aiohttp's kind of socket factory, whose sockets live in the node's namespace."""
        place = self.nodes[node].place

        def make(info: Any) -> socket.socket:
            family, kind, proto = info[:3]
            return place.socket(family, kind, proto)

        return make

    def listener(self, node: str, port: int) -> socket.socket:
        """Open a listening socket on the node's address, for the kubelet's own server."""
        spec = self.nodes[node].spec
        return self.nodes[node].place.listener(spec.ip, port)

    async def in_node(self, node: str, work: Callable[..., Any], *args: Any) -> Any:
        """Run a function in the node's namespace."""
        return await self._in(self.nodes[node], work, *args)

    async def _in(self, node: Node, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.wrap_future(node.place.submit(work, *args))

    # ------------------------------------------------------------------ rules

    def _changed(self, _type: str, obj: Obj) -> None:
        if obj["kind"] == "Pod" and not self._caches["networkpolicies"].items:
            return
        if obj["kind"] in {"Service", "Endpoints", "EndpointSlice"}:
            self._zone.forget()
        self._mark()

    def _records(self) -> Records:
        items = {name: cache.items for name, cache in self._caches.items()}
        return records(
            items["services"],
            endpoints_by_service(items["endpointslices"].values(), items["endpoints"]),
        )

    def _mark(self) -> None:
        self._asked += 1
        self._dirty.set()

    async def settle(self) -> None:
        """Wait until everything known now is in force on every node."""
        if self._asked == 0:
            self._mark()
        wanted = self._asked
        async with self._settled:
            await self._settled.wait_for(lambda: self._applied >= wanted)

    async def _keep_rules(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_COALESCE_S)
            self._dirty.clear()
            asked = self._asked
            try:
                await self._apply_rules()
            except Exception:  # noqa: BLE001 - the next change may be one that works
                _log.exception("the network rules could not be brought up to date")
                self._dirty.set()
                await asyncio.sleep(_RETRY_S)
                continue
            async with self._settled:
                self._applied = asked
                self._settled.notify_all()

    async def _apply_rules(self) -> None:
        items = {name: cache.items for name, cache in self._caches.items()}
        nat, refused, hairpin = service_rules(
            items["services"],
            endpoints_by_service(items["endpointslices"].values(), items["endpoints"]),
        )
        jumps: list[str] = []
        chains: dict[str, list[str]] = {}
        if items["networkpolicies"]:
            labels = {o["metadata"]["name"]: labels_of(o) for o in items["namespaces"].values()}
            members = [
                member(pod, here.ip)
                for pod in items["pods"].values()
                if (here := self.pods.get(pod["metadata"]["uid"]))
            ]
            jumps, chains = policy_rules(items["networkpolicies"].values(), members, labels)

        async def one(node: Node) -> None:
            text = update(
                nat=nat,
                refused=refused,
                hairpin=hairpin,
                policies=jumps,
                policy_chains=chains,
                old_chains=node.chains,
            )
            if text != node.applied:
                await self._in(node, netns.nft, text)
                node.applied, node.chains = text, list(chains)

        await asyncio.gather(*(one(node) for node in self.nodes.values()))

    def _policies_select(self, pod_uid: str) -> bool:
        policies = self._caches["networkpolicies"].items if self._caches else {}
        if not policies:
            return False
        pods = self._caches["pods"].items.values()
        found = next((p for p in pods if p["metadata"]["uid"] == pod_uid), None)
        # A pod not seen yet is brought in by its own event; until then assume the worst.
        return found is None or selected(policies.values(), found)


# ---------------------------------------------------------------------- plumbing


def _plain() -> None:
    netns.write_sysctl(_PLAIN)


def _make_core(nodes: Sequence[Node]) -> None:
    _plain()
    lines = [
        "link set lo up",
        "link add core type bridge",
        f"link set core mtu {_MTU} up",
        f"addr add {CORE_IP}/24 dev core",
    ]
    for node in nodes:
        link, spec = node.link, node.spec
        lines += [
            f"link add {link} mtu {_MTU} type veth peer name eth0 mtu {_MTU} netns {spec.name}",
            f"link set {link} master core up",
        ]
        # The API server and the DNS responder answer pods, whose addresses nobody translates.
        lines.append(f"route add {spec.pod_cidr} via {spec.ip}")
    netns.ip_batch(lines)


def _make_node(spec: NodeSpec, nodes: Sequence[NodeSpec]) -> None:
    netns.write_sysctl(_FORWARD)
    netns.ip_batch(
        [
            "link set lo up",
            f"addr add {spec.gateway}/32 dev lo",
            f"addr add {spec.ip}/24 dev eth0",
            "link set eth0 up",
            # Packets that enter this pair come out at the other end and belong to nobody.
            "link add void type veth peer name void-end",
            "link set void arp off up",
            "link set void-end arp off up",
            f"route add {spec.pod_cidr} dev void src {spec.ip}",
            f"route add {SERVICE_NETWORK} dev void src {spec.ip}",
            *(f"route add {n.pod_cidr} via {n.ip}" for n in nodes if n is not spec),
        ]
    )
    netns.nft(FRAME)


def _make_pod(pod: Attached, spec: NodeSpec) -> None:
    _plain()
    netns.ip_batch(
        [
            "link set lo up",
            f"link add eth0 mtu {_MTU} type veth peer name {pod.link} mtu {_MTU} netns {spec.name}",
            f"addr add {pod.ip}/32 dev eth0",
            "link set eth0 up",
            f"route add {spec.gateway} dev eth0",
            f"route add default via {spec.gateway}",
        ]
    )


def _pod_on_node(pod: Attached, spec: NodeSpec) -> list[str]:
    return [f"link set {pod.link} up", f"route add {pod.ip} dev {pod.link} src {spec.ip}"]
