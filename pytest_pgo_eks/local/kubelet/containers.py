"""Starting one container with bubblewrap, its processes, its output, and ending it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_pgo_eks.local.kubelet.logs import LogWriter
from pytest_pgo_eks.local.kubelet.namespaces import Home, PodNamespaces
from pytest_pgo_eks.local.kubelet.processes import (
    Process,
    Pump,
    kill_container,
    read_all,
    settle,
    spawn,
)

_SETUP_S = 20.0
_OUTPUT_S = 2.0
_QUICK_S = 5.0
_MESSAGE_BYTES = 4096


class StartProblem(Exception):
    """Bubblewrap could not make the container or run its program; the message is its own."""


@dataclass(frozen=True)
class ContainerPlan:
    """Everything needed to start a container. ``user`` is the user namespace's descriptor."""

    view_arguments: list[str]
    command: list[str]
    env: Mapping[str, str]
    namespaces: PodNamespaces
    user: int
    log: Path
    termination_log: Path
    workdir: str = "/"
    stdin: bool = False
    tty: bool = False


@dataclass
class Exit:
    """How a container ended; times are epoch seconds."""

    code: int
    message: str
    started_at: float
    finished_at: float


Listener = Callable[[str, bytes], None]


@dataclass
class Container:
    """A running container. ``main_pid`` is as this process sees it.

    ``mounts`` holds its mount namespace open for as long as we kill by the namespace's number: the
    kernel gives a number to the next container the moment the namespace is gone.
    """

    id: str
    main_pid: int
    mounts: int
    mount_namespace: int
    started_at: float
    plan: ContainerPlan
    log: LogWriter
    process: Process
    ended: asyncio.Future[Exit]
    stdin: int | None = None
    listeners: set[Listener] = field(default_factory=set)
    collector: asyncio.Task[None] | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the main process."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.main_pid, number)

    async def kill(self) -> None:
        """SIGKILL every process of the container."""
        if not self.ended.done():
            await kill_container(self.mount_namespace)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM the main process, and SIGKILL all that is left after the grace period.

        A stopped process never sees its SIGTERM, which is what the second step is for.
        """
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, grace_s)):
                await asyncio.shield(self.ended)
        await self.kill()
        await asyncio.shield(self.ended)

    def write_stdin(self, data: bytes) -> None:
        if self.stdin is not None:
            with contextlib.suppress(OSError):
                os.write(self.stdin, data)

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None


async def start(home: Home, plan: ContainerPlan) -> Container:
    """Start a container; returns when its program begins (4 to 7 ms).

    :raises StartProblem: bubblewrap failed, or the program does not exist.
    """
    log = LogWriter(plan.log)
    pipes = _Pipes(plan)
    began = time.time()
    try:
        with home.visiting(plan.namespaces.shared()):
            process = spawn(
                ["bwrap", "--args", str(pipes.arguments), "--", *plan.command],
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
                stdin=pipes.child_stdin,
                stdout=pipes.child_stdout,
                stderr=pipes.child_stderr,
                pass_fds=pipes.passed(),
            )
    except BaseException:
        pipes.close_ours()
        log.close()
        raise
    finally:
        pipes.close_theirs()
    listeners: set[Listener] = set()

    def take(stream: str, data: bytes) -> None:
        log.write(stream, data)
        for listener in tuple(listeners):
            listener(stream, data)

    pumps = [Pump(pipes.stdout, lambda data: take("stdout", data))]
    if pipes.stderr is not None:
        pumps.append(Pump(pipes.stderr, lambda data: take("stderr", data)))
    arrival = asyncio.ensure_future(_arrival(pipes.info, process))
    try:
        found = await asyncio.shield(arrival)
    except BaseException:
        # It still waits for us, and must not begin to live now that nobody will know of it.
        await _smother(arrival)
        os.close(pipes.go)
        log.close()
        raise
    mounts = _open_mounts(found)
    try:
        await _let_go(pipes.go)
    except BaseException:
        if mounts is not None:
            await kill_container(os.fstat(mounts).st_ino)
            os.close(mounts)
        log.close()
        raise
    if mounts is None:
        await process.ended
        await _drain(pumps)
        log.close()
        raise StartProblem(_tail(plan.log) or "bubblewrap ended without a word")
    loop = asyncio.get_running_loop()
    container = Container(
        id=uuid.uuid4().hex + uuid.uuid4().hex,
        main_pid=found["child-pid"],
        mounts=mounts,
        mount_namespace=os.fstat(mounts).st_ino,
        started_at=began,
        plan=plan,
        log=log,
        process=process,
        ended=loop.create_future(),
        stdin=pipes.stdin,
        listeners=listeners,
    )
    container.collector = loop.create_task(
        _collect(container, pumps), name=f"container {plan.log.parent.name}"
    )
    return container


async def _let_go(go: int) -> None:
    """Let the container's program begin; return when it does.

    Bubblewrap reads from this pipe, and closes its end, as the last thing before it becomes the
    program. Whoever joined the container earlier would find the host's files and our own user.
    """
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[None] = loop.create_future()
    loop.add_reader(go, settle, closed)
    try:
        with contextlib.suppress(BrokenPipeError, TimeoutError):
            os.write(go, b"x")
            async with asyncio.timeout(_SETUP_S):
                await closed
    finally:
        loop.remove_reader(go)
        os.close(go)


async def _smother(arrival: asyncio.Future[dict[str, int]]) -> None:
    with contextlib.suppress(StartProblem):
        mounts = _open_mounts(await arrival)
        if mounts is not None:
            await kill_container(os.fstat(mounts).st_ino)
            os.close(mounts)


async def _arrival(info: int, process: Process) -> dict[str, int]:
    """Return what bubblewrap says of its child; nothing when it failed before there was one."""
    try:
        async with asyncio.timeout(_SETUP_S):
            text = await read_all(info)
            if not text:
                await process.ended
                return {}
            found: dict[str, int] = json.loads(text)
            return found
    except (TimeoutError, ValueError) as error:
        process.signal(signal.SIGKILL)
        raise StartProblem(f"bubblewrap did not say what it started: {error!r}") from error


def _open_mounts(found: dict[str, int]) -> int | None:
    """Open the new container's mount namespace; None when bubblewrap failed to make it."""
    if not found:
        return None
    try:
        return os.open(f"/proc/{found['child-pid']}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


async def _collect(container: Container, pumps: list[Pump]) -> None:
    code = await container.process.ended
    finished = time.time()
    # What the main process leaves behind ends with it, as containerd does in a shared namespace.
    await kill_container(container.mount_namespace)
    os.close(container.mounts)
    await _drain(pumps)
    container.log.close()
    container.close_stdin()
    message = _message(container.plan.termination_log)
    container.ended.set_result(Exit(code, message, container.started_at, finished))


async def _drain(pumps: list[Pump]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_OUTPUT_S):
            for pump in pumps:
                await pump.ended
    for pump in pumps:
        pump.close()


def start_failure(exit_: Exit, log: Path) -> str | None:
    """Return bubblewrap's own complaint when the program itself never ran."""
    if exit_.code != 1 or exit_.finished_at - exit_.started_at > _QUICK_S:
        return None
    said = _tail(log)
    return said if said.startswith("bwrap: ") else None


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1].split(" ", 3)[-1] if lines else ""


