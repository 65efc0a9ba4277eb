"""A way out for one purpose: reaching a kube-apiserver that runs on the host or beyond it.

The cluster's namespaces have no route to the host, and a socket belongs for life to the namespace
in which it was made. So a small process stays outside, connects whenever the supervisor asks it to,
and hands the connected socket in. It knows one address and ends with the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

_CONNECT_S = 10.0
_CHUNK = 1 << 16


def main(fd: int, host: str, port: int) -> None:
    """Serve until the other end is closed."""
    control = socket.socket(fileno=fd)
    while control.recv(1):
        try:
            made = socket.create_connection((host, port), _CONNECT_S)
        except OSError as error:
            control.send(f"!{error}".encode())
        else:
            with made:
                made.settimeout(None)
                socket.send_fds(control, [b"."], [made.fileno()])


class Gate:
    """The supervisor's end: connections to the one address, and a relay to it."""

    def __init__(self, fd: int) -> None:
        self._control = socket.socket(fileno=fd)
        self._control.setblocking(True)
        self._one_at_a_time = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()

    async def connect(self) -> socket.socket:
        """Return a connected socket that lives on the host's side.

        :raises OSError: nobody answered there, or the process outside is gone.
        """
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._ask)

    def _ask(self) -> socket.socket:
        self._control.send(b"c")
        said, fds, _, _ = socket.recv_fds(self._control, 1024, 1)
        if not fds:
            raise OSError(said[1:].decode("utf-8", "replace") or "the gate is closed")
        made = socket.socket(fileno=fds[0])
        made.setblocking(False)
        return made

    async def relay(self, listener: socket.socket) -> None:
        """Carry every connection to ``listener`` through."""
        self._server = await asyncio.start_server(self._carry, sock=listener)

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for task in tuple(self._relays):
            task.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        self._control.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._relays.add(task)
        try:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(sock=await self.connect())
                try:
                    # Either side ends the pair: HTTP over TLS knows no half-closed connection.
                    pumps = [
                        asyncio.ensure_future(pump(reader, far_writer)),
                        asyncio.ensure_future(pump(far_reader, writer)),
                    ]
                    try:
                        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for each in pumps:
                            each.cancel()
                        await asyncio.gather(*pumps, return_exceptions=True)
                finally:
                    far_writer.close()
        finally:
            self._relays.discard(task)
            writer.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until they end."""
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
