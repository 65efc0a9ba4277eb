"""What the probe needs of a way to run commands in pods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Ran(Protocol):
    """What a finished command left."""

    @property
    def exit_status(self) -> int: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...


class Running(Protocol):
    """A command that still runs. ``read`` returns None at its end."""

    def read(self, timeout_s: float) -> tuple[str, bytes] | None: ...
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Shell(Protocol):
    """What the probe needs of :class:`pytest_pgo_eks.kube.Kube`."""

    def exec(
        self,
        namespace: str,
        pod: str,
        command: Sequence[str],
        *,
        stdin: bytes | str | None = None,
        deadline_s: float = 30.0,
    ) -> Ran: ...

    def open_exec(
        self, namespace: str, pod: str, command: Sequence[str], *, stdin: bool = False
    ) -> Running: ...


def tail(ran: Ran) -> str:
    """Return the end of what a command printed, errors first."""
    text = (ran.stderr or ran.stdout).decode("utf-8", "replace").strip()
    return text[-500:] or "no output"
