"""Names to addresses, by asking the cluster's DNS ourselves.

``getaddrinfo`` blocks a thread for up to tens of seconds when DNS does not answer, and a scout
every 10 ms would fill any pool of threads within a second: the outage would then look longer than
it was. This resolver costs one datagram, obeys ``/etc/resolv.conf`` (servers, search, ndots) and
asks again every 100 ms until the caller's deadline cancels it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import struct
from pathlib import Path

_RETRY_S = 0.1
_A, _AAAA = 1, 28


class _Config:
    """What resolv.conf and hosts say, read once: both are fixed for a pod's life."""

    def __init__(self, resolv: str, hosts: str) -> None:
        self.servers: list[str] = []
        self.search: list[str] = []
        self.ndots = 1
        for line in resolv.splitlines():
            words = line.split("#")[0].split()
            if len(words) < 2:
                continue
            if words[0] == "nameserver":
                self.servers.append(words[1])
            elif words[0] in {"search", "domain"}:
                self.search = words[1:]
            elif words[0] == "options":
                for word in words[1:]:
                    if word.startswith("ndots:") and word[6:].isdigit():
                        self.ndots = int(word[6:])
        self.known: dict[str, list[str]] = {}
        for line in hosts.splitlines():
            words = line.split("#")[0].split()
            for name in words[1:]:
                self.known.setdefault(name.lower(), []).append(words[0])

    def candidates(self, name: str) -> list[str]:
        """Return the full names to ask for, in the order glibc asks."""
        if name.endswith("."):
            return [name[:-1]]
        searched = [f"{name}.{domain}" for domain in self.search]
        return [name, *searched] if name.count(".") >= self.ndots else [*searched, name]


_config: _Config | None = None


def _read() -> _Config:
    global _config  # noqa: PLW0603 -- one process, one resolv.conf
    if _config is None:
        texts = []
        for path in ("/etc/resolv.conf", "/etc/hosts"):
            try:
                texts.append(Path(path).read_text(encoding="utf-8", errors="replace"))
            except OSError:
                texts.append("")
        _config = _Config(*texts)
    return _config


async def addresses(host: str) -> list[str]:
    """Return the addresses of ``host`` (or ``host`` itself if it is one): IPv4, else IPv6.

    :raises OSError: no such name, or no server to ask. Cancelling is the only time-out.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    config = _read()
    if known := config.known.get(host.lower()):
        v4 = [address for address in known if ":" not in address]
        return v4 or known
    if not config.servers:
        raise OSError("no name server is configured")
    for name in config.candidates(host):
        for kind in (_A, _AAAA):
            found = await _ask(config.servers, name, kind)
            if found:
                return found
            if found is None:
                break  # no such name, of whatever kind
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


class _Question(asyncio.DatagramProtocol):
    def __init__(self, ident: int, answer: asyncio.Future[list[str] | None]) -> None:
        self._ident = ident
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        if self._answer.done() or len(data) < 12:
            return
        if int.from_bytes(data[:2], "big") != self._ident:
            return
        try:
            self._answer.set_result(parse(data))
        except (OSError, ValueError, IndexError, struct.error) as error:
            self._answer.set_exception(error if isinstance(error, OSError) else OSError(str(error)))

    def error_received(self, exc: Exception) -> None:
        """ICMP says nobody listens: ask again at the next turn, as glibc does."""


async def _ask(servers: list[str], name: str, kind: int) -> list[str] | None:
    loop = asyncio.get_running_loop()
    ident = secrets.randbelow(65536)
    packet = question(ident, name, kind)
    answer: asyncio.Future[list[str] | None] = loop.create_future()
    turn = 0
    while True:
        server = servers[turn % len(servers)]
        turn += 1
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Question(ident, answer), remote_addr=(server, 53)
        )
        try:
            transport.sendto(packet)
            done, _pending = await asyncio.wait({answer}, timeout=_RETRY_S)
            if done:
                return answer.result()
        finally:
            transport.abort()


def question(ident: int, name: str, kind: int = _A) -> bytes:
    """Return a recursive query for the records of ``name`` that are of ``kind``."""
    labels = b"".join(bytes([len(p)]) + p.encode("idna") for p in name.split(".") if p)
    return (
        struct.pack(">HHHHHH", ident, 0x0100, 1, 0, 0, 0)
        + labels
        + b"\0"
        + struct.pack(">HH", kind, 1)
    )


def parse(packet: bytes) -> list[str] | None:
    """Return the addresses in an answer, None for NXDOMAIN.

    :raises OSError: the server failed (SERVFAIL, REFUSED).
    """
    _ident, flags, questions, answers, _, _ = struct.unpack_from(">HHHHHH", packet)
    code = flags & 15
    if code == 3:
        return None
    if code:
        raise OSError(f"the name server answered with code {code}")
    at = 12
    for _ in range(questions):
        at = _skip(packet, at) + 4
    found = []
    for _ in range(answers):
        at = _skip(packet, at)
        kind, _cls, _ttl, length = struct.unpack_from(">HHIH", packet, at)
        at += 10
        if kind == _A and length == 4:
            found.append(socket.inet_ntoa(packet[at : at + 4]))
        elif kind == _AAAA and length == 16:
            found.append(socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]))
        at += length
    return found


def _skip(packet: bytes, at: int) -> int:
    while (length := packet[at]) != 0:
        if length & 0xC0:
            return at + 2
        at += length + 1
    return at + 1
