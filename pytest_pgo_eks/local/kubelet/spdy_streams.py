"""exec, attach and port-forward over SPDY/3.1, as a kube-apiserver asks its kubelets for them.

Up to 1.35 a kube-apiserver takes a WebSocket of ``v5.channel.k8s.io`` from its client and opens
SPDY streams, named in their headers, to the kubelet; older protocols it passes through as they are.
The stand-in's own API server needs none of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from pytest_pgo_eks.local.kubelet.channels import (
    CLOSE,
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    status,
)
from pytest_pgo_eks.local.kubelet.sessions import Streams
from pytest_pgo_eks.local.spdy import Connection, Event

_COMMAND, _FORWARD = "v4.channel.k8s.io", "portforward.k8s.io"
_PROTOCOL_HEADER = "X-Stream-Protocol-Version"
_STREAMS_S = 30.0
_CHUNK = 32 * 1024
_CHANNELS = {
    "error": ERROR,
    "stdin": STDIN,
    "stdout": STDOUT,
    "stderr": STDERR,
    "resize": RESIZE,
}
Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def is_spdy(request: web.Request) -> bool:
    """Say whether a request wants its connection upgraded to SPDY."""
    return request.headers.get("Upgrade", "").lower() == "spdy/3.1"


class SpdyLink:
    """One upgraded connection: events come in, frames go out."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self.response = response
        self._spdy = Connection()
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()

    # aiohttp hands over what arrives after the upgrade, and the end of it.

    def feed_data(self, data: bytes, *_: Any) -> tuple[bool, bytes]:
        try:
            for event in self._spdy.receive(data):
                self.events.put_nowait(event)
        except ValueError:
            self.feed_eof()
            return True, b""
        return False, b""

    def feed_eof(self) -> None:
        self.events.put_nowait(None)

    def set_exception(self, *_: Any) -> None:
        self.feed_eof()

    def accept(self, stream: int) -> None:
        self._spdy.accept(stream)

    def refuse(self, stream: int) -> None:
        self._spdy.reset(stream)

    def end(self, stream: int) -> None:
        self._spdy.end(stream)

    async def send(self, stream: int, data: bytes) -> bool:
        """Send; say whether the peer is still there."""
        self._spdy.send(stream, data)
        return await self.flush()

    async def flush(self) -> bool:
        transport = self._request.transport
        data = self._spdy.drain()
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        try:
            await self._request.writer.drain()
        except ConnectionError:
            return False
        return True


async def upgraded(request: web.Request, *, forward: bool = False) -> SpdyLink:
    """Answer an upgrade request; from here on the connection speaks SPDY.

    :raises web.HTTPForbidden: the client speaks no protocol that is known here.
    """
    wanted = _FORWARD if forward else _COMMAND
    offered = {
        one.strip()
        for value in request.headers.getall(_PROTOCOL_HEADER, [])
        for one in value.split(",")
    }
    if wanted not in offered:
        raise web.HTTPForbidden(text=f"{wanted} is needed, {sorted(offered)} were offered")
    response = web.StreamResponse(
        status=101,
        headers={"Connection": "Upgrade", "Upgrade": "SPDY/3.1", _PROTOCOL_HEADER: wanted},
    )
    response.force_close()
    link = SpdyLink(request, response)
    request.protocol.set_parser(link)  # type: ignore[arg-type]  # typed for WebSockets alone
    await response.prepare(request)
    return link


