"""A bed for the network's tests: the real network in namespaces of its own, over a made-up API.

``python network_bed.py SCENARIO`` runs one function of ``network_scenarios.py`` and prints what it returns as JSON;
``run`` starts that in fresh namespaces, from a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from pytest_pgo_eks.local.apiclient import ApiClient, Event, Listed
from pytest_pgo_eks.local.network import Network, three_zones
from pytest_pgo_eks.local.network.faults import Faults
from pytest_pgo_eks.local.network.netns import Place
from pytest_pgo_eks.local.objects import ENDPOINT_SLICE, NAMESPACE, POD, SERVICE, Kind, Obj
from pytest_pgo_eks.local.preflight import UNSHARE, search_path

ROOT = Path(__file__).resolve().parents[2]
# Somebody without rights and without an entry in /etc/passwd.
ORDINARY_UID = 54321


def run(scenario: str, *, ordinary: bool = False, home: Path | None = None) -> Any:
    """Run a scenario in fresh namespaces, as an ordinary user if asked, and return its result."""
    python, packages = interpreter(ordinary=ordinary)
    command = [*UNSHARE, "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh", python]
    who: dict[str, Any] = (
        {"user": ORDINARY_UID, "group": ORDINARY_UID, "extra_groups": []} if ordinary else {}
    )
    done = subprocess.run(
        [*command, str(Path(__file__)), scenario],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
        env={"PATH": search_path(), "PYTHONPATH": packages, "HOME": str(home or "/tmp")},
        **who,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def interpreter(*, ordinary: bool) -> tuple[str, str]:
    """Return a Python that the user can start, and the PYTHONPATH that makes it ours.

    An environment whose base interpreter lies in somebody's home is closed to other users; the
    distribution's own Python of the same version then does.
    """
    here = str(ROOT)
    if not ordinary:
        return sys.executable, here
    base = Path(os.path.realpath(sys.executable))
    if all(p.stat().st_mode & 0o001 for p in (base, *base.parents)):
        return sys.executable, here
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    if not Path(python).exists():
        import pytest

        pytest.skip(f"other users may start neither {base} nor a {python}")
    site = next(p for p in sys.path if p.endswith("site-packages"))
    return python, f"{here}:{site}"


class FakeApi:
    """Lists and watches from memory, as much of ``ApiClient`` as the network uses."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Obj]] = {}
        self._watchers: dict[str, list[asyncio.Queue[Event]]] = {}
        self._versions = itertools.count(1)

    async def list(self, kind: Kind, _namespace: str | None = None, **_: Any) -> Listed:
        return Listed(list(self._objects.get(kind.plural, {}).values()), "0")

    async def watch(
        self, kind: Kind, _namespace: str | None = None, **_: Any
    ) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._watchers.setdefault(kind.plural, []).append(queue)
        while True:
            yield await queue.get()

    def put(self, kind: Kind, obj: Obj) -> None:
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        known = self._objects.setdefault(kind.plural, {})
        self._tell(kind, Event("MODIFIED" if key in known else "ADDED", obj))
        known[key] = obj

    def drop(self, kind: Kind, name: str, namespace: str = "") -> None:
        self._tell(kind, Event("DELETED", self._objects[kind.plural].pop((namespace, name))))

    def _tell(self, kind: Kind, event: Event) -> None:
        for queue in self._watchers.get(kind.plural, []):
            queue.put_nowait(event)


class Pod:
    """A pod of the bed: sockets in its namespace, no process."""

    def __init__(self, name: str, ip: str, place: Place) -> None:
        self.name = name
        self.ip = ip
        self.place = place


