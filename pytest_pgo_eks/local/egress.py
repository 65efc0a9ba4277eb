"""The way in for a kube-apiserver outside: to the kubelets' ports, and nowhere else.

A kube-apiserver asks kubelets for exec, logs and port-forward. Ours live in namespaces that nothing
on the host can see, but a UNIX socket is a file and belongs to no network. Kubernetes' egress selector
speaks HTTP CONNECT on one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container
from pathlib import Path

from pytest_pgo_eks.local.gate import pump

_CONNECT_S = 10.0
_HEAD_LIMIT = 8192


class Egress:
    """Serves CONNECT at ``path`` for the addresses (``host:port``) in ``allowed``."""

    def __init__(self, path: Path, allowed: Container[str]) -> None:
        self._path = path
        self._allowed = allowed
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; a socket that a dead cluster left at the path is replaced.

        :raises OSError: the path cannot be used.
        """
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, str(self._path), limit=_HEAD_LIMIT
        )
        self._path.chmod(0o600)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        for task in tuple(self._tunnels):
            task.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tunnels.add(task)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                await self._tunnel(reader, writer)
        finally:
            self._tunnels.discard(task)
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, *_ = [*head.decode("latin-1").split(" ", 2), "", ""]
        if method != "CONNECT" or target not in self._allowed:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = target.rpartition(":")
        try:
            async with asyncio.timeout(_CONNECT_S):
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except (OSError, TimeoutError):
            writer.write(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        pumps = [
            asyncio.ensure_future(pump(reader, far_writer)),
            asyncio.ensure_future(pump(far_reader, writer)),
        ]
        try:
            # Either side ends the pair: all that runs through here is TLS.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            far_writer.close()
