"""NetworkPolicy as nftables rules.

A packet between two pods may have to pass the source's egress and the target's ingress policies,
so an allowed packet *returns* from a pod's chain and only what no policy allows is dropped there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pytest_pgo_eks.local.network.model import collapsed, is_ipv4
from pytest_pgo_eks.local.objects import Obj, labels_of, matches

_PROTOCOLS = {"TCP": "tcp", "UDP": "udp"}


@dataclass(frozen=True)
class Member:
    """A pod as policies see it: namespace, labels, address, and its named ports."""

    namespace: str
    labels: Mapping[str, str] = field(hash=False)
    ip: str
    ports: Mapping[str, int] = field(hash=False)


def member(pod: Obj, ip: str) -> Member:
    """Return the policies' view of a pod that has the address ``ip``."""
    named = {
        port["name"]: port["containerPort"]
        for container in pod["spec"].get("containers") or []
        for port in container.get("ports") or []
        if port.get("name")
    }
    return Member(pod["metadata"]["namespace"], labels_of(pod), ip, named)


def selected(policies: Iterable[Obj], pod: Obj) -> bool:
    """Say whether any policy selects the pod."""
    space, labels = pod["metadata"]["namespace"], labels_of(pod)
    return any(
        p["metadata"]["namespace"] == space and matches(p["spec"].get("podSelector") or {}, labels)
        for p in policies
    )


def policy_rules(
    policies: Iterable[Obj], members: Iterable[Member], namespaces: Mapping[str, Mapping[str, str]]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the rules of the chain ``policies`` and the chains that they jump to.

    ``namespaces`` maps a namespace's name to its labels.
    """
    everyone = list(members)
    listed = sorted(policies, key=lambda p: (p["metadata"]["namespace"], p["metadata"]["name"]))
    jumps: list[str] = []
    chains: dict[str, list[str]] = {}
    for one in sorted(everyone, key=lambda m: ipaddress.ip_address(m.ip)):
        mine = [
            p["spec"]
            for p in listed
            if p["metadata"]["namespace"] == one.namespace
            and matches(p["spec"].get("podSelector") or {}, one.labels)
        ]
        for direction in ("Ingress", "Egress"):
            specs = [spec for spec in mine if direction in _types(spec)]
            if not specs:
                continue
            chain = f"{direction.lower()}-{one.ip.replace('.', '-')}"
            jumps.append(
                f"ip {'daddr' if direction == 'Ingress' else 'saddr'} {one.ip} jump {chain}"
            )
            allowed = [
                rule
                for spec in specs
                for given in spec.get(direction.lower()) or []
                for rule in _allow(given, direction, one, everyone, namespaces)
            ]
            chains[chain] = [*dict.fromkeys(allowed), "counter drop"]
    return jumps, chains


def _types(spec: Obj) -> list[str]:
    given: list[str] = spec.get("policyTypes") or []
    return given or ["Ingress", *(["Egress"] if "egress" in spec else [])]


def _allow(
    given: Obj,
    direction: str,
    one: Member,
    everyone: list[Member],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterable[str]:
    side = "saddr" if direction == "Ingress" else "daddr"
    peers = given.get("from" if direction == "Ingress" else "to")
    wheres: list[tuple[str, list[Member]]] = []
    if not peers:
        wheres.append(("", everyone))
    for peer in peers or []:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            if not is_ipv4(block["cidr"], network=True):
                # An IPv6 block allows nobody here.
                continue
            where = f"ip {side} {block['cidr']}"
            holes = [c for c in block.get("except") or [] if is_ipv4(c, network=True)]
            if holes:
                where += f" ip {side} != {{ {collapsed(holes)} }}"
            wheres.append((where, everyone))
            continue
        found = [m for m in everyone if _is_peer(peer, m, one.namespace, namespaces)]
        if found:
            addresses = ", ".join(sorted(m.ip for m in found))
            wheres.append((f"ip {side} {{ {addresses} }}", found))
    for where, found in wheres:
        targets = [one] if direction == "Ingress" else found
        for ports in _ports(given.get("ports"), targets, direction):
            yield f"{where} {ports} return".strip()


def _is_peer(peer: Obj, one: Member, own: str, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
    spaces = peer.get("namespaceSelector")
    if spaces is None:
        if one.namespace != own:
            return False
    elif not matches(spaces, namespaces.get(one.namespace, {})):
        return False
    pods = peer.get("podSelector")
    return pods is None or matches(pods, one.labels)


def _ports(ports: list[Obj] | None, targets: list[Member], direction: str) -> Iterable[str]:
    if not ports:
        yield ""
        return
    for port in ports:
        protocol = _PROTOCOLS.get(port.get("protocol", "TCP"))
        number = port.get("port")
        if protocol is None:
            continue
        if number is None:
            yield f"meta l4proto {protocol}"
        elif isinstance(number, int):
            last = port.get("endPort")
            yield f"{protocol} dport {number}{f'-{last}' if last else ''}"
        else:
            # A named port may be another number on every pod.
            for one in targets:
                if number in one.ports:
                    to = f"ip daddr {one.ip} " if direction == "Egress" else ""
                    yield f"{to}{protocol} dport {one.ports[number]}"
