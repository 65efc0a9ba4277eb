"""One open exec to the agent's answering process, so that a question costs no process of its own.

An exec and a Python that imports the agent took 165 ms on an idle machine of 2 cores and 600 ms on
a busy one; a line through an open one takes a few.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Sequence
from typing import Any

from pytest_pgo_eks.errors import ExecProblem
from pytest_pgo_eks.probe.shell import Running, Shell

_START_S = 30.0
# A load balancer in front of an API server forgets a connection that is idle for minutes, and says
# nothing: an old one shows that it lives before it is trusted with anything.
_IDLE_S = 1.0
_PING_S = 5.0


class Channel:
    """Asks one after the other. Safe for use by many threads; they take turns."""

    def __init__(
        self, shell: Shell, namespace: str, pod: str, command: Sequence[str], what: str
    ) -> None:
        self._shell = shell
        self._namespace = namespace
        self._pod = pod
        self._command = list(command)
        self._what = what
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._running: Running | None = None
        self._kept = b""
        self._used = 0.0

    def ask(
        self, do: str, *, directory: str = "", stdin: Any = None, deadline_s: float = 30.0
    ) -> list[Any]:
        """Have the agent do something and return its answers.

        A question that was sent is never sent again: what became of it is not known.

        :raises NotFound: there is no such pod.
        :raises ExecProblem: it could not be asked, failed, or did not answer within ``deadline_s``.
        """
        wanted = {"do": do, "directory": directory, "stdin": stdin}
        with self._lock:
            if self._running is not None and time.monotonic() - self._used > _IDLE_S:
                try:
                    self._exchange({"do": "ping"}, _PING_S)
                except ExecProblem:
                    self._drop()
            if self._running is None:
                self._open()
            told = self._exchange(wanted, deadline_s)
        if "failed" in told:
            raise ExecProblem(f"{self._what}: {do}: {told['failed']}")
        return list(told["answers"])

    def close(self) -> None:
        """Let go of the process, which ends it."""
        with self._lock:
            self._drop()

    def _open(self) -> None:
        self._kept = b""
        self._running = self._shell.open_exec(self._namespace, self._pod, self._command, stdin=True)
        self._line(time.monotonic() + _START_S)

    def _exchange(self, wanted: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        number = next(self._numbers)
        ends = time.monotonic() + deadline_s
        assert self._running is not None
        try:
            self._running.write(json.dumps(wanted | {"id": number}).encode() + b"\n")
        except (OSError, ExecProblem) as error:
            self._drop()
            raise ExecProblem(f"{self._what}: {wanted['do']}: not sent: {error}") from error
        told = self._line(ends)
        while told.get("id") != number:
            told = self._line(ends)
        self._used = time.monotonic()
        return told

    def _line(self, ends: float) -> dict[str, Any]:
        """Return the next line; whatever goes wrong, the channel is not used again."""
        errors = b""
        try:
            while b"\n" not in self._kept:
                assert self._running is not None
                got = self._running.read(max(ends - time.monotonic(), 0.0))
                if got is None:
                    raise self._ended(errors)
                channel, data = got
                if channel == "stdout":
                    self._kept += data
                else:
                    errors += data
            line, _, self._kept = self._kept.partition(b"\n")
            told = json.loads(line)
        except TimeoutError as error:
            self._drop()
            raise ExecProblem(f"{self._what}: no answer in time; it may still come") from error
        except (OSError, ValueError) as error:
            self._drop()
            raise ExecProblem(f"{self._what}: {error}") from error
        except ExecProblem:
            self._drop()
            raise
        if not isinstance(told, dict):
            self._drop()
            raise ExecProblem(f"{self._what}: no answer: {told!r}")
        return told

    def _ended(self, errors: bytes) -> ExecProblem:
        said = errors.decode("utf-8", "replace").strip()[-500:]
        return ExecProblem(f"{self._what}: the agent ended: {said or 'no word'}")

    def _drop(self) -> None:
        if self._running is not None:
            self._running.close()
        self._running = None
