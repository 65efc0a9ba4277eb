"""Network faults: what to break, undoing it, and the counters that prove that it had an effect.

A fault is rules in the nodes' tables ``faults``, which see real addresses (after Service
translation) in both directions, before policies. Packets vanish silently unless a reset is asked
for: a black hole and a refused connection are different failures to a client.

Requests (JSON, also the body of ``POST /stand-in/v1/faults``)::

    {"kind": "partition-node", "node": "node-1"}
    {"kind": "partition-pod", "namespace": "n", "pod": "p"}
    {"kind": "zone-loss", "zone": "zone-a"}          every node of the zone, from all outside it
    {"kind": "node-loss", "node": "node-1"}          cut off, then everything on it dies
    {"kind": "packet-loss", "node" | "pod", "percent": 20}
    {"kind": "delay", "node" | "pod", "delay_s": 0.1, "jitter_s": 0.02}     only where netem is

Options of partitions and packet loss: ``direction`` "both" (default), "in" or "out" as seen from
the target; ``peers`` a list that limits it (``{"node": …}``, ``{"zone": …}``, ``{"namespace": …,
"pod": …}``, ``"api"``, ``"dns"``); ``spare`` the same, exempted; ``action`` "drop" (default) or
"reject" (TCP reset; partitions only). A pod's own kubelet reaches it all the same, as under a
NetworkPolicy, unless ``kubelet`` is true.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pytest_pgo_eks.local.network import netns
from pytest_pgo_eks.local.network.model import API_PORT, CORE_IP, DNS_PORT, collapsed
from pytest_pgo_eks.local.network.netns import NetworkCommandError
from pytest_pgo_eks.local.network.network import Attached, Network, Node
from pytest_pgo_eks.local.objects import Obj

_DIRECTIONS = {"both": ("in", "out"), "in": ("in",), "out": ("out",)}
_FIELDS = {
    "partition-node": {"node", "direction", "peers", "spare", "action"},
    "partition-pod": {"namespace", "pod", "direction", "peers", "spare", "action", "kubelet"},
    "zone-loss": {"zone", "direction", "action"},
    "node-loss": {"node"},
    "packet-loss": {"node", "namespace", "pod", "direction", "peers", "spare", "percent"},
    "delay": {"node", "namespace", "pod", "direction", "delay_s", "jitter_s"},
}


class FaultProblem(ValueError):
    """The request cannot be carried out; ``code`` is the HTTP status."""

    def __init__(self, message: str, code: int = 400) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Match:
    """Packets of one target in one direction, on the node that sees them."""

    node: str
    direction: str
    link: str


@dataclass
class Fault:
    """An active fault."""

    id: str
    request: Obj
    since: float
    matches: list[Match] = field(default_factory=list)
    rules: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    delayed: list[tuple[str, Attached | None]] = field(default_factory=list)
    lost_nodes: list[str] = field(default_factory=list)

    def counters(self, node: str) -> list[str]:
        return [f"{self.id}-{m.direction}" for m in self.matches if m.node == node]


class Faults:
    """The faults of one network.

    ``lose`` and ``restore`` are told the node's name when it loses its power and gets it back.
    """

    def __init__(
        self,
        network: Network,
        *,
        lose: Callable[[str], Awaitable[None]] | None = None,
        restore: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._network = network
        self._lose = lose
        self._restore = restore
        self._active: dict[str, Fault] = {}
        self._numbers = itertools.count(1)
        self.delay_works = False

    async def start(self) -> None:
        """Find out whether this kernel can delay packets."""
        node = next(iter(self._network.nodes))
        try:
            await self._network.in_node(node, _try_delay)
        except NetworkCommandError:
            self.delay_works = False
        else:
            self.delay_works = True

    @property
    def capabilities(self) -> frozenset[str]:
        found = {"partition", "one-way-partition", "packet-reset", "node-partition"}
        found |= {"zone-loss", "packet-loss"}
        if self._lose and self._restore:
            found.add("node-loss")
        if self.delay_works:
            found.add("delay")
        return frozenset(found)

    # ------------------------------------------------------------------ requests

    async def inject(self, request: Obj) -> Obj:
        """Put a fault in force; return it with its id.

        :raises FaultProblem: the request is not one of the above, or its target is not there.
        """
        kind = request.get("kind")
        if kind not in _FIELDS:
            raise FaultProblem(f"no fault of kind {kind!r}: one of {', '.join(sorted(_FIELDS))}")
        unknown = request.keys() - _FIELDS[kind] - {"kind"}
        if unknown:
            raise FaultProblem(f"{kind} has no field {', '.join(sorted(unknown))}")
        fault = Fault(f"f{next(self._numbers)}", dict(request), time.time())
        if kind == "delay":
            await self._delay(fault)
        else:
            self._plan(fault)
        self._active[fault.id] = fault
        try:
            await self._apply({m.node for m in fault.matches}, new=fault)
            for node in fault.lost_nodes:
                assert self._lose
                await self._lose(node)
        except BaseException:
            await self.undo(fault.id)
            raise
        return await self._described(fault)

    async def undo(self, fault_id: str) -> Obj:
        """Take a fault away; return it with its last counters.

        :raises FaultProblem: 404, there is no such fault.
        """
        fault = self._found(fault_id)
        last = await self._described(fault)
        self._active.pop(fault_id)
        await self._apply({m.node for m in fault.matches}, old=fault)
        for node, pod in fault.delayed:
            await self._undelay(node, pod)
        for node in fault.lost_nodes:
            if self._restore:
                await self._restore(node)
        return last | {"undone": True}

    async def get(self, fault_id: str) -> Obj:
        """Return a fault with its counters now.

        :raises FaultProblem: 404, there is no such fault.
        """
        return await self._described(self._found(fault_id))

    async def all(self) -> list[Obj]:
        return [await self._described(fault) for fault in self._active.values()]

    def _found(self, fault_id: str) -> Fault:
        try:
            return self._active[fault_id]
        except KeyError:
            raise FaultProblem(f"there is no fault {fault_id!r}", 404) from None

    # ------------------------------------------------------------------ planning

    def _plan(self, fault: Fault) -> None:
        request = fault.request
        verdicts = self._verdicts(request)
        peers = self._addresses(request.get("peers"))
        spare = self._addresses(request.get("spare"))
        directions = _DIRECTIONS.get(request.get("direction", "both"))
        if directions is None:
            raise FaultProblem("direction is one of both, in, out")
        kind = request["kind"]
        pod = None
        if kind == "zone-loss":
            nodes = [n for n in self._network.nodes.values() if n.spec.zone == request.get("zone")]
            if not nodes:
                raise FaultProblem(f"no node is in zone {request.get('zone')!r}", 404)
            # Nodes of one zone go on seeing each other.
            spare = [a for n in nodes for a in _of_node(n)] if len(nodes) > 1 else []
        elif "pod" in request:
            pod = self._pod(request)
            nodes = [self._network.nodes[pod.node]]
        else:
            nodes = [self._node(request.get("node"))]
        for node in nodes:
            for direction in directions:
                match = Match(node.spec.name, direction, pod.link if pod else "eth0")
                local = pod is None or request.get("kubelet") is True
                self._add(fault, match, peers, spare, verdicts, local=local)
        if kind == "node-loss":
            if not (self._lose and self._restore):
                raise FaultProblem("nodes cannot be lost here", 501)
            fault.lost_nodes = [nodes[0].spec.name]

    def _verdicts(self, request: Obj) -> list[str]:
        """Return what happens to a matching packet: one or two endings of a rule."""
        if request["kind"] == "packet-loss":
            percent = request.get("percent")
            if not isinstance(percent, int | float) or not 0 < percent <= 100:
                raise FaultProblem("percent is a number above 0, at most 100")
            return [f"numgen random mod 100000 < {round(percent * 1000)} counter name COUNTER drop"]
        action = request.get("action", "drop")
        if action == "drop":
            return ["counter name COUNTER drop"]
        if action == "reject":
            return [
                "meta l4proto tcp counter name COUNTER reject with tcp reset",
                "counter name COUNTER reject",
            ]
        raise FaultProblem("action is one of drop, reject")

    def _add(
        self,
        fault: Fault,
        match: Match,
        peers: list[str] | None,
        spare: list[str] | None,
        verdicts: list[str],
        *,
        local: bool,
    ) -> None:
        inward = match.direction == "in"
        # "in" is towards the target: out of a node's pod link, but into a node's eth0.
        to_pod = match.link != "eth0"
        side = "saddr" if inward else "daddr"
        device = "oifname" if inward == to_pod else "iifname"
        wheres = [f'{device} "{match.link}"']
        if spare:
            wheres[0] += f" ip {side} != {{ {collapsed(_plain(spare))} }}"
        if peers is not None:
            wheres = [f"{wheres[0]} {each}" for each in _matches(peers, side, inward)]
        # A packet from or to the node itself never passes "through".
        chains = ["through", *(["out" if device == "oifname" else "in"] if local else [])]
        rules = fault.rules.setdefault(match.node, [])
        for where in wheres:
            for verdict in verdicts:
                text = f"{where} {verdict.replace('COUNTER', f'{fault.id}-{match.direction}')}"
                rules += [(chain, text) for chain in chains]
        fault.matches.append(match)

    def _node(self, name: Any) -> Node:
        try:
            return self._network.nodes[name]
        except (KeyError, TypeError):
            raise FaultProblem(f"there is no node {name!r}", 404) from None

    def _pod(self, request: Obj) -> Attached:
        namespace, name = request.get("namespace"), request.get("pod")
        pod = self._network.pod_by_name(str(namespace), str(name))
        if pod is None:
            raise FaultProblem(f"no running pod {namespace}/{name}", 404)
        return pod

    def _addresses(self, peers: Any) -> list[str] | None:
        """Return the addresses of peers, ``ADDRESS:PORT`` for a single service of one."""
        if peers is None:
            return None
        if not isinstance(peers, list):
            raise FaultProblem("peers and spare are lists")
        found: list[str] = []
        for peer in peers:
            if peer == "api":
                found.append(f"{CORE_IP}:{API_PORT}")
            elif peer == "dns":
                found.append(f"{CORE_IP}:{DNS_PORT}")
            elif isinstance(peer, dict) and "zone" in peer:
                nodes = self._network.nodes.values()
                found += [a for n in nodes if n.spec.zone == peer["zone"] for a in _of_node(n)]
            elif isinstance(peer, dict) and "node" in peer:
                found += _of_node(self._node(peer["node"]))
            elif isinstance(peer, dict) and "pod" in peer:
                found.append(self._pod(peer).ip)
            else:
                raise FaultProblem(f"no such peer: {peer!r}")
        if not found:
            raise FaultProblem("peers and spare must name somebody who is there")
        return found

    # ------------------------------------------------------------------ rules

    async def _apply(
        self, names: Iterable[str], new: Fault | None = None, old: Fault | None = None
    ) -> None:
        for name in sorted(names):
            lines = [f"flush chain ip faults {chain}" for chain in ("through", "in", "out")]
            if new:
                lines[:0] = [f"add counter ip faults {c}" for c in new.counters(name)]
            for fault in self._active.values():
                lines += [f"add rule ip faults {c} {r}" for c, r in fault.rules.get(name, [])]
            if old:
                lines += [f"delete counter ip faults {c}" for c in old.counters(name)]
            await self._network.in_node(name, netns.nft, "\n".join(lines) + "\n")

    async def _described(self, fault: Fault) -> Obj:
        packets: dict[str, int] = {"packets_in": 0, "packets_out": 0}
        size: dict[str, int] = {"bytes_in": 0, "bytes_out": 0}
        for name in sorted({m.node for m in fault.matches}):
            answer = await self._network.in_node(name, _read_counters)
            for counter in fault.counters(name):
                direction = counter.rpartition("-")[2]
                found = answer.get(counter, (0, 0))
                packets[f"packets_{direction}"] += found[0]
                size[f"bytes_{direction}"] += found[1]
        return {
            "id": fault.id,
            "kind": fault.request["kind"],
            "request": fault.request,
            "since": fault.since,
            "evidence": packets | size,
        }

    # ------------------------------------------------------------------ delay

    async def _delay(self, fault: Fault) -> None:
        if not self.delay_works:
            raise FaultProblem("this kernel has no netem: delay is not to be had", 501)
        request = fault.request
        delay_s, jitter_s = request.get("delay_s"), request.get("jitter_s", 0.0)
        if not isinstance(delay_s, int | float) or not 0 < delay_s <= 60:
            raise FaultProblem("delay_s is a number of seconds above 0, at most 60")
        if not isinstance(jitter_s, int | float) or not 0 <= jitter_s <= delay_s:
            raise FaultProblem("jitter_s is a number of seconds, at most delay_s")
        if request.get("direction", "both") != "both":
            raise FaultProblem("a delay works in both directions")
        pod = self._pod(request) if "pod" in request else None
        node = pod.node if pod else self._node(request.get("node")).spec.name
        if any(d == (node, pod) for f in self._active.values() for d in f.delayed):
            raise FaultProblem("it is delayed already", 409)
        spec = f"netem delay {round(delay_s * 1e6)}us {round(jitter_s * 1e6)}us limit 100000"
        fault.delayed = [(node, pod)]
        for place, device in self._ends(node, pod):
            await place(
                netns.run, ("tc", "-batch", "-"), f"qdisc replace dev {device} root {spec}\n"
            )

    async def _undelay(self, node: str, pod: Attached | None) -> None:
        if pod and pod.uid not in self._network.pods:
            return
        for place, device in self._ends(node, pod):
            await place(netns.run, ("tc", "-batch", "-"), f"qdisc del dev {device} root\n")

    def _ends(
        self, node: str, pod: Attached | None
    ) -> list[tuple[Callable[..., Awaitable[Any]], str]]:
        """Return both ends of the target's link: a queue only delays what leaves."""
        network = self._network

        async def here(work: Callable[..., Any], *args: Any) -> Any:
            return await network.in_node(node, work, *args)

        async def beyond(work: Callable[..., Any], *args: Any) -> Any:
            return await netns.visit(pod.netns if pod else None, work, *args)

        if pod:
            return [(here, pod.link), (beyond, "eth0")]
        return [(here, "eth0"), (beyond, network.nodes[node].link)]


