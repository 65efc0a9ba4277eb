"""The cluster's lock: many readers, or one writer, across processes.

xdist's ``loadgroup`` is void on current pytest, and no distribution mode lets readers share while a
writer waits, so the processes settle it themselves. The kernel releases what a killed process held.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock

if sys.platform != "win32":
    import fcntl


class ClusterLock:
    """Two lock files: ``gate`` and ``room``.

    A reader passes the gate and stays in the room with other readers. A writer holds the gate while
    it waits for the room to empty, so that a stream of readers cannot starve it. Windows has no
    shared locks, so there readers take turns.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the cluster together with other readers."""
        with ExitStack() as held:
            with self._lock("gate", exclusive=False):
                held.enter_context(self._lock("room", exclusive=False))
            yield

    @contextmanager
    def exclusive(self, holder: str) -> Iterator[None]:
        """Hold the cluster alone; ``holder`` is what :meth:`holder` tells those who wait."""
        note = self._folder / "holder"
        with self._lock("gate", exclusive=True), self._lock("room", exclusive=True):
            note.write_text(holder, "utf-8")
            try:
                yield
            finally:
                note.unlink(missing_ok=True)

    def holder(self) -> str | None:
        """Return who holds the cluster alone at the moment, for people; it may be outdated."""
        try:
            return (self._folder / "holder").read_text("utf-8")
        except FileNotFoundError:
            return None

    @contextmanager
    def _lock(self, name: str, *, exclusive: bool) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.lock"
        if sys.platform == "win32":
            with FileLock(path):
                yield
        else:
            # Closing the file gives the lock back.
            with path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
                yield
