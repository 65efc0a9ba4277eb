"""Commands and forwarded ports over SPDY, as a kube-apiserver opens them at its kubelets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from pytest_pgo_eks.local.kubelet.channels import CLOSE, RESIZE, STDERR, STDIN, STDOUT
from pytest_pgo_eks.local.kubelet.sessions import Streams
from pytest_pgo_eks.local.kubelet.spdy_streams import (
    SpdyChannels,
    SpdyForward,
    is_spdy,
    upgraded,
)
from pytest_pgo_eks.local.spdy import DICTIONARY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_TEST_S = 20.0


class Client:
    """A kube-apiserver's side of one upgraded connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()

    async def upgrade(self, protocol: str) -> str:
        self._writer.write(
            "POST /stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            f"X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        return head.decode()

    def open(self, stream: int, **headers: str) -> None:
        block = struct.pack(">I", len(headers))
        for pair in headers.items():
            for text in pair:
                block += struct.pack(">I", len(text)) + text.encode()
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        body = struct.pack(">IIBB", stream, 0, 0, 0) + packed
        self._writer.write(struct.pack(">HHB", 0x8003, 1, 0) + len(body).to_bytes(3, "big") + body)

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        head = struct.pack(">IB", stream, 1 if end else 0) + len(data).to_bytes(3, "big")
        self._writer.write(head + data)

    async def read_until_ended(self, *streams: int) -> None:
        while not self.ended >= set(streams):
            head = await self._reader.readexactly(8)
            body = await self._reader.readexactly(int.from_bytes(head[5:8], "big"))
            if head[0] & 0x80:
                continue
            stream = int.from_bytes(head[:4], "big")
            self.data[stream] = self.data.get(stream, b"") + body
            if head[4] & 1:
                self.ended.add(stream)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_post("/stream", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(_TEST_S):
            yield Client(reader, writer)
    finally:
        writer.close()
        await runner.cleanup()


def test_a_command_has_its_streams_its_input_ends_and_its_status_is_told() -> None:
    heard: list[tuple[int, bytes]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        assert is_spdy(request)
        link = await upgraded(request)
        channels = SpdyChannels(link)
        await channels.open(Streams(stdin=True, stdout=True, stderr=True, tty=False))
        async for channel, data in channels.received():
            heard.append((channel, data))
            if channel == CLOSE and data == bytes((STDIN,)):
                break
        assert await channels.send(STDOUT, b"o" * 200_000)
        assert await channels.send(STDERR, b"err")
        await channels.status(7)
        return link.response

    async def scenario() -> None:
        async with serving(handler) as client:
            head = await client.upgrade("v5.channel.k8s.io,v4.channel.k8s.io")
            assert head.startswith("HTTP/1.1 101 ")
            assert "v4.channel.k8s.io" in head
            for stream, kind in ((1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")):
                client.open(stream, streamType=kind)
            client.send(3, b"typed")
            client.send(3, b"", end=True)
            await client.read_until_ended(1, 5, 7)
        assert heard == [(STDIN, b"typed"), (CLOSE, bytes((STDIN,)))]
        assert client.data[5] == b"o" * 200_000
        assert client.data[7] == b"err"
        said = json.loads(client.data[1])
        assert said["reason"] == "NonZeroExitCode"
        assert said["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]

    asyncio.run(scenario())


def test_a_terminal_is_resized_and_has_one_output() -> None:
    heard: list[tuple[int, bytes]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        link = await upgraded(request)
        channels = SpdyChannels(link)
        await channels.open(Streams(stdin=False, stdout=True, stderr=True, tty=True))
        async for channel, data in channels.received():
            heard.append((channel, data))
            break
        await channels.status(0)
        return link.response

    async def scenario() -> None:
        async with serving(handler) as client:
            await client.upgrade("v4.channel.k8s.io")
            for stream, kind in ((1, "error"), (3, "stdout"), (5, "resize")):
                client.open(stream, streamType=kind)
            client.send(5, b'{"Width":80,"Height":24}')
            await client.read_until_ended(1, 3)
        assert heard == [(RESIZE, b'{"Width":80,"Height":24}')]
        assert json.loads(client.data[1])["status"] == "Success"

    asyncio.run(scenario())


def test_another_protocol_is_refused() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return (await upgraded(request)).response

    async def scenario() -> None:
        async with serving(handler) as client:
            assert (await client.upgrade("v1.channel.k8s.io")).startswith("HTTP/1.1 403 ")

    asyncio.run(scenario())


def test_a_client_that_goes_before_it_began_is_noticed() -> None:
    seen: list[str] = []
    told = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        link = await upgraded(request)
        try:
            await SpdyChannels(link).open(Streams(stdin=True, stdout=True, stderr=True, tty=False))
        except ConnectionError as error:
            seen.append(str(error))
            told.set()
        return link.response

    async def scenario() -> None:
        async with serving(handler) as client:
            await client.upgrade("v4.channel.k8s.io")
            client.open(1, streamType="error")
            client._writer.close()
            await told.wait()

    asyncio.run(scenario())
    assert seen == ["the client went away"]


def test_ports_are_forwarded_both_ways_and_what_fails_is_told() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Everything first, so that the client's end of sending has to arrive.
        writer.write((await reader.read()).upper())
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def connect(wanted: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            if wanted != 5432:
                raise OSError("nobody listens")
            return await asyncio.open_connection("127.0.0.1", port)

        async def handler(request: web.Request) -> web.StreamResponse:
            link = await upgraded(request, forward=True)
            await SpdyForward(link, connect).run()
            return link.response

        async with serving(handler) as client:
            await client.upgrade("portforward.k8s.io")
            for stream, number, request in ((1, "5432", "0"), (5, "81", "1")):
                client.open(stream, streamType="error", port=number, requestID=request)
                client.open(stream + 2, streamType="data", port=number, requestID=request)
            client.send(3, b"hello")
            client.send(3, b"", end=True)
            await client.read_until_ended(1, 3, 5, 7)
        assert client.data[3] == b"HELLO"
        assert client.data[1] == b""
        assert b"error forwarding port 81" in client.data[5]
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    async def connect(_port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise AssertionError("nobody may be asked")

    async def handler(request: web.Request) -> web.StreamResponse:
        link = await upgraded(request, forward=True)
        await SpdyForward(link, connect).run()
        return link.response

    async def scenario() -> None:
        async with serving(handler) as client:
            await client.upgrade("portforward.k8s.io")
            client.open(1, streamType="data", port=port, requestID="0")
            reset = await client._reader.readexactly(16)
            assert struct.unpack(">HH", reset[:4]) == (0x8003, 3)

    asyncio.run(scenario())
