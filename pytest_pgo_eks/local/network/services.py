"""Services as nftables rules: ClusterIP to endpoints, node ports, and refusal where nobody serves.

Follows kube-proxy: ready endpoints serve; with none ready, those that are serving while they
terminate; with none at all a connection is refused. Established connections stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pytest_pgo_eks.local.network.model import (
    API_PORT,
    API_SERVICE_IP,
    API_SERVICE_PORT,
    CORE_IP,
    DNS_PORT,
    DNS_SERVICE_IP,
    is_ipv4,
)
from pytest_pgo_eks.local.objects import Obj, labels_of

_SLICE_OF = "kubernetes.io/service-name"
_PROTOCOLS = {"TCP": "tcp", "UDP": "udp"}


@dataclass(frozen=True)
class Endpoint:
    """One address behind a Service. ``ports`` maps the Service's port names to numbers."""

    ip: str
    hostname: str
    ready: bool
    serving: bool
    ports: Mapping[str, int] = field(hash=False)


Key = tuple[str, str]


def endpoints_by_service(
    slices: Iterable[Obj], endpoints: Mapping[Key, Obj]
) -> dict[Key, list[Endpoint]]:
    """Collect every Service's endpoints: from its slices, else from its Endpoints object.

    Real clusters mirror a hand-written Endpoints object into slices; where nobody has done so
    yet, the object alone is enough.
    """
    found: dict[Key, list[Endpoint]] = {}
    for part in slices:
        name = labels_of(part).get(_SLICE_OF)
        if name and part.get("addressType", "IPv4") == "IPv4":
            key = part["metadata"]["namespace"], name
            found.setdefault(key, []).extend(_of_slice(part))
    for key, obj in endpoints.items():
        if key not in found:
            found[key] = list(_of_endpoints(obj))
    return found


def _of_slice(part: Obj) -> Iterable[Endpoint]:
    ports = {p.get("name") or "": p["port"] for p in part.get("ports") or [] if p.get("port")}
    for one in part.get("endpoints") or []:
        if not is_ipv4(one["addresses"][0]):
            continue
        conditions = one.get("conditions") or {}
        ready = conditions.get("ready") is not False
        serving = conditions.get("serving")
        yield Endpoint(
            one["addresses"][0],
            one.get("hostname") or "",
            ready,
            ready if serving is None else bool(serving),
            ports,
        )


def _of_endpoints(obj: Obj) -> Iterable[Endpoint]:
    for subset in obj.get("subsets") or []:
        ports = {p.get("name") or "": p["port"] for p in subset.get("ports") or []}
        for listed, ready in (("addresses", True), ("notReadyAddresses", False)):
            for one in subset.get(listed) or []:
                if not is_ipv4(one["ip"]):
                    continue
                yield Endpoint(one["ip"], one.get("hostname") or "", ready, ready, ports)


def service_rules(
    services: Mapping[Key, Obj], endpoints: Mapping[Key, list[Endpoint]]
) -> tuple[list[str], list[str], list[str]]:
    """Return the rules of the chains ``services`` (nat), ``refused`` (filter), ``hairpin`` (nat).

    The API server and the DNS responder have theirs whatever the API says, so that a cluster whose
    objects are not there yet already works.
    """
    nat = [
        _dnat(API_SERVICE_IP, "tcp", API_SERVICE_PORT, [(CORE_IP, API_PORT)], sticky=False),
        _dnat(DNS_SERVICE_IP, "udp", DNS_PORT, [(CORE_IP, DNS_PORT)], sticky=False),
        _dnat(DNS_SERVICE_IP, "tcp", DNS_PORT, [(CORE_IP, DNS_PORT)], sticky=False),
    ]
    refused: list[str] = []
    backends: set[str] = set()
    for key in sorted(services):
        spec = services[key]["spec"]
        address = spec.get("clusterIP")
        if not address or address in {API_SERVICE_IP, DNS_SERVICE_IP} or not is_ipv4(address):
            continue
        sticky = spec.get("sessionAffinity") == "ClientIP"
        for port in spec.get("ports") or []:
            protocol = _PROTOCOLS.get(port.get("protocol", "TCP"))
            if protocol is None:
                continue
            targets = _targets(endpoints.get(key, []), port.get("name") or "")
            backends.update(ip for ip, _ in targets)
            fronts = [(f"ip daddr {address}", port["port"])]
            if port.get("nodePort"):
                fronts.append(("fib daddr type local", port["nodePort"]))
            for where, number in fronts:
                match = f"{where} {protocol} dport {number}"
                if targets:
                    nat.append(f"{match} {_choice(targets, sticky=sticky)}")
                else:
                    refused.append(f"{match} reject")
    pairs = ", ".join(f"{ip} . {ip}" for ip in sorted(backends))
    # A pod that reaches itself through its own Service would drop packets from its own address.
    hairpin = [f"ip saddr . ip daddr {{ {pairs} }} masquerade"] if pairs else []
    return nat, refused, hairpin


def _targets(endpoints: list[Endpoint], port: str) -> list[tuple[str, int]]:
    usable = [e for e in endpoints if e.ready] or [e for e in endpoints if e.serving]
    return sorted({(e.ip, e.ports[port]) for e in usable if port in e.ports})


def _dnat(
    address: str, protocol: str, port: int, targets: list[tuple[str, int]], *, sticky: bool
) -> str:
    return f"ip daddr {address} {protocol} dport {port} {_choice(targets, sticky=sticky)}"


def _choice(targets: list[tuple[str, int]], *, sticky: bool) -> str:
    if len(targets) == 1:
        return "dnat to {}:{}".format(*targets[0])
    pick = "jhash ip saddr" if sticky else "numgen random"
    table = ", ".join(f"{i} : {ip} . {port}" for i, (ip, port) in enumerate(targets))
    return f"dnat to {pick} mod {len(targets)} map {{ {table} }}"
