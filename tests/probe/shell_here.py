"""Kube's exec on this machine: the agent runs as ordinary processes, cuts can be injected."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_pgo_eks.errors import ExecProblem


@dataclass(frozen=True)
class Result:
    exit_status: int
    stdout: bytes
    stderr: bytes


class Local:
    """A :class:`pytest_pgo_eks.probe.control.Shell` whose pod is this machine.

    ``cut`` is asked before every read of a running command; True breaks the connection there.
    """

    def __init__(self, cut: Callable[[], bool] = lambda: False) -> None:
        self.cut = cut

    def exec(
        self,
        namespace: str,
        pod: str,
        command: Sequence[str],
        *,
        stdin: bytes | str | None = None,
        deadline_s: float = 30.0,
    ) -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            command, check=False, input=data, capture_output=True, timeout=deadline_s
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def open_exec(
        self, namespace: str, pod: str, command: Sequence[str], *, stdin: bool = False
    ) -> Follower:
        # Only the stream is cut: what was asked and not answered is not asked again.
        return Follower(command, (lambda: False) if stdin else self.cut, stdin=stdin)


class Follower:
    def __init__(
        self, command: Sequence[str], cut: Callable[[], bool], *, stdin: bool = False
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._cut = cut
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._out = self._process.stdout
        self._selector.register(self._out, selectors.EVENT_READ)

    def read(self, timeout_s: float) -> tuple[str, bytes] | None:
        if self._cut():
            raise ExecProblem("cut by the test")
        ends = time.monotonic() + timeout_s
        if not self._selector.select(max(0.0, ends - time.monotonic())):
            raise TimeoutError
        # An odd size, so that lines are torn.
        data = os.read(self._out.fileno(), 1021)
        return ("stdout", data) if data else None

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        while data:
            data = data[os.write(self._process.stdin.fileno(), data) :]

    def exit_status(self) -> int:
        return self._process.wait(timeout=10)

    def close(self) -> None:
        self._selector.close()
        if self._process.stdin is not None:
            # As an exec that is let go: its input ends, and so does a command that listens.
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
        self._process.kill()
        with contextlib.suppress(OSError):
            self._out.close()
        self._process.wait(timeout=10)
