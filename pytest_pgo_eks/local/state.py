"""State directories: where a stand-in cluster keeps what it needs, and how we know that it lives.

A cluster lives as long as somebody holds the lock on its ``lock`` file; the supervisor and its
parent do, and the kernel lets go when they are gone, however they went. Nothing else is trusted: a
recorded process id may be somebody else's by now.

::

    lock                held while the cluster lives
    cluster.json        written at start: name, process, when
    ready.json          written once everything serves: what ``up --json`` prints
    kubeconfig          the admin's, mode 0600
    supervisor.log      what the control plane, kubelet and network say
    pki/ volumes/ …     the parts' own
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Life = Literal["running", "starting", "dead"]

# This very Python: the one that is called so on the user's path may not have the package.
PROGRAM = f"{shlex.quote(sys.executable)} -m pytest_pgo_eks.local"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


class InputProblem(ValueError):
    """The user's input cannot work: one line, exit status 4, nothing created."""


@dataclass(frozen=True)
class Record:
    """What is known of a cluster from its start on. ``pid`` is the supervisor's parent (unshare)."""

    name: str
    pid: int
    started: str
    owner_pid: int | None = None


class StateDir:
    """One cluster's directory. Making the object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_file = path / "lock"
        self.record_file = path / "cluster.json"
        self.ready_file = path / "ready.json"
        self.kubeconfig = path / "kubeconfig"
        self.log_file = path / "supervisor.log"
        self.pki = path / "pki"
        self.upstream_file = path / "upstream.json"

    def is_ours(self) -> bool:
        """Say whether this is a directory that a stand-in cluster made."""
        return self.lock_file.is_file()

    def claim(self) -> int:
        """Create the directory and take its lock; return the lock's descriptor.

        What a dead cluster left here is removed first.

        :raises InputProblem: it is in use, not empty and not ours, or cannot be written.
        """
        try:
            if self.path.is_dir() and not self.is_ours() and any(self.path.iterdir()):
                raise InputProblem(
                    f"{self.path} is not empty and no stand-in cluster made it: "
                    "name a new directory with --state-dir"
                )
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = self._lock()
        except OSError as error:
            raise InputProblem(
                f"the state directory {self.path} cannot be written: {error.strerror}"
            ) from error
        if lock is None:
            record = self.record()
            who = f"{record.name!r} (process {record.pid})" if record else "another start"
            raise InputProblem(
                f"the state directory {self.path} is in use by {who}: name another one with --name "
                f"or --state-dir, or remove that cluster: "
                f"{PROGRAM} down --state-dir {shlex.quote(str(self.path))}"
            )
        _empty(self.path, spare=self.lock_file)
        return lock

    def _lock(self) -> int | None:
        while True:
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A cluster that removes itself unlinks the file: such a lock protects nothing.
                if self.holds(fd):
                    return fd
            except BlockingIOError:
                os.close(fd)
                return None
            os.close(fd)
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def holds(self, lock: int) -> bool:
        """Say whether a descriptor is still the lock of this directory."""
        try:
            return os.stat(self.lock_file).st_ino == os.fstat(lock).st_ino  # noqa: PTH116
        except FileNotFoundError:
            return False

    def life(self) -> Life:
        """Say whether the cluster lives, by its lock alone."""
        try:
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return "dead"
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "running" if self.ready_file.exists() else "starting"
        else:
            return "dead"
        finally:
            os.close(fd)

    def record(self) -> Record | None:
        found = _read(self.record_file)
        return Record(**found) if found else None

    def ready(self) -> dict[str, Any] | None:
        return _read(self.ready_file)

    def write_record(self, record: Record) -> None:
        write(self.record_file, json.dumps(asdict(record)))

    def write_ready(self, answer: dict[str, Any]) -> None:
        write(self.ready_file, json.dumps(answer))

    def remove(self) -> None:
        """Remove the directory, the lock last. Never follows a link.

        :raises OSError: something could not be removed.
        """
        if not self.path.is_dir() or not self.is_ours():
            return
        _empty(self.path, spare=self.lock_file)
        self.lock_file.unlink(missing_ok=True)
        self.path.rmdir()


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    partial.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def _empty(path: Path, *, spare: Path) -> None:
    for child in path.iterdir():
        if child != spare:
            _remove(child)


def _remove(path: Path) -> None:
    """Remove a file, a link or a tree; what somebody else removes meanwhile is fine."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        try:
            shutil.rmtree(path)
        except PermissionError:
            _open_up(path)
            shutil.rmtree(path)


def _open_up(path: Path) -> None:
    """Let ourselves into directories that are closed to their own owner."""
    path.chmod(stat.S_IRWXU)
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            _open_up(child)


# ---------------------------------------------------------------------- finding clusters


def root() -> Path:
    """Return the directory of all this user's clusters.

    :raises InputProblem: nobody says where this user's files are.
    """
    home = os.environ.get("XDG_STATE_HOME")
    try:
        base = Path(home) if home else Path.home() / ".local" / "state"
    except RuntimeError:
        raise InputProblem("this user has no home directory: set XDG_STATE_HOME") from None
    return base / "pytest-pgo-eks" / "local"


def check_name(name: str) -> str:
    """Return the name.

    :raises InputProblem: it is no DNS label of at most 40 characters.
    """
    if not _NAME.fullmatch(name):
        raise InputProblem(
            f"{name!r} is no cluster name: 1 to 40 lower-case letters, digits and hyphens"
        )
    return name


def place(name: str | None, state_dir: Path | None) -> tuple[str, StateDir]:
    """Return a cluster's name and directory from what the user gave (either, both or neither).

    :raises InputProblem: the name is not one.
    """
    if state_dir is None:
        name = check_name(name or "local")
        return name, StateDir(root() / name)
    state_dir = Path(os.path.abspath(state_dir.expanduser()))  # noqa: PTH100 - keeps links as given
    found = name or re.sub(r"[^a-z0-9-]+", "-", state_dir.name.lower()).strip("-")[:40].strip("-")
    return check_name(found or "local"), StateDir(state_dir)


def register(name: str, state: StateDir) -> None:
    """Make a directory outside the root findable: a link in the root.

    :raises InputProblem: another cluster has the name.
    """
    entry = root() / name
    if entry == state.path:
        return
    entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if entry.is_symlink():
        other = StateDir(entry.readlink())
        if other.path != state.path and other.is_ours():
            raise InputProblem(f"the name {name!r} is taken by the cluster in {other.path}")
        entry.unlink()
    elif entry.exists():
        raise InputProblem(f"the name {name!r} is taken by the cluster in {entry}")
    entry.symlink_to(state.path)


def forget(state: StateDir) -> None:
    """Remove the links to a directory."""
    with contextlib.suppress(FileNotFoundError):
        for entry in root().iterdir():
            if entry.is_symlink() and entry.readlink() == state.path:
                entry.unlink(missing_ok=True)


def everything() -> Iterator[tuple[str, StateDir]]:
    """Yield all clusters of this user, living or dead, by name."""
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(root().iterdir()):
            state = StateDir(entry.readlink() if entry.is_symlink() else entry)
            if state.is_ours():
                yield entry.name, state
            elif entry.is_symlink():
                entry.unlink(missing_ok=True)
