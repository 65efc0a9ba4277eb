"""Inside the namespaces: one process, one event loop, the whole cluster but its pods.

This module is the process's life: from the launcher's order to the end, however it comes. What the
cluster is made of is in :mod:`pytest_pgo_eks.local.assembly`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local.state import StateDir, forget

_log = logging.getLogger("supervisor")

_STOP_S = 10.0
_FILES = 65536
_LOOK_S = 2.0
_MS_PRIVATE_REC = 0x40000 | 0x4000


class Broken(RuntimeError):
    """A part of the cluster ended by itself, or did not come up. The message says which."""


@dataclass(frozen=True)
class Order:
    """What the launcher asks for (``launch.Request``), with the descriptors it passed."""

    name: str
    state_dir: str
    lock: int
    report: int
    door: int
    owner: int | None
    operator: bool
    operator_version: str | None
    postgres_version: int | None
    assembly: str
    # With an API server that is not ours: the administrator's file, and the way to the server.
    kubeconfig: str | None = None
    egress: str | None = None
    gate: int | None = None


class Report:
    """Tells the launcher how far we are; says when the launcher went away too early."""

    def __init__(self, fd: int) -> None:
        self._socket: socket.socket | None = socket.socket(fileno=fd)
        self._socket.setblocking(False)

    def _send(self, **message: Any) -> None:
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.sendall(json.dumps(message).encode() + b"\n")

    def say(self, line: str) -> None:
        _log.info("%s", line)
        self._send(say=line)

    def problem(self, line: str) -> None:
        self._send(problem=line)

    def ready(self, answer: dict[str, Any]) -> None:
        self._send(ready=answer)

    async def launcher_gone(self) -> None:
        """Return when the launcher ends before we are ready."""
        loop = asyncio.get_running_loop()
        while self._socket and await loop.sock_recv(self._socket, 64):
            pass

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


@dataclass
class Cluster:
    """The running parts, in the order in which they started."""

    order: Order
    state: StateDir
    report: Report
    door: socket.socket
    began: float = field(default_factory=time.monotonic)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    broken: asyncio.Event = field(default_factory=asyncio.Event)
    cause: BaseException | None = None

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a part that must not end before the cluster does."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self.tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.cause = task.exception() or Broken(f"{task.get_name()} ended by itself")
            _log.critical("%s ended", task.get_name(), exc_info=self.cause)
            self.broken.set()

    def ready(self, answer: dict[str, Any]) -> None:
        """Say that everything serves; ``answer`` is what ``up --json`` prints."""
        self.report.say(f"ready after {time.monotonic() - self.began:.2f} s")
        self.state.write_ready(answer)
        self.report.ready(answer)

    @asynccontextmanager
    async def phase(self, title: str) -> AsyncIterator[None]:
        began = time.monotonic()
        yield
        self.report.say(f"{title}: {time.monotonic() - began:.2f} s")


def main(order: str) -> int:
    """Run the cluster until it is told to stop; return the exit status."""
    given = Order(**json.loads(order))
    _keep_to_ourselves(given)
    logging.basicConfig(
        level=os.environ.get("PGO_LOCAL_LOG", "INFO"),
        format="%(asctime)s.%(msecs)03d %(levelname).1s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    state = StateDir(Path(given.state_dir))
    report = Report(given.report)
    try:
        remove = asyncio.run(_run(given, state, report))
    except Exception as error:  # noqa: BLE001 - the last one to say what happened
        _log.critical("the cluster broke", exc_info=error)
        if isinstance(error, Broken):
            report.problem(str(error))
        else:
            report.problem("".join(traceback.format_exception(error)).strip())
        return 1
    # The directory may be somebody else's by now.
    if remove and state.holds(given.lock):
        forget(state)
        state.remove()
    return 0


def _keep_to_ourselves(given: Order) -> None:
    """Let no child inherit our descriptors, and give us a ``/run`` of our own.

    ``ip netns`` names live there, and no service of the host is reachable through its sockets.
    """
    for fd in (given.lock, given.report, given.door, given.owner, given.gate):
        if fd is not None:
            os.set_inheritable(fd, False)
    libc = ctypes.CDLL(None, use_errno=True)
    for source, target, kind, flags in (
        (None, b"/", None, _MS_PRIVATE_REC),
        (b"tmpfs", b"/run", b"tmpfs", 0),
    ):
        if libc.mount(source, target, kind, flags, None):
            number = ctypes.get_errno()
            raise OSError(number, f"mount {target.decode()}: {os.strerror(number)}")
    Path("/run/netns").mkdir()
    os.umask(0o022)
    # Both ends of every API connection are in this process, and so are all pods' logs and pipes:
    # the usual soft limit of 1024 ends at some 30 pods. Not more than this, because programs in
    # pods inherit it and some walk through all that they might have open.
    enough, most = _FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY:
        enough = min(enough, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))


async def _run(order: Order, state: StateDir, report: Report) -> bool:
    """Return whether the state directory is to be removed: nobody is left who would do it."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    orphaned = asyncio.Event()
    if (owner := order.owner) is not None:

        def owner_gone() -> None:
            # It stays readable, and would call us again and again.
            loop.remove_reader(owner)
            orphaned.set()

        # A pidfd becomes readable when its process ends, across pid namespaces too.
        loop.add_reader(owner, owner_gone)
    # Opened on the host's loopback before we came here: the only thing of the host that we hold.
    door = socket.socket(fileno=order.door)
    door.setblocking(False)
    cluster = Cluster(order, state, report, door)
    parts = contextlib.AsyncExitStack()
    assembly = importlib.import_module(order.assembly)
    starting = asyncio.create_task(assembly.start(cluster, parts), name="start")
    ends = {
        "stop": asyncio.create_task(stop.wait()),
        "orphaned": asyncio.create_task(orphaned.wait()),
        "broken": asyncio.create_task(cluster.broken.wait()),
        "homeless": asyncio.create_task(_homeless(order.lock, state)),
    }
    abandoned = asyncio.create_task(report.launcher_gone())
    try:
        await asyncio.wait(
            {starting, abandoned, *ends.values()}, return_when=asyncio.FIRST_COMPLETED
        )
        if starting.done():
            starting.result()
            abandoned.cancel()
            await asyncio.gather(abandoned, return_exceptions=True)
            report.close()
            gc.collect()
            gc.freeze()
            await asyncio.wait(ends.values(), return_when=asyncio.FIRST_COMPLETED)
        if ends["broken"].done():
            raise Broken(f"{type(cluster.cause).__name__}: {cluster.cause}") from cluster.cause
        gone = ends["orphaned"].done() or ends["homeless"].done()
        alone = gone or (abandoned.done() and not abandoned.cancelled())
        _log.info("stopping: %s", "nobody needs the cluster any more" if alone else "asked to")
        return alone and not stop.is_set()
    finally:
        for task in (starting, abandoned, *ends.values()):
            task.cancel()
        await _end(cluster, parts)


async def _homeless(lock: int, state: StateDir) -> None:
    """Return when somebody has removed our directory: no command could find us any more."""
    while True:
        await asyncio.sleep(_LOOK_S)
        if not state.holds(lock):
            return


async def _end(cluster: Cluster, parts: contextlib.AsyncExitStack) -> None:
    """Stop in reverse order, bounded: what does not stop is ended with the pid namespace."""
    try:
        async with asyncio.timeout(_STOP_S):
            for task in cluster.tasks:
                task.cancel()
            await asyncio.gather(*cluster.tasks, return_exceptions=True)
            await parts.aclose()
    except TimeoutError:
        _log.warning("no orderly end within %.0f s", _STOP_S)
    except Exception:  # noqa: BLE001 - the kernel ends what is left
        _log.exception("the orderly end failed")
