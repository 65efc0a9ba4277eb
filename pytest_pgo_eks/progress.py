"""Saying what takes time: live on a terminal, plain lines elsewhere.

A phase that ends within two seconds says nothing until it ends. Code that works takes a
:class:`Progress` and never prints.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

QUIET_S = 2.0
REPEAT_S = 10.0


class Phase(Protocol):
    """A running phase; ``say`` replaces what it shows behind its title."""

    def say(self, detail: str) -> None: ...


class Progress:
    """Prints phases through ``write``, which gets whole lines without a line end.

    ``live`` is a function that redraws one line in place, or None where the output is no terminal;
    then a line is printed after :data:`QUIET_S`, and then at
    intervals of :data:`REPEAT_S` seconds that double.
    """

    def __init__(
        self, write: Callable[[str], None], live: Callable[[str], None] | None = None
    ) -> None:
        self._write = write
        self._live = live

    def say(self, line: str) -> None:
        """Print one line now."""
        self._write(line)

    @contextmanager
    def phase(self, title: str, expected_s: float | None = None) -> Iterator[Phase]:
        """Show ``title`` while the block runs, with elapsed and, if given, expected seconds."""
        running = _Running(title, expected_s, self._write, self._live)
        running.start()
        try:
            yield running
        except BaseException:
            running.end("failed")
            raise
        running.end("done")


class _Running:
    def __init__(
        self,
        title: str,
        expected_s: float | None,
        write: Callable[[str], None],
        live: Callable[[str], None] | None,
    ) -> None:
        self._title = title
        self._expected_s = expected_s
        self._write = write
        self._live = live
        self._detail = ""
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name=f"progress {title}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def say(self, detail: str) -> None:
        self._detail = detail

    def end(self, how: str) -> None:
        self._ended.set()
        self._thread.join()
        took_s = time.monotonic() - self._began
        if took_s >= QUIET_S or how != "done":
            if self._live:
                self._live("")
            self._write(f"{self._title}: {how} after {took_s:.1f} s")

    def _tick(self) -> None:
        step_s = 0.5 if self._live else REPEAT_S
        wait_s = QUIET_S
        while not self._ended.wait(wait_s):
            wait_s = step_s
            if not self._live:
                # Lines stay: what takes minutes need not fill the screen.
                step_s *= 2
            (self._live or self._write)(self._line())

    def _line(self) -> str:
        elapsed_s = time.monotonic() - self._began
        of = f" of about {self._expected_s:.0f}" if self._expected_s else ""
        detail = f" – {self._detail}" if self._detail else ""
        return f"{self._title}: {elapsed_s:.0f}{of} s{detail}"


def silent() -> Progress:
    """Return a Progress that prints nothing, for code used outside a pytest run."""
    return Progress(lambda _line: None)
