"""Clusters that outlive the process that made them because it was killed.

One JSON file per run under ``runs/`` of the state folder, written before the cluster is made and
deleted when it is gone, or when the user was told how to remove what ``--pgo-keep`` kept.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_pgo_eks.clusters.base import LedgerEntry, Provider, Swept, state_root
from pytest_pgo_eks.errors import ClusterProblem, PgoEksError, UsageProblem
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.session import operators
from pytest_pgo_eks.settings import Settings


def open_entry(settings: Settings, run: str) -> Path:
    """Write this process's entry, without a cluster in it yet; return its path."""
    path = state_root(settings) / "runs" / f"{run}.json"
    owner = os.getpid()
    LedgerEntry(settings.provider, owner, started(owner), keep=settings.keep).write(path)
    return path


def entries(settings: Settings) -> Iterator[tuple[Path, LedgerEntry]]:
    """Yield every readable entry; what is not one is no business of ours."""
    for path in sorted((state_root(settings) / "runs").glob("*.json")):
        try:
            yield path, LedgerEntry.read(path)
        except ClusterProblem:
            continue


def sweep(
    settings: Settings, providers: Mapping[str, Provider], progress: Progress
) -> Iterator[str]:
    """Remove what killed runs left, where the provider does that quickly; yield a line for each."""
    for path, entry in entries(settings):
        if alive(entry.owner_pid, entry.owner_started):
            continue
        swept: Swept = "left"
        if not entry.keep:
            swept = _swept(entry, providers.get(entry.provider), progress)
        if swept == "left":
            yield f"cluster {entry.name} is left by a run that was killed; remove it: {entry.remove}"
            continue
        record = operators.record_of(path)
        try:
            kept = operators.remove(record, entry.provider, progress)
        except PgoEksError as error:
            yield f"{error}; its list: {record}"
            continue
        yield from kept
        path.unlink(missing_ok=True)
        if swept == "removed":
            yield f"removed cluster {entry.name}, which a run that was killed had left"


def _swept(entry: LedgerEntry, provider: Provider | None, progress: Progress) -> Swept:
    if not entry.name:
        return "absent"
    try:
        return provider.sweep(entry, progress) if provider else "left"
    except PgoEksError:
        return "left"


class InUse:
    """Holds a kept cluster for one run at a time, by an open lock file."""

    def __init__(self, settings: Settings) -> None:
        from filelock import FileLock, Timeout

        folder = state_root(settings) / "in-use"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{settings.provider}-{settings.reuse}.lock"
        self._lock = FileLock(self._path)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise UsageProblem(
                f"--pgo-reuse: another run is using cluster {settings.reuse!r} right now"
            ) from None

    def release(self) -> None:
        # While it is held: whoever opened it before takes it for held (filelock looks at st_nlink),
        # and the next makes a new one. Windows removes no open file.
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._lock.release()


def started(pid: int) -> int:
    """Return when process ``pid`` started, in clock ticks since boot; 0 where nobody knows."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return 0
    # The second field is the program's name in parentheses and may hold spaces and parentheses.
    return int(stat.rpartition(")")[2].split()[19])


def alive(pid: int, since: int) -> bool:
    """Whether the process that was ``pid`` and started at ``since`` still runs."""
    if since:
        return started(pid) == since
    if sys.platform == "win32":
        return True  # there signal 0 would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
