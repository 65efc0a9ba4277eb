"""Linux namespaces by system call: visiting a pod's, and making those that a pod shares.

A namespace of ``setns`` belongs to a *thread*. The event loop's thread visits a pod's namespaces
for the length of one system call or one ``vfork`` (some 100 µs) and comes back, so no helper
program has to run for it: a child is born where its parent stood.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_pgo_eks.local.kubelet.processes import Process, spawn

_FLAGS = {"uts": 0x04000000, "ipc": 0x08000000, "pid": 0x20000000, "net": 0x40000000}
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MNT_DETACH = 2
_END_S = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _setns(fd: int, kind: str) -> None:
    # Python has os.setns from 3.12 on.
    _check(_libc.setns(fd, _FLAGS[kind]), f"setns {kind}")


def _open(kind: str) -> int:
    # A pid namespace that was unshared but has no process yet is not in "pid", and never opened.
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


class Home:
    """The calling thread's own namespaces, and visits to others.

    The supervisor's UTS and IPC namespaces may be the host's, to which a user namespace has no
    way back: the thread therefore takes fresh ones first.
    """

    def __init__(self) -> None:
        _check(_libc.unshare(_FLAGS["uts"] | _FLAGS["ipc"]), "unshare uts, ipc")
        self._own = {kind: _open(kind) for kind in _FLAGS}

    def close(self) -> None:
        for fd in self._own.values():
            os.close(fd)
        self._own.clear()

    @contextmanager
    def visiting(self, namespaces: Mapping[str, int]) -> Iterator[None]:
        """Stand in these namespaces ({kind: descriptor}); nothing may be awaited inside.

        ``pid`` moves the children that are born inside, never the thread itself.
        """
        try:
            for kind, fd in namespaces.items():
                _setns(fd, kind)
            yield
        finally:
            self._return(namespaces)

    def _return(self, kinds: Mapping[str, int]) -> None:
        try:
            for kind in kinds:
                _setns(self._own[kind], kind)
        except OSError:
            # Every later socket and child of this process would be born in a pod.
            os.abort()

    def new_pod(self, netns: Path, hostname: str, *, share_processes: bool) -> PodNamespaces:
        """Make what the containers of a pod share, around an existing network namespace."""
        net = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        fresh = {"net": net}
        pause: Process | None = None
        kinds = _FLAGS["uts"] | _FLAGS["ipc"] | (_FLAGS["pid"] if share_processes else 0)
        try:
            _setns(net, "net")
            _check(_libc.unshare(kinds), "unshare a pod's namespaces")
            name = hostname.encode()
            _check(_libc.sethostname(name, len(name)), "sethostname")
            fresh |= {"uts": _open("uts"), "ipc": _open("ipc")}
            # As containerd sets them: no capability is needed for port 80 or for ping.
            _sysctl("net/ipv4/ip_unprivileged_port_start", "0")
            _sysctl("net/ipv4/ping_group_range", "0 0")
            if share_processes:
                # PID 1 reaps the pod's orphans: with SIGCHLD ignored the kernel does it. And no
                # signal from inside the pod reaches a PID 1 without handlers, not even SIGKILL.
                pause = spawn(
                    ("env", "--ignore-signal=CHLD", "sleep", "infinity"),
                    env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
                )
                fresh["pid"] = os.open(f"/proc/{pause.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            if pause:
                pause.signal(signal.SIGKILL)
            for fd in fresh.values():
                os.close(fd)
            raise
        finally:
            self._return(_FLAGS)
        return PodNamespaces(fresh, pause)


@dataclass
class PodNamespaces:
    """Descriptors {kind: fd} of what a pod's containers share; ``pause`` is PID 1, if shared."""

    fds: dict[str, int]
    pause: Process | None

    def shared(self) -> dict[str, int]:
        """Return the namespaces that a new container's first process is born in."""
        return {kind: fd for kind, fd in self.fds.items() if kind != "pid"}

    def kill(self) -> None:
        """Kill every process of a shared process namespace at the same moment."""
        if self.pause:
            self.pause.signal(signal.SIGKILL)

    async def close(self) -> None:
        """End the pod: killing PID 1 kills every process that is left in a shared namespace.

        PID 1 ends after everybody else has been waited for, and some of them are our children: so
        waiting for it without the loop would be for ever.
        """
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()
        pause, self.pause = self.pause, None
        if pause:
            pause.signal(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await asyncio.shield(pause.ended)


def mount_tmpfs(where: Path, *, size_bytes: int | None, mode: str = "0777") -> None:
    """Mount a file system in memory; ``None`` is the kernel's bound, half of the memory."""
    options = f"mode={mode}" + (f",size={size_bytes}" if size_bytes else "")
    target = os.fsencode(where)
    flags = _MS_NOSUID | _MS_NODEV
    _check(_libc.mount(b"tmpfs", target, b"tmpfs", flags, options.encode()), f"tmpfs {where}")


def unmount(where: Path) -> None:
    """Detach a mount; one that containers still use ends with them."""
    _check(_libc.umount2(os.fsencode(where), _MNT_DETACH), f"umount {where}")


def _sysctl(name: str, value: str) -> None:
    # The files of /proc/sys/net follow the thread's network namespace.
    try:
        Path("/proc/sys", name).write_text(value)
    except OSError:
        # Some kernels have no such setting (ping sockets off): pods work without.
        return
