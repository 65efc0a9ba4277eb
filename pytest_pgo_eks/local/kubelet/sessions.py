"""exec, attach and port-forward: bytes between a client's streams and a container."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_pgo_eks.local.kubelet import execs
from pytest_pgo_eks.local.kubelet.channels import CLOSE, RESIZE, STDERR, STDIN, STDOUT
from pytest_pgo_eks.local.kubelet.containers import Container
from pytest_pgo_eks.local.kubelet.namespaces import Home
from pytest_pgo_eks.local.kubelet.processes import settle, write_all

_CHUNK = 32 * 1024
_DRAIN_S = 0.5
_CONNECT_S = 10.0
_TERMINAL = {"TERM": "xterm"}
# Not in Python's termios: unlock a terminal's other side, and open it without its name.
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441


class Link(Protocol):
    """Numbered streams to one client, whatever carries them."""

    async def send(self, channel: int, data: bytes) -> bool: ...

    async def status(self, exit_code: int, problem: str = "") -> None: ...

    def received(self) -> AsyncIterator[tuple[int, bytes]]: ...


@dataclass(frozen=True)
class Streams:
    """Which streams the client asked for."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


def _new_terminal(pid: int) -> tuple[int, int]:
    """Return both sides of a terminal of the container's own, which ``tty`` there can name."""
    try:
        main = os.open(f"/proc/{pid}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return os.openpty()
    try:
        fcntl.ioctl(main, _TIOCSPTLCK, struct.pack("i", 0))
        return main, fcntl.ioctl(main, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        os.close(main)
        return os.openpty()


class _Ends:
    """The two sides of a command's streams: pipes, or a terminal that is all three."""

    def __init__(self, wanted: Streams, container: Container) -> None:
        self.stdin: int | None = None
        self.outputs: dict[int, int] = {}
        self.theirs: set[int] = set()
        if wanted.tty:
            main, terminal = _new_terminal(container.main_pid)
            self.outputs[STDOUT] = main
            self.stdin = os.dup(main) if wanted.stdin else None
            self.child = (terminal, terminal, terminal)
        else:
            self.child = (
                self._input(wanted=wanted.stdin),
                self._output(STDOUT, wanted=wanted.stdout),
                self._output(STDERR, wanted=wanted.stderr),
            )
        self.theirs.update(self.child)

    def _input(self, *, wanted: bool) -> int:
        if not wanted:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        read, self.stdin = os.pipe()
        return read

    def _output(self, channel: int, *, wanted: bool) -> int:
        if not wanted:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.outputs[channel], write = os.pipe()
        return write

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)
        self.theirs.clear()

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def close(self) -> None:
        self.close_theirs()
        self.close_stdin()
        for fd in self.outputs.values():
            os.close(fd)
        self.outputs.clear()


async def execute(
    home: Home, container: Container, argv: Sequence[str], wanted: Streams, channels: Link
) -> None:
    """Run a command for a client; a client that goes away leaves it closed streams."""
    ends = _Ends(wanted, container)
    try:
        env = _TERMINAL if wanted.tty else None
        stdin, stdout, stderr = ends.child
        process = execs.start_exec(
            home,
            container,
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            tty=wanted.tty,
            env=env,
        )
    except (execs.NotRunning, OSError) as error:
        ends.close()
        await channels.status(0, f"error executing command in container: {error}")
        return
    ends.close_theirs()
    copies = [
        asyncio.create_task(_copy_out(fd, channel, channels))
        for channel, fd in ends.outputs.items()
    ]
    listening = asyncio.create_task(_copy_in(channels, ends))
    try:
        waited: list[asyncio.Future[Any]] = [process.ended, listening]
        done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if process.ended not in done:
            return
        # What the command wrote is in the pipes; a child of its that lives on may hold them open.
        await asyncio.wait(copies, timeout=_DRAIN_S) if copies else None
        await channels.status(process.ended.result())
    finally:
        for task in (*copies, listening):
            task.cancel()
        await asyncio.gather(*copies, listening, return_exceptions=True)
        ends.close()


async def attach(container: Container, wanted: Streams, channels: Link) -> None:
    """Follow a running container's output, and write to its input if it has one."""
    queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

    def heard(stream: str, data: bytes) -> None:
        channel = STDERR if stream == "stderr" else STDOUT
        if wanted.stderr if channel == STDERR else wanted.stdout:
            queue.put_nowait((channel, data))

    async def tell() -> None:
        while await channels.send(*await queue.get()):
            pass

    container.listeners.add(heard)
    tasks = [
        asyncio.create_task(tell()),
        asyncio.create_task(_attached_input(container, wanted, channels)),
    ]
    waited: list[asyncio.Future[Any]] = [container.ended, *tasks]
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if container.ended.done():
            while not queue.empty():
                await channels.send(*queue.get_nowait())
            await channels.status(0)
    finally:
        container.listeners.discard(heard)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _attached_input(container: Container, wanted: Streams, channels: Link) -> None:
    async for channel, data in channels.received():
        if channel == STDIN and wanted.stdin:
            container.write_stdin(data)
        elif channel == RESIZE and container.stdin is not None:
            _resize(container.stdin, data)
        elif channel == CLOSE and data[:1] == bytes((STDIN,)) and _has_input(container, wanted):
            container.close_stdin()


def _has_input(container: Container, wanted: Streams) -> bool:
    """Say whether this client may end the container's input; a terminal's it may not."""
    return wanted.stdin and not container.plan.tty


async def forward(home: Home, net: int, ports: Sequence[int], channels: Link) -> None:
    """Forward to ports of the pod's own 127.0.0.1: port N uses channels 2N and 2N + 1.

    Each channel first says its port in two bytes, as the Python client and the kubelet agreed.
    """
    links: dict[int, asyncio.StreamWriter] = {}
    copies: list[asyncio.Task[None]] = []
    for index, port in enumerate(ports):
        announce = struct.pack("<H", port)
        await channels.send(2 * index, announce)
        await channels.send(2 * index + 1, announce)
        try:
            reader, links[2 * index] = await connect(home, net, port)
        except (OSError, TimeoutError) as error:
            said = f"error forwarding port {port}: connect to 127.0.0.1:{port} failed: {error}"
            await channels.send(2 * index + 1, said.encode())
        else:
            copies.append(asyncio.create_task(_copy_link(reader, 2 * index, channels)))

    async def listen() -> None:
        async for channel, data in channels.received():
            link = links.get(channel)
            if link and not link.is_closing():
                link.write(data)
                with contextlib.suppress(ConnectionError):
                    await link.drain()

    listening = asyncio.create_task(listen())
    try:
        if copies:
            everything = asyncio.gather(*copies)
            await asyncio.wait((everything, listening), return_when=asyncio.FIRST_COMPLETED)
            everything.cancel()
    finally:
        for task in (*copies, listening):
            task.cancel()
        await asyncio.gather(*copies, listening, return_exceptions=True)
        for link in links.values():
            link.close()


async def connect(
    home: Home, net: int, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a port of the pod's own 127.0.0.1.

    :raises OSError: nobody listens there, or nobody answered in time.
    """
    with home.visiting({"net": net}):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        async with asyncio.timeout(_CONNECT_S):
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        return await asyncio.open_connection(sock=made)
    except BaseException:
        made.close()
        raise


async def _copy_link(reader: asyncio.StreamReader, channel: int, channels: Link) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            if not await channels.send(channel, data):
                return


async def _copy_out(fd: int, channel: int, channels: Link) -> None:
    while data := await _read(fd):
        if not await channels.send(channel, data):
            return


async def _copy_in(channels: Link, ends: _Ends) -> None:
    """Pass on what the client sends until it goes away."""
    async for channel, data in channels.received():
        if channel == STDIN and ends.stdin is not None:
            try:
                await write_all(ends.stdin, data)
            except OSError:
                # The command does not read any more; it may still be writing.
                ends.close_stdin()
        elif channel == RESIZE and STDOUT in ends.outputs:
            _resize(ends.outputs[STDOUT], data)
        elif channel == CLOSE and data[:1] == bytes((STDIN,)):
            ends.close_stdin()


async def _read(fd: int) -> bytes:
    """Read what is there, waiting for the first of it; empty at the end."""
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(fd, settle, ready)
            try:
                await ready
            finally:
                loop.remove_reader(fd)
        except OSError:  # the other side of a terminal has gone
            return b""


def _resize(fd: int, data: bytes) -> None:
    try:
        size = json.loads(data)
        packed = struct.pack("HHHH", int(size["Height"]), int(size["Width"]), 0, 0)
        fcntl.ioctl(fd, termios.TIOCSWINSZ, packed)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return
