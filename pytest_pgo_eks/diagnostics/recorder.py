"""Records logs, events and every change of objects from the first second, for whoever fails later.

A pod that is deleted takes its logs along, and an object shows only its last state: what explains a
failure is mostly gone when it is noticed. So everything is streamed to files while the run lasts. A
scenario that fails gets its part of them; the rest is thrown away with the run.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import yaml

from pytest_pgo_eks.diagnostics.changed import changes
from pytest_pgo_eks.diagnostics.collect import Collection
from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.following import LogFollower, follow
from pytest_pgo_eks.kube.watching import WatchEvent, WatchLoop

Object = dict[str, Any]
_KINDS = (
    "Pod",
    "Endpoints",
    "PersistentVolumeClaim",
    "apps/v1/StatefulSet",
    "apps/v1/Deployment",
    "batch/v1/Job",
    "PostgresCluster",
)
_EVENTS = "events.txt"
_CHANGES = "changes.txt"
_RETRY_S = 0.5
_END_S = 5.0


@dataclass(frozen=True)
class Begin:
    """A moment, and what every watched object was then."""

    at: str
    objects: Mapping[tuple[str, str, str], Object]


class Recorder:
    """Follows namespaces until it is stopped.

    One that was never started reads what another process records in the same folder.
    """

    def __init__(self, kube: Kube, namespaces: Sequence[str], folder: Path) -> None:
        self._kube = kube
        self._namespaces = tuple(dict.fromkeys(namespaces))
        self._folder = folder
        self._files: dict[str, TextIO] = {}
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._followed: dict[str, LogFollower] = {}
        self._loops: list[WatchLoop] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._troubles: list[str] = []

    @property
    def first(self) -> Begin:
        """The begin of everything."""
        return Begin("", {})

    def start(self) -> None:
        """Begin to record. Nothing is raised: what cannot be seen is noted for :meth:`extract`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for namespace in self._namespaces:
            for kind in (*_KINDS, "Event"):
                self._run(f"record {kind}", self._watch, kind, namespace)

    def stop(self) -> None:
        """End every stream and close the files."""
        self._stopped.set()
        with self._lock:
            loops, followers = [*self._loops], [*self._followed.values()]
        for loop in loops:
            loop.stop()
        for follower in followers:
            follower.stop()
        ends = time.monotonic() + _END_S
        for thread in self._threads:
            thread.join(max(ends - time.monotonic(), 0.0))
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def begin(self) -> Begin:
        """Return this moment; give it to :meth:`extract` when something went wrong after it."""
        with self._lock:
            return Begin(_now(), dict(self._objects))

    def extract(self, begin: Begin, found: Collection) -> None:
        """Write what was recorded since ``begin`` into a collection."""
        with self._lock:
            troubles = list(self._troubles)
        for path in sorted(self._folder.glob("*")):
            lines = _since(path, begin.at)
            if lines:
                found.write(f"stream/{path.name}", "\n".join(lines) + "\n")
        kinds: dict[str, list[Object]] = {}
        for (kind, _, _), one in sorted(begin.objects.items()):
            kinds.setdefault(kind.rpartition("/")[2].lower(), []).append(one)
        for kind, objects in kinds.items():
            text = yaml.safe_dump_all(objects, sort_keys=False, width=140, allow_unicode=True)
            found.write(f"objects-at-begin/{kind}.yaml", text)
        found.missing.extend(f"recording: {line}" for line in troubles)

    # -- inside ---------------------------------------------------------------------------------

    def _run(self, name: str, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()]
            self._threads.append(thread)
        thread.start()

    def _watch(self, kind: str, namespace: str) -> None:
        while not self._stopped.is_set():
            try:
                loop = self._kube.watch_loop(kind, namespace)
                with self._lock:
                    self._loops.append(loop)
                for event in loop.events(None):
                    self._take(kind, namespace, event)
            except ApiProblem as problem:
                # A kind may come later (PostgresCluster), a right never.
                if problem.status == 403:
                    self._trouble(f"{kind} in {namespace}: {problem}")
                    return
            self._stopped.wait(_RETRY_S)

    def _take(self, kind: str, namespace: str, event: WatchEvent) -> None:
        one = event.object
        name = one["metadata"]["name"]
        if kind == "Event":
            if event.type != "DELETED":
                self._write(_EVENTS, _told(one))
            return
        key = (kind, namespace, name)
        with self._lock:
            old = self._objects.get(key)
            if event.type == "DELETED":
                self._objects.pop(key, None)
            else:
                self._objects[key] = one
        about = f"{kind.rpartition('/')[2]} {name}"
        if event.type == "MODIFIED" and old is not None:
            for line in changes(old, one):
                self._write(_CHANGES, f"{about}: {line}")
        else:
            self._write(_CHANGES, f"{about}: {event.type.lower()}")
        if kind == "Pod" and event.type != "DELETED":
            self._follow_all(namespace, one)

    def _follow_all(self, namespace: str, pod: Object) -> None:
        status = pod.get("status") or {}
        for one in [
            *(status.get("initContainerStatuses") or []),
            *(status.get("containerStatuses") or []),
        ]:
            life = one.get("containerID")
            if not life or "waiting" in (one.get("state") or {}):
                continue
            with self._lock:
                if life in self._followed or self._stopped.is_set():
                    continue
                name = pod["metadata"]["name"]
                self._followed[life] = follow(self._kube, namespace, name, one["name"])
            restarts = int(one.get("restartCount", 0))
            self._run(f"log of {name}", self._follow, life, f"{name}.{one['name']}.log", restarts)

    def _follow(self, life: str, file: str, restarts: int) -> None:
        if restarts:
            self._write(file, f"—— the container begins anew, for the {restarts}. time ——")
        with contextlib.suppress(ApiProblem):
            for line in self._followed[life].lines():
                self._write(file, line, stamped=True)

    def _write(self, name: str, line: str, *, stamped: bool = False) -> None:
        with self._lock:
            if self._stopped.is_set():
                return
            file = self._files.get(name)
            if file is None:
                file = self._files[name] = (self._folder / name).open(
                    "a", encoding="utf-8", buffering=1
                )
            file.write(f"{line}\n" if stamped else f"{_now()} {line}\n")

    def _trouble(self, line: str) -> None:
        with self._lock:
            self._troubles.append(line)


def _told(event: Object) -> str:
    about = event.get("involvedObject") or {}
    message = " ".join(str(event.get("message", "")).split())
    return (
        f"{event.get('type', '')} {event.get('reason', '')} {about.get('kind', '')}/"
        f"{about.get('name', '')} x{event.get('count') or 1}: {message}"
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _since(path: Path, at: str) -> list[str]:
    """Return the lines that were written at ``at`` or later; one without a time goes with the last."""
    kept: list[str] = []
    late = False
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            # Times differ in how many digits they have behind the second; the second decides.
            stamp = line[:19]
            if len(stamp) == 19 and stamp[4] == "-" and stamp[10] == "T":
                late = stamp >= at[:19]
            if late:
                kept.append(line.rstrip("\n"))
    return kept
