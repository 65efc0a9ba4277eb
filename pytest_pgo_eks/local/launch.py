"""The host's side: start a supervisor in namespaces of its own, stop it, say how it is.

Everything the cluster owns hangs on one process, ``unshare``: it dies, its child (process 1 of the
cluster's pid namespace) dies, and the kernel ends the rest: processes, mounts, links, rules.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pytest_pgo_eks.local import preflight, state
from pytest_pgo_eks.local.operator.releases import RELEASES
from pytest_pgo_eks.local.state import InputProblem, Record, StateDir
from pytest_pgo_eks.local.upstream import Upstream

# Warm, the supervisor is ready within three seconds; a cold disk on a busy machine takes longer.
_READY_S = 120.0
# The supervisor gives itself less than this for an orderly stop.
_STOP_S = 15.0
_KILL_S = 10.0
_PACKAGES = Path(__file__).resolve().parents[2]


class StartFailed(RuntimeError):
    """The cluster did not come up. The message says what broke, or holds the end of the log."""


class Interrupted(Exception):
    """A signal asked ``up`` to stop."""


@dataclass(frozen=True)
class Request:
    """What ``up`` was asked for. Durations and file names as on the command line."""

    name: str
    state: StateDir
    owner_pid: int | None = None
    postgres_version: int | None = None
    operator: bool = True
    operator_version: str | None = None
    # The module that puts the cluster together.
    assembly: str = "pytest_pgo_eks.local.assembly"
    # An API server that is not ours, and the administrator's way to it.
    upstream: Upstream | None = None
    kubeconfig: Path | None = None
    egress: Path | None = None


def start(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Bring a cluster up and return what it answers (``ready.json``). ``say`` gets progress lines.

    :raises InputProblem: bad input or a host that cannot; nothing was created.
    :raises StartFailed: it broke on the way; everything was removed again.
    :raises Interrupted: SIGINT or SIGTERM came; everything was removed again.
    """
    if request.operator_version not in {None, *RELEASES}:
        raise InputProblem(
            f"--operator-version {request.operator_version}: one of {', '.join(RELEASES)}"
        )
    problems = preflight.check(request.postgres_version)
    if problems:
        raise InputProblem("; ".join(map(str, problems)))
    if request.upstream:
        request.upstream.require()
    owner = _open_owner(request.owner_pid)
    lock = request.state.claim()
    try:
        state.register(request.name, request.state)
        with _stoppable():
            return _start(request, lock, owner, say)
    except BaseException:
        state.forget(request.state)
        request.state.remove()
        raise
    finally:
        os.close(lock)
        if owner is not None:
            os.close(owner)


def _start(
    request: Request, lock: int, owner: int | None, say: Callable[[str], None]
) -> dict[str, Any]:
    ours, theirs = socket.socketpair()
    # A listening socket belongs to the network namespace in which it was opened: this one is the
    # host's, and the only way into the cluster.
    door = socket.create_server(("127.0.0.1", 0))
    given = [lock, theirs.fileno(), door.fileno(), *([owner] if owner is not None else [])]
    order = {
        "name": request.name,
        "state_dir": str(request.state.path),
        "lock": lock,
        "report": theirs.fileno(),
        "door": door.fileno(),
        "owner": owner,
        "operator": request.operator,
        "operator_version": request.operator_version,
        "postgres_version": request.postgres_version,
        "assembly": request.assembly,
    }
    gate = None
    if request.upstream:
        gate = _open_gate(request.upstream)
        given.append(gate)
        # Credentials travel by file: a command line is everybody's to read.
        state.write(request.state.upstream_file, json.dumps(asdict(request.upstream)))
        order |= {
            "kubeconfig": str(request.kubeconfig),
            "egress": str(request.egress) if request.egress else None,
            "gate": gate,
            "assembly": "pytest_pgo_eks.local.attached",
        }
    with ours, open(request.state.log_file, "ab") as log:  # noqa: PTH123 - binary append
        process = subprocess.Popen(
            [
                *preflight.UNSHARE,
                "--",
                sys.executable,
                "-m",
                "pytest_pgo_eks.local.init",
                json.dumps(order),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=given,
            start_new_session=True,
            cwd="/",
            env=_environment(),
        )
        theirs.close()
        door.close()
        if gate is not None:
            os.close(gate)
        record = Record(request.name, process.pid, _started(process.pid), request.owner_pid)
        try:
            request.state.write_record(record)
            return _follow(ours, request.state, say)
        except BaseException:
            _stop(record, say=lambda _line: None)
            process.wait()
            raise


def _open_gate(upstream: Upstream) -> int:
    """Start the process that connects to the API server for those inside; return its other end.

    It ends when nobody holds that end any more, which is when the cluster has ended.
    """
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pytest_pgo_eks.local.gate",
                str(theirs.fileno()),
                upstream.host,
                str(upstream.port),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            cwd="/",
            env=_environment(),
        )
    return ours.detach()


