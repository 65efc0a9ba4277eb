"""Where progress is shown: the real terminal, past pytest's capture, from every process.

During a test pytest's own terminal writer is captured, so the controller keeps a duplicate of the
descriptor it had at configuration. xdist workers have no terminal: they append to a file which the
controller follows.
"""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime
from io import UnsupportedOperation
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest

from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.secrets import filtered

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

_LOOK_S = 0.3


class Console:
    """Prints whole lines to the user's terminal between pytest's own, and appends them to ``log``."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._reporter: TerminalReporter | None = None
        self._out: TextIO | None = None
        self._own = False
        self._lock = threading.Lock()
        # Asked at configuration, where pytest captures nothing yet.
        self._live = sys.stdout.isatty()

    def open(self, config: pytest.Config) -> None:
        """Begin to print; call it at session start, when pytest's reporter is there and uncaptured."""
        reporter = self._reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or config.option.verbose < -1:
            return
        file = reporter._tw._file  # noqa: SLF001 - the only way to the uncaptured stream
        try:
            self._out = os.fdopen(os.dup(file.fileno()), "w", encoding="utf-8", buffering=1)
            self._own = True
        except (UnsupportedOperation, OSError):
            self._out = file

    def progress(self) -> Progress:
        """Return a Progress that shows its phases here."""
        return Progress(self.line, self._redraw if self._live else None)

    def line(self, text: str) -> None:
        """Print ``text`` on lines of its own."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock, self._log.open("a", encoding="utf-8") as log:
            log.write("".join(f"{now} {line}\n" for line in filtered(text).splitlines()))
        if self._out is None:
            return
        with self._lock:
            self._out.write(self._fresh() + text + "\n")
            self._out.flush()

    def _redraw(self, text: str) -> None:
        if self._out is None:
            return
        with self._lock:
            self._out.write(f"{self._fresh()}\r\x1b[K{text}")
            self._out.flush()

    def _fresh(self) -> str:
        """Return what ends the line that pytest's reporter has begun, and have it begin anew."""
        reporter = self._reporter
        if reporter is None or not reporter.currentfspath:
            return ""
        reporter.currentfspath = None
        return "\n"

    def close(self) -> None:
        if self._own and self._out is not None:
            self._out.close()
        self._out = None


def worker_progress(path: Path, worker: str) -> Progress:
    """Return a Progress for an xdist worker: its lines go into the file that is followed."""

    def write(line: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"[{worker}] {line}\n")

    return Progress(write)


class Follower:
    """Prints what workers append to a file, until stopped."""

    def __init__(self, path: Path, console: Console) -> None:
        self._path = path
        self._console = console
        self._stop = threading.Event()
        self._read = 0
        self._thread = threading.Thread(target=self._follow, name="pgo progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._show()

    def _follow(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self._show()

    def _show(self) -> None:
        try:
            with self._path.open(encoding="utf-8") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return
        whole, newline, _ = text.rpartition("\n")
        if newline:
            self._read += len((whole + newline).encode())
            for line in whole.splitlines():
                self._console.line(line)