def _message(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MESSAGE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


class _Pipes:
    """The descriptors between us and a container that is being started."""

    def __init__(self, plan: ContainerPlan) -> None:
        self.info, self._say_info = os.pipe()
        self._wait, self.go = os.pipe()
        self.arguments = os.memfd_create("bwrap-arguments")
        self.stdin: int | None = None
        self.stderr: int | None = None
        if plan.tty:
            self.stdout, terminal = os.openpty()
            self.child_stdin = self.child_stdout = self.child_stderr = terminal
            self.stdin = os.dup(self.stdout)
        else:
            self.stdout, self.child_stdout = os.pipe()
            self.stderr, self.child_stderr = os.pipe()
            if plan.stdin:
                self.child_stdin, self.stdin = os.pipe()
            else:
                self.child_stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._pid = plan.namespaces.fds.get("pid")
        self._user = plan.user
        # Not on the command line, where every ``ps`` would show passwords.
        text = "\0".join(self._all(plan)) + "\0"
        os.write(self.arguments, text.encode("utf-8", "surrogateescape"))
        os.lseek(self.arguments, 0, os.SEEK_SET)

    def _all(self, plan: ContainerPlan) -> list[str]:
        args = [*plan.view_arguments, "--clearenv"]
        for name, value in plan.env.items():
            args += ["--setenv", name, value]
        args += ["--cap-drop", "ALL", "--info-fd", str(self._say_info)]
        # Held back until we know it, so that nothing of it can escape us.
        args += ["--block-fd", str(self._wait)]
        args += ["--userns2", str(self._user)]
        if self._pid is None:
            # On Kubernetes, too, a container's program is PID 1 unless the pod shares processes.
            return [*args, "--unshare-pid", "--as-pid-1"]
        return [*args, "--pidns", str(self._pid)]

    def passed(self) -> tuple[int, ...]:
        fds = (self.arguments, self._say_info, self._wait, self._user)
        return fds if self._pid is None else (*fds, self._pid)

    def close_theirs(self) -> None:
        theirs = {self.child_stdin, self.child_stdout, self.child_stderr}
        for fd in (*theirs, self.arguments, self._say_info, self._wait):
            os.close(fd)

    def close_ours(self) -> None:
        for fd in (self.info, self.go, self.stdout, self.stderr, self.stdin):
            if fd is not None:
                os.close(fd)