def _follow(reports: socket.socket, place: StateDir, say: Callable[[str], None]) -> dict[str, Any]:
    """Pass progress on until the supervisor is ready."""
    deadline = time.monotonic() + _READY_S
    rest = b""
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise StartFailed(f"not ready after {_READY_S:.0f} s\n{_tail(place)}")
        if not select.select([reports], [], [], left_s)[0]:
            continue
        chunk = reports.recv(65536)
        if not chunk:
            raise StartFailed(f"the supervisor ended while it started\n{_tail(place)}")
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "say" in message:
                say(message["say"])
            if "problem" in message:
                raise StartFailed(message["problem"])
            if "ready" in message:
                ready: dict[str, Any] = message["ready"]
                return ready


@contextmanager
def _stoppable() -> Iterator[None]:
    def stop(number: int, _frame: FrameType | None) -> None:
        # A second Ctrl-C must not interrupt the tidying up, which is bounded.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment() -> dict[str, str]:
    """Return what the cluster may know of our environment: where programs and packages are."""
    kept = ("HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "PGO_LOCAL_LOG")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    paths = [str(_PACKAGES)] if _PACKAGES.name != "site-packages" else []
    paths += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return environment | {"PATH": preflight.search_path(), "LC_ALL": "C.UTF-8"}


def _open_owner(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        return os.pidfd_open(pid)
    except (OSError, OverflowError, ValueError) as error:
        raise InputProblem(f"--owner-pid {pid}: there is no such process") from error


def _tail(place: StateDir, lines: int = 15) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(place.log_file.read_text(errors="replace").splitlines()[-lines:])
    return ""


# ---------------------------------------------------------------------- the end


def stop(place: StateDir, say: Callable[[str], None]) -> None:
    """End a cluster, orderly if it can and at once if not, and remove its directory.

    Also the way to remove what a killed supervisor left.

    :raises InputProblem: there is no cluster in that directory.
    :raises OSError: its directory could not be removed.
    """
    if not place.is_ours():
        raise InputProblem(f"there is no stand-in cluster in {place.path}")
    record = place.record()
    if record and place.life() != "dead":
        _stop(record, say)
    deadline = time.monotonic() + _KILL_S
    while place.life() != "dead":
        if time.monotonic() > deadline:
            raise OSError(f"the lock on {place.path} is still held after everything was stopped")
        select.select([], [], [], 0.02)
    state.forget(place)
    place.remove()


def _stop(record: Record, say: Callable[[str], None]) -> None:
    if _started(record.pid) != record.started:
        return
    try:
        gone = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        for child in _children(record.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        if _wait(gone, _STOP_S):
            return
        say(f"no orderly end within {_STOP_S:.0f} s: killing it")
        for child in _children(record.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(gone, signal.SIGKILL)
        _wait(gone, _KILL_S)
    finally:
        os.close(gone)


def _wait(pidfd: int, within_s: float) -> bool:
    return bool(select.select([pidfd], [], [], within_s)[0])


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` behind the program's name (field 3 is the first)."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rpartition(")")[2].split()
    return []


def _started(pid: int) -> str:
    """Return when a process began, in clock ticks of this boot; empty when it is gone."""
    fields = _stat(pid)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {fields[19]}" if fields else ""


def _children(pid: int) -> list[int]:
    # /proc/PID/task/PID/children is a kernel option that some kernels lack.
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [n for n in numbers if (fields := _stat(n)) and int(fields[1]) == pid]
