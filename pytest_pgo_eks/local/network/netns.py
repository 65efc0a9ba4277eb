"""Network namespaces: naming them, and working inside one from a thread.

``setns`` moves one *thread*, so every namespace that we work in has a thread of its own which moves
there once and stays. A socket made by that thread belongs to the namespace for life, whoever uses
it afterwards; a program started by it runs there.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_COMMAND_S = 20.0

P = ParamSpec("P")
R = TypeVar("R")
Socket = socket.socket

_libc = ctypes.CDLL(None, use_errno=True)


class NetworkCommandError(RuntimeError):
    """``ip`` or ``nft`` refused a batch; the message holds what it said and the batch."""


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter(netns: Path) -> None:
    """Move the calling thread into a network namespace."""
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Python has os.setns from 3.12 on.
        _check(_libc.setns(fd, _CLONE_NEWNET), f"setns {netns}")
    finally:
        os.close(fd)


def create(netns: Path, inside: Callable[[], None] | None = None) -> None:
    """Make a new network namespace and bind it to a file, as ``ip netns add`` does.

    ``inside`` then runs in it, on the thread that made it. Nothing is left when either fails.
    """
    netns.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(netns, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def work() -> None:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare network")
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
        target = os.fsencode(netns)
        _check(_libc.mount(source, target, None, _MS_BIND, None), f"bind {netns}")
        if inside:
            inside()

    try:
        _in_fresh_thread(work)
    except BaseException:
        remove(netns)
        raise


def remove(netns: Path) -> None:
    """Forget the name; the namespace ends with the last process or socket in it."""
    if netns.exists():
        _libc.umount2(os.fsencode(netns), _MNT_DETACH)
        netns.unlink(missing_ok=True)


def _in_fresh_thread(work: Callable[[], None]) -> None:
    """Run in a thread that ends afterwards, because it may be left in another namespace."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            failures.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


async def visit(netns: Path | None, work: Callable[..., Any], *args: Any) -> Any:
    """Run a function once inside a namespace; None is the one we are in."""
    result: list[Any] = []

    def inside() -> None:
        if netns:
            enter(netns)
        result.append(work(*args))

    await asyncio.to_thread(_in_fresh_thread, inside)
    return result[0]


class Place:
    """A thread that lives in one network namespace. ``netns`` None is the one we are in."""

    def __init__(self, name: str, netns: Path | None) -> None:
        self.name = name
        self.netns = netns
        self._thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix=f"netns-{name}", initializer=self._arrive
        )

    def _arrive(self) -> None:
        if self.netns:
            enter(self.netns)

    def submit(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        return self._thread.submit(work, *args, **kwargs)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def socket(
        self,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        proto: int = 0,
    ) -> Socket:
        """Make a socket in the namespace (about 0.1 ms)."""
        made: Socket = self.submit(socket.socket, family, kind, proto).result()
        return made

    def listener(self, ip: str, port: int) -> Socket:
        """Open a listening TCP socket in the namespace."""
        made = self.socket()
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setblocking(False)
            made.bind((ip, port))
            made.listen(128)
        except BaseException:
            made.close()
            raise
        return made


def run(command: Sequence[str], batch: str) -> str:
    """Run a program of ours in the calling thread's namespace, with ``batch`` on its stdin.

    :raises NetworkCommandError: it failed, or took longer than 20 s.
    """
    try:
        done = subprocess.run(
            command, input=batch, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkCommandError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise NetworkCommandError(f"{' '.join(command)}: {said}\n{batch}")
    return done.stdout


def ip_batch(lines: Sequence[str]) -> str:
    """Run ``ip`` once for all the lines."""
    return run(("ip", "-batch", "-"), "\n".join(lines) + "\n")


def nft(text: str, *, json: bool = False) -> str:
    """Run one nftables transaction: all of it or nothing."""
    return run(("nft", *(("-j",) if json else ()), "-f", "-"), text)


def write_sysctl(settings: dict[str, Any]) -> None:
    """Write ``net.…`` settings of the calling thread's namespace; absent ones are skipped."""
    for name, value in settings.items():
        path = Path("/proc/sys") / name.replace(".", "/")
        if path.exists():
            path.write_text(str(value))
