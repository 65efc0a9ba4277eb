"""A TCP proxy in front of PostgreSQL: records what begins each connection, injects known outages.

It runs in a thread with a loop of its own, on the same monotonic clock as everything else. With a
certificate it ends TLS itself, so that it sees what begins *inside* an encrypted connection too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from typing import Literal

SSL_REQUEST, CANCEL_REQUEST, PROTOCOL_3 = 80877103, 80877102, 196608
Mode = Literal["pass", "refuse", "blackhole"]


class Proxy:
    """``codes`` are the codes of all first packets; ``outages`` what was injected, [from, to) in ns."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.codes: list[int] = []
        self.outages: list[tuple[int, int]] = []
        self.port = 0
        self._target = port
        self._tls = tls
        self._mode: Mode = "pass"
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def set_mode(self, mode: Mode) -> int:
        """Switch and return the moment (ns): an outage begins before the first socket is touched
        and ends when the last obstacle is gone."""
        return asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(10)

    async def _listen(self) -> None:
        self._passing.set()
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, reuse_address=True, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _set(self, mode: Mode) -> int:
        self._mode = mode
        began = time.monotonic_ns()
        if mode == "refuse":
            assert self._server is not None
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
        elif mode == "blackhole":
            self._passing.clear()
        else:
            if self._server is not None and not self._server.is_serving():
                await self._listen()
            self._passing.set()
            return time.monotonic_ns()
        return began

    def outage(self, mode: Mode, length_s: float, pause: threading.Event) -> None:
        """Inject one outage of ``mode`` and note its truth."""
        began = self.set_mode(mode)
        pause.wait(length_s)
        self.outages.append((began, self.set_mode("pass")))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            if self._mode == "refuse":
                return  # accepted by the kernel before the door was closed
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._open.discard(writer)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "blackhole":
            await self._starve()
        head = await reader.readexactly(8)
        length, code = struct.unpack(">ii", head)
        self.codes.append(code)
        if code == SSL_REQUEST and self._tls is not None:
            writer.write(b"S")
            await writer.start_tls(self._tls)
            head = await reader.readexactly(8)
            length, code = struct.unpack(">ii", head)
            self.codes.append(code)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._open.add(server_writer)
        try:
            if writer.transport.is_closing():
                return
            server_writer.write(head + await reader.readexactly(length - 8))
            there = asyncio.create_task(self._pump(reader, server_writer, writer))
            back = asyncio.create_task(self._pump(server_reader, writer, writer))
            try:
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                there.cancel()
                back.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
        finally:
            self._open.discard(server_writer)
            server_writer.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        while data := await source.read(1 << 16):
            if not self._passing.is_set():
                await self._starve()
            if client.transport.is_closing():
                return
            sink.write(data)

    async def _starve(self) -> None:
        """Swallow: nothing comes through any more, and afterwards the connection is dead."""
        await self._passing.wait()
        raise ConnectionResetError("starved")


@contextlib.contextmanager
def proxy(port: int, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    running = Proxy(port, tls)
    running.start()
    try:
        yield running
    finally:
        running.stop()
