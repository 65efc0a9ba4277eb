"""The cluster's DNS: names of Services and of pods behind headless Services, and nothing else.

Follows the Kubernetes DNS specification 1.1 as CoreDNS serves it: A, SRV and PTR records, NXDOMAIN
for a headless Service without endpoints, five seconds to live. There is no upstream: every name
outside ``cluster.local`` does not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from pytest_pgo_eks.local.network.model import CLUSTER_DOMAIN, DNS_PORT
from pytest_pgo_eks.local.network.services import Endpoint, Key
from pytest_pgo_eks.local.objects import Obj

A, CNAME, SOA, PTR, AAAA, SRV, ANY = 1, 5, 6, 12, 28, 33, 255
_IN = 1
_TTL_S = 5
_NXDOMAIN, _REFUSED, _FORMAT_ERROR, _NOT_IMPLEMENTED = 3, 5, 1, 4
_UDP_LIMIT = 512
_TCP_IDLE_S = 10.0


@dataclass
class Records:
    """All names of the cluster, lower case and without the last dot."""

    addresses: dict[str, list[str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    services: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    pointers: dict[str, str] = field(default_factory=dict)
    # Names that only have names below them: they exist, and have no records.
    empty: set[str] = field(default_factory=set)


def records(services: Mapping[Key, Obj], endpoints: Mapping[Key, list[Endpoint]]) -> Records:
    """Return the records of all Services."""
    found = Records()
    for (namespace, name), service in services.items():
        spec = service["spec"]
        base = f"{name}.{namespace}.svc.{CLUSTER_DOMAIN}".lower()
        address = spec.get("clusterIP")
        if spec.get("type") == "ExternalName":
            found.aliases[base] = spec["externalName"].rstrip(".").lower()
        elif address and address != "None":
            found.addresses[base] = [address]
            found.pointers[_reverse(address)] = base
            for port in spec.get("ports") or []:
                _add_port(found, base, port, port["port"], base)
        else:
            publish = bool(spec.get("publishNotReadyAddresses"))
            _headless(found, base, spec, endpoints.get((namespace, name), []), publish=publish)
    for each in (found.addresses, found.services):
        for full in each:
            parent = full.partition(".")[2]
            while parent and parent not in found.empty:
                found.empty.add(parent)
                parent = parent.partition(".")[2]
    return found


def _headless(
    found: Records, base: str, spec: Obj, endpoints: list[Endpoint], *, publish: bool
) -> None:
    for one in endpoints:
        if not (one.ready or publish):
            continue
        host = f"{one.hostname or one.ip.replace('.', '-')}.{base}".lower()
        for full in (base, host):
            known = found.addresses.setdefault(full, [])
            if one.ip not in known:
                known.append(one.ip)
        found.pointers[_reverse(one.ip)] = host
        for port in spec.get("ports") or []:
            number = one.ports.get(port.get("name") or "")
            if number:
                _add_port(found, base, port, number, host)


def _add_port(found: Records, base: str, port: Obj, number: int, target: str) -> None:
    if port.get("name"):
        full = f"_{port['name']}._{port.get('protocol', 'TCP')}.{base}".lower()
        found.services.setdefault(full, []).append((number, target))


def _reverse(ip: str) -> str:
    return ipaddress.ip_address(ip).reverse_pointer


class Zone:
    """Answers questions from records that are rebuilt when something changed and somebody asks."""

    def __init__(self, build: Callable[[], Records]) -> None:
        self._build = build
        self._records: Records | None = None
        self._turn = 0

    def forget(self) -> None:
        """Let the next question see what has changed."""
        self._records = None

    def answer(self, query: bytes, limit: int | None = None) -> bytes | None:
        """Return the reply to one message; None where there is nobody to reply to.

        ``limit`` is the most bytes the asker takes (UDP): a longer answer is cut and says so.
        """
        if len(query) < 12:
            return None
        number, flags, questions = struct.unpack_from("!HHH", query)
        if flags & 0x8000:
            return None
        try:
            name, end = _read_name(query, 12)
            kind, group = struct.unpack_from("!HH", query, end)
        except (ValueError, IndexError, struct.error):
            return struct.pack("!HHHHHH", number, 0x8000 | _FORMAT_ERROR, 0, 0, 0, 0)
        question = query[12 : end + 4]
        opcode = flags & 0x7800
        code, answers = 0, list[bytes]()
        if opcode or questions != 1 or group not in {_IN, ANY}:
            code = _NOT_IMPLEMENTED
        else:
            code, answers = self._look_up(name.lower(), kind)
        # Authoritative; recursion is offered so that resolvers do not look elsewhere.
        reply = 0x8000 | opcode | 0x0400 | (flags & 0x0100) | 0x0080 | code
        authority = [] if answers else [_start_of_authority()]
        body = b"".join((question, *answers, *authority))
        if limit is not None and 12 + len(body) > max(limit, _udp_size(query, end + 4)):
            return struct.pack("!HHHHHH", number, reply | 0x0200, 1, 0, 0, 0) + question
        counts = (1, len(answers), len(authority), 0)
        return struct.pack("!HHHHHH", number, reply, *counts) + body

    def _look_up(self, name: str, kind: int) -> tuple[int, list[bytes]]:
        if self._records is None:
            self._records = self._build()
        known = self._records
        answers: list[bytes] = []
        while name in known.aliases and kind not in {CNAME, ANY}:
            answers.append(_record(name, CNAME, _write_name(known.aliases[name])))
            name = known.aliases[name]
            if len(answers) > 8:
                break
        addresses = known.addresses.get(name) or _pod_name(name)
        if kind in {A, ANY} and addresses:
            # Another one first each time, so that clients spread over a headless Service.
            self._turn += 1
            first = self._turn % len(addresses)
            turned = addresses[first:] + addresses[:first]
            answers += [_record(name, A, ipaddress.ip_address(ip).packed) for ip in turned]
        if kind in {CNAME, ANY} and name in known.aliases:
            answers.append(_record(name, CNAME, _write_name(known.aliases[name])))
        if kind in {SRV, ANY}:
            for port, target in known.services.get(name, []):
                data = struct.pack("!HHH", 0, 100, port) + _write_name(target)
                answers.append(_record(name, SRV, data))
        if kind in {PTR, ANY} and name in known.pointers:
            answers.append(_record(name, PTR, _write_name(known.pointers[name])))
        exists = (
            bool(answers or addresses)
            or name in known.services
            or name in known.pointers
            or name in known.empty
        )
        return (0 if exists else _NXDOMAIN), answers


def _pod_name(name: str) -> list[str]:
    """``10-244-1-7.NAMESPACE.pod.cluster.local`` is the address it spells."""
    parts = name.split(".")
    if len(parts) == 5 and ".".join(parts[2:]) == f"pod.{CLUSTER_DOMAIN}":
        with contextlib.suppress(ValueError):
            return [str(ipaddress.IPv4Address(parts[0].replace("-", ".")))]
    return []


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    while data[at]:
        size = data[at]
        if size > 63:
            raise ValueError("a question holds no compressed name")
        labels.append(data[at + 1 : at + 1 + size].decode("ascii"))
        at += 1 + size
    return ".".join(labels), at + 1


def _write_name(name: str) -> bytes:
    parts = [part.encode("ascii") for part in name.split(".") if part]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def _record(name: str, kind: int, data: bytes) -> bytes:
    return _write_name(name) + struct.pack("!HHIH", kind, _IN, _TTL_S, len(data)) + data


def _start_of_authority() -> bytes:
    data = _write_name(f"ns.dns.{CLUSTER_DOMAIN}") + _write_name(f"hostmaster.{CLUSTER_DOMAIN}")
    data += struct.pack("!IIIII", 1, 7200, 1800, 86400, _TTL_S)
    return _record(CLUSTER_DOMAIN, SOA, data)


def _udp_size(query: bytes, at: int) -> int:
    """Return the size that an EDNS question says it takes."""
    (additional,) = struct.unpack_from("!H", query, 10)
    if additional and len(query) >= at + 11 and query[at] == 0:
        kind, size = struct.unpack_from("!HH", query, at + 1)
        if kind == 41:
            return int(size)
    return _UDP_LIMIT


class Responder:
    """Serves a zone over UDP and TCP."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, ip: str, port: int = DNS_PORT) -> None:
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._zone), local_addr=(ip, port)
        )
        self._tcp = await asyncio.start_server(self._serve, ip, port)

    async def stop(self) -> None:
        if self._udp:
            self._udp.close()
        if self._tcp:
            self._tcp.close()
            for writer in list(self._open):
                writer.close()
            await self._tcp.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, TimeoutError, OSError):
                while True:
                    async with asyncio.timeout(_TCP_IDLE_S):
                        (size,) = struct.unpack("!H", await reader.readexactly(2))
                        query = await reader.readexactly(size)
                    answer = self._zone.answer(query)
                    if answer is None:
                        return
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        finally:
            self._open.discard(writer)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: the selector loop's class is no subclass of the abstract one.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._zone.answer(data, _UDP_LIMIT)
        if answer is not None and self._transport:
            self._transport.sendto(answer, addr)