class Bed:
    def __init__(self) -> None:
        self.api = FakeApi()
        self.network = Network()
        self.faults = Faults(self.network)
        self.pods: dict[str, Pod] = {}
        self._servers: list[asyncio.Server] = []
        for name in ("default", "other"):
            labels = {"kubernetes.io/metadata.name": name}
            self.api.put(NAMESPACE, {"metadata": {"name": name, "labels": labels}})

    async def start(self) -> None:
        await self.network.start(cast(ApiClient, self.api), three_zones())
        await self.faults.start()

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for pod in self.pods.values():
            pod.place.close()
        await self.network.stop()

    async def pod(self, name: str, node: int, namespace: str = "default", **labels: str) -> Pod:
        """Make a pod that answers its name on port 80."""
        metadata = {"name": name, "namespace": namespace, "uid": f"u-{name}", "labels": labels}
        ports = [{"name": "web", "containerPort": 80}]
        self.api.put(POD, {"metadata": metadata, "spec": {"containers": [{"ports": ports}]}})
        await asyncio.sleep(0)
        at = await self.network.attach(f"node-{node}", f"u-{name}")
        self.pods[name] = Pod(name, at.ip, Place(name, at.netns))
        await self.serve(name, 80)
        return self.pods[name]

    async def serve(self, name: str, port: int) -> None:
        pod = self.pods[name]

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = writer.get_extra_info("peername")
            writer.write(f"{name} {peer[0] if peer else '?'}".encode())
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.close()

        listener = pod.place.listener("0.0.0.0", port)
        self._servers.append(await asyncio.start_server(answer, sock=listener))

    def service(
        self, name: str, ip: str | None, port: int = 5432, namespace: str = "default", **spec: Any
    ) -> None:
        self.api.put(
            SERVICE,
            {
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": ip, "ports": [{"name": "p", "port": port}], **spec},
            },
        )

    def slice(
        self,
        service: str,
        *pods: Pod,
        namespace: str = "default",
        ready: bool = True,
        port: int = 80,
    ) -> None:
        self.api.put(
            ENDPOINT_SLICE,
            {
                "metadata": {
                    "name": f"{service}-x",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": "IPv4",
                "ports": [{"name": "p", "port": port}],
                "endpoints": [
                    {"addresses": [p.ip], "hostname": p.name, "conditions": {"ready": ready}}
                    for p in pods
                ],
            },
        )

    async def settled(self) -> None:
        """Let the watches bring what was put, then wait for the rules."""
        before = self.network._asked
        for _ in range(20):
            await asyncio.sleep(0)
        assert self.network._asked >= before
        await self.network.settle()

    async def ask(
        self, where: str | Place, ip: str, port: int, within_s: float = 10.0
    ) -> tuple[str, str]:
        """Connect and return (who answered, or how it failed; the address the server saw).

        Give ``within_s`` only where silence is expected: a busy machine answers late.
        """
        place = self.pods[where].place if isinstance(where, str) else where
        loop = asyncio.get_running_loop()
        with place.socket() as client:
            client.setblocking(False)
            try:
                async with asyncio.timeout(within_s):
                    await loop.sock_connect(client, (ip, port))
                    said = (await loop.sock_recv(client, 100)).decode().split()
            except TimeoutError:
                return "silence", ""
            except OSError as error:
                return type(error).__name__ if error.errno is None else os.strerror(error.errno), ""
        return (said[0], said[1]) if said else ("closed", "")

    async def resolve(self, where: str, name: str, kind: int = 1) -> tuple[int, list[str]]:
        """Ask the cluster's DNS from a pod; return the response code and the addresses."""
        loop = asyncio.get_running_loop()
        labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
        query = (
            struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)
        )
        with self.pods[where].place.socket(kind=socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            await loop.sock_connect(client, (self.network.dns_ip, 53))
            await loop.sock_sendall(client, query)
            async with asyncio.timeout(10):
                answer = await loop.sock_recv(client, 4096)
        flags, _, count = struct.unpack_from("!HHH", answer, 2)
        rest, found = answer[len(query) :], []
        for _ in range(count):
            at = rest.index(0) + 1
            found_kind, _, _, size = struct.unpack_from("!HHIH", rest, at)
            data, rest = rest[at + 10 : at + 10 + size], rest[at + 10 + size :]
            if found_kind == 1:
                found.append(socket.inet_ntoa(data))
        return flags & 15, found


def main(name: str) -> None:
    scenario: Callable[[Bed], Awaitable[Any]] = getattr(
        importlib.import_module("network_scenarios"), name
    )

    async def work() -> Any:
        bed = Bed()
        began = time.monotonic()
        await bed.start()
        print(f"network up in {time.monotonic() - began:.3f} s", file=sys.stderr)
        try:
            return await scenario(bed)
        finally:
            await bed.stop()

    print(json.dumps(asyncio.run(work())))


if __name__ == "__main__":
    main(sys.argv[1])
