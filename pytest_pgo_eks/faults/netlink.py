"""A program for the helper pod: routes of one pod's network that lead nowhere, and back.

It is sent as text and runs by itself on a node, so it imports the standard library and nothing of
ours. It reads one JSON argument and prints one JSON object.

A route of type *blackhole* is what every kernel has: what a pod sends that way vanishes, with no
word to anybody, and what others sent it goes unanswered. The kernel counts the packets for which
it found no way out (``OutNoRoutes``). Routes that exist are left as they are and outdone by more
specific ones, so that taking ours back is all there is to undo. A child process takes them back
after a quarter of an hour should nobody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path

_ADD, _DELETE = 24, 25
_REQUEST, _ACK, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x400, 0x200
_UNICAST, _BLACKHOLE = 1, 6
_MAIN, _OURS = 254, 98
_DST, _OIF, _GATEWAY = 1, 4, 5
_EXISTS, _NO_SUCH = 17, 3
_AT_MOST_S = 900

Network = ipaddress.IPv4Network
Address = ipaddress.IPv4Address
# Where to, by which device, over which gateway; without a device it leads nowhere.
Route = tuple[Network, str | None, Address | None]
_NEW_NETWORK = 0x40000000


def process_of(uid: str, proc: str = "/proc") -> str:
    """Return the pid of a process of the pod with this UID, found by its control group."""
    wanted = {uid, uid.replace("-", "_")}
    for entry in Path(proc).iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = (entry / "cgroup").read_text()
                if any(word in text for word in wanted):
                    return entry.name
    raise SystemExit(f"no process of pod {uid} is on this node")


def enter(pid: str) -> None:
    """Go into a process's network; this process stays there."""
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), _NEW_NETWORK):
            raise SystemExit(f"cannot enter the pod's network: {os.strerror(ctypes.get_errno())}")


def existing(text: str) -> list[Route]:
    """Return (network, device, gateway or None) of every IPv4 route, as ``/proc/net/route`` has it."""
    found: list[Route] = []
    for line in text.splitlines()[1:]:
        device, target, gateway, _, _, _, _, mask = line.split()[:8]
        number = [int.from_bytes(bytes.fromhex(word), "little") for word in (target, mask, gateway)]
        network = Network((number[0], number[1].bit_count()))
        found.append((network, device, Address(number[2]) if number[2] else None))
    return found


def plan(routes: list[Route], peers: list[str] | None, spare: list[str]) -> list[Route]:
    """Return (network, device or None, gateway or None) to add; without a device it leads nowhere.

    Everything there is a route to is cut in two halves, each more specific than that route. A route
    to one address alone is the way to a gateway, and nobody answers there.
    """
    if peers is None:
        halves = [half for net, _, _ in routes if net.prefixlen < 31 for half in net.subnets()]
    else:
        halves = [Network(peer) for peer in peers]
    wanted: list[Route] = [(half, None, None) for half in dict.fromkeys(halves)]
    for each in spare:
        address = Address(each)
        ways = [one for one in routes if address in one[0]]
        if ways:
            _, device, gateway = max(ways, key=lambda one: one[0].prefixlen)
            wanted.append((Network(each), device, gateway))
    return wanted


def message(kind: int, route: Route) -> bytes:
    """Return the request to add or delete a route."""
    network, device, gateway = route
    flags = _REQUEST | _ACK | (_CREATE | _EXCLUSIVE if kind == _ADD else 0)
    way = _UNICAST if device else _BLACKHOLE
    scope = 253 if device and gateway is None else 0
    body = struct.pack("BBBBBBBBI", 2, network.prefixlen, 0, 0, _MAIN, _OURS, scope, way, 0)
    body += struct.pack("HH", 8, _DST) + network.network_address.packed
    if device:
        body += struct.pack("HHI", 8, _OIF, socket.if_nametoindex(device))
    if gateway is not None:
        body += struct.pack("HH", 8, _GATEWAY) + gateway.packed
    return struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body


def change(kind: int, routes: list[Route]) -> int:
    """Add or delete routes; one that is there, or gone, already is fine. Returns how many."""
    fine = {0, _EXISTS if kind == _ADD else _NO_SUCH}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        for route in routes:
            kernel.send(message(kind, route))
            (error,) = struct.unpack_from("i", kernel.recv(65536), 16)
            if -error not in fine:
                raise SystemExit(f"route to {route[0]}: {os.strerror(-error)}")
    return len(routes)


def unrouted() -> int:
    """Return how many packets found no way out of this network since it is there."""
    lines = Path("/proc/self/net/snmp").read_text().splitlines()
    names, values = [line.split() for line in lines if line.startswith("Ip:")]
    return int(values[names.index("OutNoRoutes")])


def main() -> None:
    told = json.loads(sys.argv[1])
    enter(told.get("pid") or process_of(told["uid"]))
    if told["do"] == "count":
        print(json.dumps({"unrouted": unrouted()}))
        return
    if told["do"] == "undo":
        with contextlib.suppress(ProcessLookupError):
            os.kill(told["guard"], signal.SIGKILL)
    routes = existing(Path("/proc/self/net/route").read_text())
    wanted = told.get("routes")
    ways: list[Route] = [
        (Network(net), device, Address(gateway) if gateway else None)
        for net, device, gateway in wanted or ()
    ] or plan(routes, told.get("peers"), told.get("spare", []))
    before = unrouted()
    # Those that stay open come first: nobody whom we spare is cut off for a moment.
    ways.sort(key=lambda one: one[1] is None)
    if told["do"] == "undo":
        change(_DELETE, ways[::-1])
        print(json.dumps({"unrouted": unrouted()}))
        return
    guard = os.fork()
    if guard == 0:
        os.setsid()
        for number in range(3):
            os.close(number)
        signal.sigtimedwait([signal.SIGTERM], _AT_MOST_S)
        change(_DELETE, ways[::-1])
        return
    change(_ADD, ways)
    kept = [(str(net), device, str(gateway) if gateway else None) for net, device, gateway in ways]
    print(json.dumps({"unrouted": before, "guard": guard, "routes": kept}))


if __name__ == "__main__":
    main()
