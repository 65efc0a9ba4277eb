"""Things that all processes of a run share and exactly one of them makes.

The first to need a thing makes it, under a file lock; the others wait and read what it left. A
failure is recorded too, so that thirty scenarios on four workers do not try thirty times.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_pgo_eks import errors
from pytest_pgo_eks.errors import ClusterProblem, PgoEksError, UsageProblem

Json = dict[str, Any]


class Shared:
    """A folder in which the processes of one run agree; each ``name`` is made at most once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, make: Callable[[], Json]) -> Json:
        """Return what ``make`` returned in whichever process came first.

        :raises PgoEksError: ``make`` failed, here or there: the same class, the same message.
        """
        with self._locked(name):
            record = self._read(name)
            if record is None:
                record = self._made(name, make)
        if error := record.get("error"):
            raise revived(error)
        found: Json = record["value"]
        return found

    def found(self, name: str) -> Json | None:
        """Return what was made under ``name``, or None where nothing was or it failed."""
        record = self._read(name)
        return record.get("value") if record else None

    def failure(self, name: str) -> PgoEksError | None:
        """Return the error with which making ``name`` failed, if it did."""
        record = self._read(name)
        return revived(record["error"]) if record and "error" in record else None

    def note(self, name: str, value: Json) -> None:
        """Record something that needs no making; the last one wins."""
        self._write(name, {"value": value})

    def first(self, name: str) -> bool:
        """Whether nobody in the run has asked this question about ``name`` before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            (self.folder / f"{name}.first").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def fail(self, name: str, error: PgoEksError) -> None:
        """Record that ``name`` cannot be made."""
        self._write(name, _failure(error))

    def _made(self, name: str, make: Callable[[], Json]) -> Json:
        begun = self.folder / f"{name}.begun"
        if begun.exists():
            # Whoever began did not come to an end: it was killed, and trying again would only put a
            # second half-made cluster beside the first.
            maker = begun.read_text("utf-8")
            record = _failure(ClusterProblem(f"process {maker} died while it made the {name}"))
            self._write(name, record)
            return record
        self.folder.mkdir(parents=True, exist_ok=True)
        begun.write_text(str(os.getpid()), "utf-8")
        try:
            record = {"value": make()}
        except Exception as error:  # noqa: BLE001 - every failure must be told to the other workers
            record = _failure(error)
        self._write(name, record)
        return record

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f"{name}.lock", poll_interval=0.05):
            yield

    def _read(self, name: str) -> Json | None:
        try:
            record: Json = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except FileNotFoundError:
            return None
        return record

    def _write(self, name: str, record: Json) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{name}.{os.getpid()}.tmp"
        draft.write_text(json.dumps(record), "utf-8")
        draft.replace(self.folder / f"{name}.json")


def _failure(error: Exception) -> Json:
    kind = type(error).__name__ if isinstance(error, PgoEksError) else ClusterProblem.__name__
    text = str(error) if isinstance(error, PgoEksError) else f"{type(error).__name__}: {error}"
    return {"error": {"kind": kind, "message": text}}


def revived(record: Json) -> PgoEksError:
    """Return the recorded error as an exception of its class."""
    found = getattr(errors, record["kind"], ClusterProblem)
    known = isinstance(found, type) and issubclass(found, PgoEksError)
    error: PgoEksError = (found if known else ClusterProblem)(record["message"])
    return error


def is_usage(error: PgoEksError | None) -> bool:
    """Whether the run must end with exit status 4."""
    return isinstance(error, UsageProblem)
