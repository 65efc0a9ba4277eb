"""Processes without a thread each: their end through a pidfd, their output through the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_CHUNK = 64 * 1024
_SIGNALS = 128


class Process:
    """A child of ours; ``ended`` resolves to its exit code, 128 + N for signal N."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self.popen = popen
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._fd = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._fd, self._collect)

    def _collect(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        code = self.popen.wait()
        if not self.ended.done():
            self.ended.set_result(_SIGNALS - code if code < 0 else code)

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)


def spawn(
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    session: bool = True,
) -> Process:
    """Start a program at once, in the namespaces in which the calling thread stands."""
    popen = subprocess.Popen(
        args,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        cwd="/",
        # A container's is 022 whatever ours is.
        umask=0o022,
        start_new_session=session,
    )
    return Process(popen)


class Pump:
    """Reads a descriptor whenever something is there, and closes it at its end."""

    def __init__(self, fd: int, take: Callable[[bytes], None]) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._take = take
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # a terminal whose other side has gone says EIO
            data = b""
        if data:
            self._take(data)
        else:
            self.close()

    def close(self) -> None:
        """Stop reading; idempotent."""
        if not self.ended.done():
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.ended.set_result(None)


async def read_all(fd: int) -> bytes:
    """Read a pipe of ours to its end."""
    parts: list[bytes] = []
    pump = Pump(fd, parts.append)
    try:
        await pump.ended
    finally:
        pump.close()
    return b"".join(parts)


async def write_all(fd: int, data: bytes) -> None:
    """Write to a pipe or terminal without blocking the loop.

    :raises OSError: nobody reads any more.
    """
    os.set_blocking(fd, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _writable(fd)


def settle(future: asyncio.Future[None]) -> None:
    """Resolve a future that waits for a descriptor; the loop may call it more than once."""
    if not future.done():
        future.set_result(None)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(fd, settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def members(mount_namespace: int) -> list[int]:
    """Return the processes in a mount namespace, by its inode number: a container's processes.

    One look costs about 10 µs a process of this host's part that we see.
    """
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                link = os.readlink(f"/proc/{entry.name}/ns/mnt")  # noqa: PTH115 - a hot loop
                if link == f"mnt:[{mount_namespace}]":
                    found.append(int(entry.name))
    return found


def kill_each(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def kill_container(mount_namespace: int, *, within_s: float = 5.0) -> list[int]:
    """Kill every process of a container, also those born meanwhile; return those that would not.

    A process in uninterruptible sleep is the only one that SIGKILL does not end at once.
    """
    deadline = time.monotonic() + within_s
    pause_s = 0.001
    while left := [pid for pid in members(mount_namespace) if not _is_zombie(pid)]:
        if time.monotonic() > deadline:
            return left
        kill_each(left)
        await asyncio.sleep(pause_s)
        pause_s = min(0.05, pause_s * 2)
    return []


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