class SpdyChannels:
    """The channels of one command, each a stream of its own."""

    def __init__(self, link: SpdyLink) -> None:
        self._link = link
        self._streams: dict[int, int] = {}
        self._channels: dict[int, int] = {}

    async def open(self, wanted: Streams) -> None:
        """Wait until the client has opened every stream that it announced.

        :raises ConnectionError: it went away, or took more than half a minute.
        """
        expected = {ERROR}
        expected |= {STDIN} if wanted.stdin else set()
        expected |= {STDOUT} if wanted.stdout else set()
        expected |= {STDERR} if wanted.stderr and not wanted.tty else set()
        expected |= {RESIZE} if wanted.tty else set()
        try:
            async with asyncio.timeout(_STREAMS_S):
                while not expected <= self._streams.keys():
                    event = await self._link.events.get()
                    if event is None:
                        raise ConnectionError("the client went away")
                    if event.type == "open":
                        await self._opened(event)
        except TimeoutError:
            raise ConnectionError("the client did not open its streams") from None

    async def _opened(self, event: Event) -> None:
        channel = _CHANNELS.get(event.headers.get("streamtype", ""))
        if channel is None:
            self._link.refuse(event.stream)
        else:
            self._streams[channel] = event.stream
            self._channels[event.stream] = channel
            self._link.accept(event.stream)
        await self._link.flush()

    async def send(self, channel: int, data: bytes) -> bool:
        """Send; say whether the peer is still there."""
        stream = self._streams.get(channel)
        return stream is not None and await self._link.send(stream, data)

    async def status(self, exit_code: int, problem: str = "") -> None:
        """Say on the error stream how it ended, and end every stream."""
        # The streams end one by one: a client that saw the status waits for the output's end.
        for channel in (STDOUT, STDERR):
            if channel in self._streams:
                self._link.end(self._streams[channel])
        await self.send(ERROR, json.dumps(status(exit_code, problem)).encode())
        self._link.end(self._streams[ERROR])
        await self._link.flush()

    async def received(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (channel, data) until the peer closes; (CLOSE, channel) when it ends a stream."""
        while (event := await self._link.events.get()) is not None:
            channel = self._channels.get(event.stream)
            if channel is None:
                continue
            if event.type == "data":
                yield channel, event.data
            elif event.type in ("end", "reset"):
                yield CLOSE, bytes((channel,))


class SpdyForward:
    """Forwarded connections, each a pair of streams with the same ``requestID``."""

    def __init__(self, link: SpdyLink, connect: Callable[[int], Awaitable[Link]]) -> None:
        self._link = link
        self._connect = connect
        self._halves: dict[str, dict[str, int]] = {}
        self._inputs: dict[int, asyncio.Queue[bytes | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Forward until the client goes away."""
        try:
            while (event := await self._link.events.get()) is not None:
                if event.type == "open":
                    await self._opened(event)
                elif event.stream in self._inputs:
                    data = event.data if event.type == "data" else None
                    self._inputs[event.stream].put_nowait(data)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _opened(self, event: Event) -> None:
        port = event.headers.get("port", "")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            self._link.refuse(event.stream)
            await self._link.flush()
            return
        self._link.accept(event.stream)
        await self._link.flush()
        request = event.headers.get("requestid", "")
        halves = self._halves.setdefault(request, {})
        halves[event.headers.get("streamtype", "")] = event.stream
        if event.headers.get("streamtype") == "data":
            self._inputs[event.stream] = asyncio.Queue()
        if halves.keys() >= {"error", "data"}:
            del self._halves[request]
            task = asyncio.create_task(self._forward(int(port), halves["error"], halves["data"]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, port: int, error: int, data: int) -> None:
        try:
            reader, writer = await self._connect(port)
        except (OSError, TimeoutError) as problem:
            said = f"error forwarding port {port}: connect to 127.0.0.1:{port} failed: {problem}"
            await self._link.send(error, said.encode())
        else:
            upstream = asyncio.create_task(self._upstream(data, writer))
            try:
                with contextlib.suppress(ConnectionError):
                    while chunk := await reader.read(_CHUNK):
                        if not await self._link.send(data, chunk):
                            break
            finally:
                upstream.cancel()
                await asyncio.gather(upstream, return_exceptions=True)
                writer.close()
        self._inputs.pop(data, None)
        self._link.end(data)
        self._link.end(error)
        await self._link.flush()

    async def _upstream(self, data: int, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._inputs[data].get():
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
