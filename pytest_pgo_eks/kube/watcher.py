"""One watch per kind and namespace, shared by all waits: a wait then costs no request of its own.

A :class:`Feed` keeps what its watch saw last, counts changes, and wakes waits. It never answers
from a dead watch: while nothing can be seen, looking at it raises, so that a wait says "could not
see" instead of repeating an old truth.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.kube.client import Kube
from pytest_pgo_eks.kube.listing import Labels, Object
from pytest_pgo_eks.kube.watching import WatchLoop

# Reopening a stream takes milliseconds; only a longer gap makes what is kept doubtful.
STALE_S = 2.0
FIRST_LIST_S = 10.0


class Feed:
    """What one watch sees. A :class:`~pytest_pgo_eks.kube.wait.Wakeup`, safe for many threads."""

    def __init__(self, loop: WatchLoop, what: str, changed: threading.Condition) -> None:
        self._loop = loop
        self._what = what
        self._changed = changed
        self._sequence = 0
        self._objects: dict[tuple[str, str], Object] = {}
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    def sequence(self) -> int:
        return self._sequence

    def wait(self, after: int, timeout_s: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._sequence > after, timeout_s)
            return self._sequence

    def objects(self, labels: Mapping[str, str] | None = None) -> list[Object]:
        """Return what exists, as seen last, sorted by namespace and name. Do not change it.

        :raises ApiProblem: nothing can be seen at the moment.
        """
        self._see()
        with self._changed:
            found = [self._objects[key] for key in sorted(self._objects)]
        if not labels:
            return found
        return [one for one in found if _labelled(one, labels)]

    def get(self, name: str, namespace: str | None = None) -> Object | None:
        """Return one object as seen last; ``namespace`` is needed only in an all-namespace feed.

        :raises ApiProblem: nothing can be seen at the moment.
        """
        for one in self.objects():
            meta = one["metadata"]
            if meta["name"] == name and namespace in (None, meta.get("namespace")):
                return one
        return None

    def close(self) -> None:
        self._loop.stop()
        self._thread.join(timeout=5)

    def _see(self) -> None:
        if self._loop.synced.is_set() and self._loop.problem is None and self._failed is None:
            return
        synced = self._loop.synced.wait(FIRST_LIST_S)
        if self._failed is not None:
            raise ApiProblem(str(self._failed)) from self._failed
        problem = self._loop.problem
        if not synced:
            raise ApiProblem(f"{self._what}: no first list within {FIRST_LIST_S:g} s: {problem}")
        if problem is not None and time.monotonic() - self._loop.since > STALE_S:
            raise ApiProblem(f"{self._what}: out of sight: {problem}", status=problem.status)

    def _run(self) -> None:
        try:
            for event in self._loop.events(None):
                meta: dict[str, Any] = event.object.get("metadata") or {}
                key = (str(meta.get("namespace") or ""), str(meta.get("name")))
                with self._changed:
                    if event.type == "DELETED":
                        # A successor of the same name may have come first after a gap.
                        kept = self._objects.get(key)
                        if kept is not None and _uid(kept) == meta.get("uid"):
                            del self._objects[key]
                    else:
                        self._objects[key] = event.object
                    self._sequence += 1
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001
            # Whatever ended the watch, the waits have to hear of it.
            with self._changed:
                self._failed = error
                self._loop.synced.set()
                self._sequence += 1
                self._changed.notify_all()


class AnyOf:
    """Wakes when any of several feeds of one Watcher changes."""

    def __init__(self, feeds: tuple[Feed, ...], changed: threading.Condition) -> None:
        self._feeds = feeds
        self._changed = changed

    def sequence(self) -> int:
        return sum(feed.sequence() for feed in self._feeds)

    def wait(self, after: int, timeout_s: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self.sequence() > after, timeout_s)
            return self.sequence()


class Watcher:
    """Opens each watch once, however many waits want it. Close it, or use it as a context."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._changed = threading.Condition()
        self._lock = threading.Lock()
        self._feeds: dict[tuple[str, str | None, str, str], Feed] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def feed(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: Labels = None,
        fields: Labels = None,
    ) -> Feed:
        """Return the feed of a kind, starting its watch if nobody did. Returns at once.

        :raises NotFound: the server serves no such kind.
        """
        key = (kind, namespace, _text(labels), _text(fields))
        with self._lock:
            found = self._feeds.get(key)
            if found is None:
                loop = self._kube.watch_loop(kind, namespace, labels=labels, fields=fields)
                where = f" in {namespace}" if namespace else ""
                found = self._feeds[key] = Feed(loop, f"watch of {kind}{where}", self._changed)
            return found

    def any_of(self, *feeds: Feed) -> AnyOf:
        """Return a Wakeup over several of this Watcher's feeds."""
        return AnyOf(feeds, self._changed)

    def close(self) -> None:
        with self._lock:
            feeds, self._feeds = list(self._feeds.values()), {}
        for feed in feeds:
            feed.close()


def _labelled(one: Object, wanted: Mapping[str, str]) -> bool:
    labels = one["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in wanted.items())


def _uid(one: Object) -> object:
    return (one.get("metadata") or {}).get("uid")


def _text(selector: Labels) -> str:
    if isinstance(selector, Mapping):
        return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    return selector or ""
