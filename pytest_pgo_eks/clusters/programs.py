"""Programs of others that make clusters: run with a deadline, their words kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_pgo_eks.errors import UsageProblem


@dataclass(frozen=True)
class Done:
    """How a program ended. ``status`` is None where it did not within its time."""

    command: tuple[str, ...]
    status: int | None
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def told(self) -> str:
        """What it said of its failure, in one line."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        if self.status is None:
            return "no end in its time"
        return (errors or lines or [f"status {self.status} and no word"])[-1]


def run(
    command: Sequence[str], *, within_s: float, environment: Mapping[str, str] | None = None
) -> Done:
    """Run a program to its end; it gets no terminal, and no Ctrl-C that is meant for pytest."""
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired as late:
        return Done(tuple(command), None, _text(late.stdout), _text(late.stderr))
    except OSError as error:
        return Done(tuple(command), 127, "", f"{command[0]}: {error.strerror}")
    return Done(tuple(command), done.returncode, done.stdout, done.stderr)


def found(program: str, remedy: str) -> str:
    """Return the path of a program.

    :raises UsageProblem: it is not there; ``remedy`` says where it comes from.
    """
    path = shutil.which(program)
    if path is None:
        raise UsageProblem(f"{program} is not on PATH: {remedy}")
    return path


def version_in(text: str) -> tuple[int, ...] | None:
    """Return the first version number in a text, up to three parts."""
    match = re.search(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups() if part is not None) if match else None


def dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _text(output: bytes | str | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
