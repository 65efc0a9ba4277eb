"""TLS sockets and HTTP connections, opened and closed without a trace."""

from __future__ import annotations

import asyncio
import asyncio.trsock
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from pytest_pgo_eks.local.apiserver.wire import BODY_LIMIT

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_HANDSHAKE_S = 10.0
# How long a client may take to answer the end of TLS; asyncio's own 30 s outlive a whole test.
_SHUTDOWN_S = 1.0
_KEEPALIVE_S = 3600.0


class _Connections(web.Server):
    """Remembers the sockets, closing ones included, so that the end can be quick."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(
            handler,
            request_factory=_request,
            # A client that goes away ends its watch now, not at the next event.
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_S,
        )
        # By handler, until they are gone. Sockets, because a TLS transport that was closed twice
        # (aiohttp does that) can no longer be aborted and waits for its client to say goodbye.
        self.sockets: dict[Any, asyncio.trsock.TransportSocket] = {}

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        self.sockets[handler] = transport.get_extra_info("socket")
        super().connection_made(handler, transport)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        self.sockets.pop(handler, None)
        super().connection_lost(handler, exc)

    async def cut(self) -> None:
        """End what is still open, and see it gone."""
        for one in list(self.sockets.values()):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SHUTDOWN_S):
                while self.sockets:  # noqa: ASYNC110 - bounded; nobody announces a lost socket
                    await asyncio.sleep(0.001)


class Listener:
    """Serves a handler on listening sockets."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._connections: _Connections | None = None
        self._servers: list[asyncio.Server] = []

    async def open(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext) -> None:
        self._connections = _Connections(self._handler)
        loop = asyncio.get_running_loop()
        for one in sockets:
            server = await loop.create_server(
                self._connections,
                sock=one,
                ssl=tls,
                backlog=512,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
            self._servers.append(server)

    async def close(self) -> None:
        """Close the sockets, then cut every connection."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._connections is None:
            return
        self._connections.pre_shutdown()
        await self._connections.shutdown(_SHUTDOWN_S)
        await self._connections.cut()
        self._connections = None


def _request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    """Make a request that may be as large as a CustomResourceDefinition (aiohttp: 1 MiB)."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=BODY_LIMIT
    )
