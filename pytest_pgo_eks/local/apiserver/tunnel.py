"""``kubectl port-forward``: SPDY streams inside a WebSocket, a kubelet WebSocket for each pair.

kubectl (1.31, or 1.30 when asked) opens for every connection an error stream and a data stream with the same
``requestID``. The kubelet speaks one WebSocket per port: channel 0 is the data, channel 1 the error,
and the first message of each is the port number.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from pytest_pgo_eks.local.spdy import Connection, Event

# How long a pod may answer a client that has said all it wants to say. kubectl tells a client that
# has gone and one that still listens alike; PostgreSQL ends by itself when psql says goodbye.
_ANSWER_S = 2.0
PROTOCOL = "SPDY/3.1+portforward.k8s.io"
Dial = Callable[[int], Awaitable[aiohttp.ClientWebSocketResponse]]


@dataclass
class _Pair:
    """One forwarded connection: its two streams, and what the client has sent so far.

    In ``sent``, None is the client's half-close and no bytes are its reset.
    """

    port: int
    error: int = 0
    data: int = 0
    sent: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None


class Tunnel:
    """Serves one WebSocket of kubectl. ``dial`` connects to a port of the pod through its kubelet."""

    def __init__(self, client: web.WebSocketResponse, dial: Dial) -> None:
        self._client = client
        self._dial = dial
        self._spdy = Connection()
        self._pairs: dict[str, _Pair] = {}
        self._by_stream: dict[int, _Pair] = {}
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Forward until kubectl goes away."""
        try:
            async for message in self._client:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    continue
                for event in self._spdy.receive(message.data):
                    self._take(event)
                await self._flush()
        except ValueError as error:
            await self._client.close(code=1002, message=str(error).encode())
        finally:
            tasks = [pair.task for pair in self._pairs.values() if pair.task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, event: Event) -> None:
        if event.type == "open":
            self._opened(event)
            return
        pair = self._by_stream.get(event.stream)
        if pair is None or event.stream != pair.data:
            return  # of the error stream there is nothing to hear
        if event.type == "end":
            pair.sent.put_nowait(None)
        else:
            pair.sent.put_nowait(event.data)  # of a reset: nothing

    def _opened(self, event: Event) -> None:
        """Book a stream; the second one of a pair begins the connection."""
        try:
            port = int(event.headers.get("port", ""))
        except ValueError:
            self._spdy.reset(event.stream)
            return
        request = event.headers.get("requestid", "")
        pair = self._pairs.setdefault(request, _Pair(port))
        if event.headers.get("streamtype") == "error":
            pair.error = event.stream
        else:
            pair.data = event.stream
        self._by_stream[event.stream] = pair
        self._spdy.accept(event.stream)
        if pair.error and pair.data:
            pair.task = asyncio.create_task(self._forward(request, pair))

    async def _forward(self, request: str, pair: _Pair) -> None:
        said = ""
        try:
            kubelet = await self._dial(pair.port)
            try:
                said = await self._copy(pair, kubelet)
            finally:
                await kubelet.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = f"error forwarding port {pair.port} to the pod: {error}"
        if said:
            self._spdy.send(pair.error, said.encode())
        self._spdy.end(pair.error)
        self._spdy.end(pair.data)
        for stream in (pair.error, pair.data):
            self._by_stream.pop(stream, None)
        self._pairs.pop(request, None)
        await self._flush()

    async def _copy(self, pair: _Pair, kubelet: aiohttp.ClientWebSocketResponse) -> str:
        """Copy both ways until the pod's side or kubectl ends; return what the kubelet complains."""
        upstream = asyncio.create_task(self._send(pair, kubelet))
        said, seen = b"", set[int]()
        try:
            async for message in kubelet:
                if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                    continue
                channel, data = message.data[0], message.data[1:]
                if channel not in seen:
                    seen.add(channel)  # the port number
                elif channel == 0:
                    self._spdy.send(pair.data, data)
                    await self._flush()
                else:
                    said += data
        finally:
            upstream.cancel()
            await asyncio.gather(upstream, return_exceptions=True)
        return said.decode("utf-8", "replace")

    @staticmethod
    async def _send(pair: _Pair, kubelet: aiohttp.ClientWebSocketResponse) -> None:
        while data := await pair.sent.get():
            await kubelet.send_bytes(b"\x00" + data)
        if data is None:
            # The client has half-closed: the kubelet's WebSocket cannot, and an answer may come.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_S):
                    while await pair.sent.get():
                        pass
        await kubelet.close()

    async def _flush(self) -> None:
        async with self._sending:
            data = self._spdy.drain()
            if data and not self._client.closed:
                await self._client.send_bytes(data)
