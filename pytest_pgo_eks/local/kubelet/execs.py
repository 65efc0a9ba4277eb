"""Running a command in a container that runs already: exec, exec probes and hooks.

The child is born in the pod's network, IPC, host name and process namespaces; ``nsenter`` then
joins what only a single-threaded program can join, the mount and user namespaces, and becomes the
command. No helper stays. About 2 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_pgo_eks.local.kubelet.containers import Container
from pytest_pgo_eks.local.kubelet.namespaces import Home
from pytest_pgo_eks.local.kubelet.processes import Process, Pump, spawn

_OUTPUT_BYTES = 10 * 1024
# What the loader and libc of the host's nsenter would act on, too.
_LOADER = ("LD_", "GLIBC_", "GCONV_", "MALLOC_", "LOCPATH")


class NotRunning(Exception):
    """The container has no process to join."""


@dataclass(frozen=True)
class Finished:
    """The end of a command; ``output`` is both streams, as far as it was kept."""

    exit_code: int
    output: str


def start_exec(
    home: Home,
    container: Container,
    argv: Sequence[str],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    tty: bool = False,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a command; the descriptors stay the caller's.

    :raises NotRunning: the container ended.
    """
    plan = container.plan
    variables = dict(plan.env) | dict(env or {})
    loader = [f"{k}={v}" for k, v in variables.items() if k.startswith(_LOADER)]
    words = [*(["/usr/bin/env", *loader] if loader else []), *argv]
    if tty:
        words = ["/usr/bin/setsid", "--ctty", *words]
    pid = container.main_pid
    if container.ended.done():
        raise NotRunning("container not running")
    namespaces = plan.namespaces.shared()
    own: int | None = None
    try:
        shared = plan.namespaces.fds.get("pid")
        if shared is None:
            own = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        namespaces["pid"] = own if shared is None else shared  # type: ignore[assignment]
        with home.visiting(namespaces):
            return spawn(
                [
                    shutil.which("nsenter") or "/usr/bin/nsenter",
                    f"--mount=/proc/{pid}/ns/mnt",
                    f"--user=/proc/{pid}/ns/user",
                    "--preserve-credentials",
                    f"--wdns={plan.workdir}",
                    "--",
                    *words,
                ],
                env={k: v for k, v in variables.items() if not k.startswith(_LOADER)},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                session=not tty,
            )
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotRunning("container not running") from error
    finally:
        if own is not None:
            os.close(own)


async def run(
    home: Home, container: Container, argv: Sequence[str], *, timeout_s: float
) -> Finished:
    """Run a command to its end, both streams kept together.

    :raises TimeoutError: it took longer; its process has been killed.
    :raises NotRunning: the container ended.
    """
    ours, theirs = os.pipe()
    kept = bytearray()

    def keep(data: bytes) -> None:
        kept.extend(data[: _OUTPUT_BYTES - len(kept)])

    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        process = start_exec(home, container, argv, stdin=nothing, stdout=theirs, stderr=theirs)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
        os.close(nothing)
    output = Pump(ours, keep)
    try:
        async with asyncio.timeout(timeout_s):
            code = await asyncio.shield(process.ended)
        # A child that the command left behind may hold the pipe open: its output is not ours.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await output.ended
    except BaseException:
        process.signal(signal.SIGKILL)
        raise
    finally:
        output.close()
    return Finished(code, kept.decode("utf-8", "replace"))