def _of_node(node: Node) -> list[str]:
    return [node.spec.ip, node.spec.pod_cidr]


def _plain(addresses: list[str]) -> list[str]:
    if any(":" in a for a in addresses):
        raise FaultProblem("api and dns cannot be spared alone: spare what needs them")
    return addresses


def _matches(peers: list[str], side: str, inward: bool) -> Iterable[str]:
    plain = [p for p in peers if ":" not in p]
    if plain:
        yield f"ip {side} {{ {collapsed(plain)} }}"
    port = "sport" if inward else "dport"
    for peer in peers:
        address, colon, number = peer.partition(":")
        if colon:
            # The transport header of TCP and UDP begins with the two ports alike.
            yield f"ip {side} {address} meta l4proto {{ tcp, udp }} th {port} {number}"


def _read_counters() -> dict[str, tuple[int, int]]:
    answer = json.loads(netns.run(("nft", "-j", "list", "counters", "table", "ip", "faults"), ""))
    counters = [item["counter"] for item in answer["nftables"] if "counter" in item]
    return {c["name"]: (c["packets"], c["bytes"]) for c in counters}


def _try_delay() -> None:
    netns.run(("tc", "qdisc", "add", "dev", "void", "root", "netem", "delay", "1ms"), "")
    netns.run(("tc", "qdisc", "del", "dev", "void", "root"), "")
