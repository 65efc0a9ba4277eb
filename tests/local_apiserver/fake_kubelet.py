"""A kubelet that only talks: it records what it is asked, and answers by a few fixed rules."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web
from standin.server import kubelet_pair

from local_apiserver.api_bench import Bench, pod
from pytest_pgo_eks.local.objects import NODE, POD

TOKEN = "kubelet-api"
_EXIT_7 = {
    "status": "Failure",
    "reason": "NonZeroExitCode",
    "message": "command terminated with non-zero exit code",
    "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
}


@dataclass
class FakeKubelet:
    """``asked`` are the requests so far: (path, query, subprotocol)."""

    asked: list[tuple[str, list[tuple[str, str]], str | None]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401, text="Unauthorized")
        if request.path.startswith("/containerLogs/"):
            return await self._logs(request)
        kind = request.path.split("/")[1]
        known = ("v5.channel.k8s.io", "v4.channel.k8s.io")
        socket_ = web.WebSocketResponse(protocols=known)
        await socket_.prepare(request)
        self.asked.append((request.path, list(request.query.items()), socket_.ws_protocol))
        await (
            self._forward(request, socket_)
            if kind == "portForward"
            else self._exec(request, socket_)
        )
        return socket_

    async def _logs(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append((request.path, list(request.query.items()), None))
        if request.query.get("previous"):
            text = 'previous terminated container "main" in pod "web" not found'
            return web.Response(status=400, text=text)
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"first line\n")
        if "follow" in request.query:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                for _ in range(200):
                    await answer.write(b"more\n")
                    await asyncio.sleep(0.05)
            self.left.set()
        return answer

    async def _exec(self, request: web.BaseRequest, out: web.WebSocketResponse) -> None:
        command = request.query.getall("command", [])
        given = b""
        if request.query.get("input"):
            async for message in out:
                if message.type is WSMsgType.BINARY and message.data[:1] == b"\x00":
                    given += message.data[1:]
                if message.data == b"\xff\x00" or given.endswith(b"END"):
                    break
        await out.send_bytes(b"\x01" + b"out:" + " ".join(command).encode() + given)
        await out.send_bytes(b"\x02err")
        if command[:1] == ["hang"]:
            with contextlib.suppress(asyncio.CancelledError):
                await out.receive()
            self.left.set()
            return
        status = _EXIT_7 if command[:1] == ["fail"] else {"status": "Success"}
        await out.send_bytes(b"\x03" + json.dumps(status).encode())
        await out.close()

    async def _forward(self, request: web.BaseRequest, out: web.WebSocketResponse) -> None:
        """Say the port on both channels, as kubelets do, and send back upper case."""
        port = int(request.query["port"])
        for channel in (0, 1):
            await out.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        async for message in out:
            if message.type is WSMsgType.BINARY and message.data[0] == 0:
                await out.send_bytes(b"\x00" + message.data[1:].upper())
        self.left.set()


@contextlib.asynccontextmanager
async def kubelet_of(bench: Bench) -> AsyncIterator[FakeKubelet]:
    """Serve as node ``node-1``, on which pod ``web`` (container ``main``) is."""
    fake = FakeKubelet()
    runner = web.ServerRunner(web.Server(fake.handle, handler_cancellation=True))
    await runner.setup()
    door = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(
        runner, door, ssl_context=kubelet_pair(bench.server).server_context()
    ).start()
    status = {
        "addresses": [
            {"type": "Hostname", "address": "node-1"},
            {"type": "InternalIP", "address": "127.0.0.1"},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": door.getsockname()[1]}},
    }
    await bench.admin.create(NODE, {"metadata": {"name": "node-1"}, "status": status})
    await bench.admin.create(POD, pod(), "default")
    target = {"metadata": {"name": "web"}, "target": {"name": "node-1"}}
    await bench.admin.request("POST", POD.path("default", "web", "binding"), body=target)
    running = {"status": {"phase": "Running"}}
    await bench.admin.patch(POD, "web", "default", running, sub="status")
    try:
        yield fake
    finally:
        await runner.cleanup()
