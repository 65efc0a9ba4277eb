"""Commands in containers: one connection each, bytes in and out, an exit status or an error.

Channels of ``v5.channel.k8s.io``: 0 stdin, 1 stdout, 2 stderr, 3 the status, 255 closes the channel
named in its second byte. v4 is the same without 255, so standard input cannot be ended there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlencode

from pytest_pgo_eks.errors import ApiProblem, ExecProblem
from pytest_pgo_eks.kube.transport import Transport
from pytest_pgo_eks.kube.websocket import WebSocket, connect
from pytest_pgo_eks.secrets import filtered

_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS, _END = 0, 1, 2, 3, 255
_CHUNK = 32768
Channel = Literal["stdout", "stderr"]


@dataclass(frozen=True)
class ExecResult:
    """How a command ended. ``exit_status`` is its own; nothing here was decoded."""

    exit_status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as UTF-8, undecodable bytes replaced."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def errors(self) -> str:
        """Standard error as UTF-8, undecodable bytes replaced."""
        return self.stderr.decode("utf-8", "replace")


class ExecSession:
    """A running command whose output is read as it comes. One thread only.

    Use as a context manager: leaving closes the connection, which ends the command only if it
    notices that its input or output is gone.
    """

    def __init__(self, socket: WebSocket, what: str) -> None:
        self._socket = socket
        self._what = what
        self._status: bytes | None = None
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def can_end_input(self) -> bool:
        """Whether :meth:`end_input` works: the server speaks v5 (Kubernetes 1.30)."""
        return self._socket.protocol == _V5

    def write(self, data: bytes) -> None:
        """Queue ``data`` for standard input; it is sent while reading, at the latest."""
        for start in range(0, len(data), _CHUNK):
            self._socket.send(bytes([_STDIN]) + data[start : start + _CHUNK])

    def end_input(self) -> None:
        """End standard input, so that the command sees its end.

        :raises ExecProblem: the server speaks v4 only, which cannot say it.
        """
        if not self.can_end_input:
            raise ExecProblem(
                f"{self._what}: the server speaks only {self._socket.protocol or 'no'} protocol, "
                f"in which standard input never ends; {_V5} is needed (Kubernetes 1.30)"
            )
        self._socket.send(bytes([_END, _STDIN]))

    def read(self, timeout_s: float) -> tuple[Channel, bytes] | None:
        """Return the next piece of output, or None when the command's streams have ended.

        :raises TimeoutError: nothing came within ``timeout_s``; the command may still run.
        """
        ends = time.monotonic() + timeout_s
        while not self._ended:
            message = self._socket.receive(max(ends - time.monotonic(), 0.0))
            if message is None:
                self._ended = True
                break
            if not message:
                continue
            channel, data = message[0], message[1:]
            if channel == _STATUS:
                self._status = (self._status or b"") + data
                if _complete(self._status):
                    self._ended = True
            elif channel in (_STDOUT, _STDERR) and data:
                return ("stdout" if channel == _STDOUT else "stderr"), data
        return None

    def exit_status(self) -> int:
        """Return the command's exit status, once :meth:`read` returned None.

        :raises ExecProblem: the connection ended without one, or the command never started.
        """
        if self._status is None:
            how = (
                "the connection broke"
                if self._socket.close_code is None
                else f"the server closed the connection ({self._socket.close_code})"
            )
            raise ExecProblem(f"{self._what}: no exit status: {how}; the command may have run")
        return _exit_status(self._status, self._what)

    def close(self) -> None:
        self._socket.close()


def open_session(
    transport: Transport,
    path: str,
    command: Sequence[str],
    *,
    container: str | None,
    stdin: bool,
    deadline_s: float,
    what: str,
) -> ExecSession:
    """Start ``command``; ``path`` is the pod's exec subresource.

    :raises NotFound: no such pod. :raises ApiProblem: refused. :raises ExecProblem: no connection.
    """
    query: list[tuple[str, str]] = [("command", word) for word in command]
    query += [("stdout", "true"), ("stderr", "true")]
    if stdin:
        query.append(("stdin", "true"))
    if container:
        query.append(("container", container))
    target = f"{path}?{urlencode(query)}"
    transport.requests += 1
    generation = transport.generation
    try:
        opened = connect(transport.endpoint(), target, (_V5, _V4), deadline_s=deadline_s, what=what)
    except ApiProblem as problem:
        if problem.status != 401:
            raise
        transport.reload(generation)
        opened = connect(transport.endpoint(), target, (_V5, _V4), deadline_s=deadline_s, what=what)
    return ExecSession(opened, what)


def run(session: ExecSession, stdin: bytes | None, deadline_s: float, what: str) -> ExecResult:
    """Feed, read and await the command. See :meth:`pytest_pgo_eks.kube.Kube.exec`."""
    ends = time.monotonic() + deadline_s
    kept: dict[Channel, list[bytes]] = {"stdout": [], "stderr": []}
    with session:
        if stdin is not None:
            session.write(stdin)
            # Without v5 the input stays open: a command that counts or quits by itself still ends.
            if session.can_end_input:
                session.end_input()
        try:
            while (piece := session.read(max(ends - time.monotonic(), 0.0))) is not None:
                channel, data = piece
                kept[channel].append(data)
                if time.monotonic() >= ends:
                    raise TimeoutError  # noqa: TRY301
        except TimeoutError as error:
            why = ""
            if stdin is not None and not session.can_end_input:
                why = f" The server cannot end its standard input ({_V5} is missing)."
            raise ExecProblem(
                f"{what}: not ended within {deadline_s:g} s; it may still run.{why} {_so_far(kept)}"
            ) from error
        try:
            status = session.exit_status()
        except ExecProblem as problem:
            raise ExecProblem(f"{problem}. {_so_far(kept)}") from problem
    return ExecResult(status, b"".join(kept["stdout"]), b"".join(kept["stderr"]))


def _so_far(kept: dict[Channel, list[bytes]]) -> str:
    tail = b"".join(kept["stderr"] or kept["stdout"])[-300:].decode("utf-8", "replace").strip()
    return f"Its last words: {filtered(tail)}" if tail else "It had said nothing"


def _complete(status: bytes) -> bool:
    try:
        json.loads(status)
    except ValueError:
        return False
    return True


def _exit_status(raw: bytes, what: str) -> int:
    try:
        said = json.loads(raw)
        if said["status"] == "Success":
            return 0
        for cause in (said.get("details") or {}).get("causes") or []:
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExecProblem(f"{what}: the exit status cannot be read: {raw[:200]!r}") from error
    raise ExecProblem(f"{what}: not started: {filtered(str(said.get('message', said)))}")
