"""The objects, their versions, and the recent past from which watches go on.

Everything happens in one event loop without awaiting, so each call is atomic. Stored objects are
never changed in place: whoever wants another state stores another object. JSON is made once per
version, and once per watch event for all watchers together.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pytest_pgo_eks.local.apiserver.problems import expired
from pytest_pgo_eks.local.objects import Obj

# Enough for a client that was away for some minutes in a busy cluster; after that it lists again.
HISTORY = 2000
# A pod of four containers is 20 kB of JSON: 2000 versions of such pods would be 40 MB, and five
# times that as dicts. Twenty minutes of failovers took the whole process to 310 MiB.
_HISTORY_BYTES = 6 * 1024 * 1024
# So many of the newest events keep their line and their objects: all watchers have had them then.
_FRESH = 32
# A watcher that has not read so many events is not reading at all.
_BACKLOG = 5000


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Stored:
    """One version of one object. ``raw`` is its JSON."""

    __slots__ = ("_obj", "_raw", "version")

    def __init__(self, obj: Obj, version: int) -> None:
        self._obj: Obj | None = obj
        self.version = version
        self._raw: bytes | None = None

    @property
    def obj(self) -> Obj:
        """The object. An old version's is decoded anew each time."""
        found: Obj = json.loads(self.raw) if self._obj is None else self._obj
        return found

    def age(self) -> None:
        """Keep only the JSON: there is a newer version, and few will ask for this one."""
        self._raw = self.raw
        self._obj = None

    @property
    def raw(self) -> bytes:
        if self._raw is None:
            self._raw = encode(self._obj)
        return self._raw

    def copy(self) -> Obj:
        """Return a private copy (decoding is faster than ``copy.deepcopy``, about 5 times)."""
        found: Obj = json.loads(self.raw)
        return found


class Change:
    """One event. ``before`` is the state a MODIFIED or DELETED object had."""

    __slots__ = ("_line", "before", "now", "type", "version")

    def __init__(self, what: str, now: Stored, before: Stored | None) -> None:
        self.type = what
        self.now = now
        self.before = before
        self.version = now.version
        self._line: bytes | None = None

    def line(self) -> bytes:
        """Return the watch line of the event as it happened."""
        if self._line is None:
            self._line = event_line(self.type, self.now.raw)
        return self._line

    def age(self) -> None:
        """Forget the line, and keep superseded states as JSON only: few will ask for them."""
        self._line = None
        if self.before is not None:
            self.before.age()
        if self.type == "DELETED":
            self.now.age()


def event_line(what: str, raw: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (what.encode(), raw)


class Watcher:
    """What one watch has not yet sent. ``wake`` is set when there is something, or at the end."""

    __slots__ = ("closed", "namespace", "pending", "wake")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.pending: deque[Change] = deque()
        self.wake = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.wake.set()


class Collection:
    """All objects of one resource, by namespace (``""`` for cluster-scoped ones) and name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._items: dict[str, dict[str, Stored]] = {}
        self._history: deque[Change] = deque()
        self._history_bytes = 0
        self._forgotten = 0
        self._watchers: set[Watcher] = set()

    def get(self, namespace: str, name: str) -> Stored | None:
        found = self._items.get(namespace)
        return found.get(name) if found else None

    def namespace(self, namespace: str) -> Iterable[Stored]:
        """Return the objects of one namespace, unordered."""
        return self._items.get(namespace, {}).values()

    def __iter__(self) -> Iterator[Stored]:
        for inner in self._items.values():
            yield from inner.values()

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def page(
        self, namespace: str | None, after: tuple[str, str] | None, limit: int
    ) -> tuple[list[Stored], bool]:
        """Return objects in order of (namespace, name), and whether there are more."""
        spaces = [namespace] if namespace is not None else sorted(self._items)
        found: list[Stored] = []
        for space in spaces:
            inner = self._items.get(space) or {}
            for name in sorted(inner):
                if after is not None and (space, name) <= after:
                    continue
                if limit and len(found) == limit:
                    return found, True
                found.append(inner[name])
        return found, False

    def put(self, obj: Obj) -> Stored:
        """Store a new version of the object; its resourceVersion is set here."""
        metadata = obj["metadata"]
        version = self._store.advance()
        metadata["resourceVersion"] = str(version)
        stored = Stored(obj, version)
        space = self._items.setdefault(metadata.get("namespace", ""), {})
        before = space.get(metadata["name"])
        space[metadata["name"]] = stored
        self._publish(Change("ADDED" if before is None else "MODIFIED", stored, before))
        return stored

    def remove(self, obj: Obj) -> Stored:
        """Remove the object; ``obj`` is the last state, which the DELETED event carries."""
        metadata = dict(obj["metadata"])
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        before = self._items[namespace].pop(name)
        if not self._items[namespace]:
            del self._items[namespace]
        version = self._store.advance()
        metadata["resourceVersion"] = str(version)
        stored = Stored({**obj, "metadata": metadata}, version)
        self._publish(Change("DELETED", stored, before))
        return stored

    def watch(self, namespace: str, since: int) -> Watcher:
        """Start a watch after version ``since`` (``""`` watches all namespaces).

        :raises Problem: 410 when the events since then are forgotten.
        """
        if since < self._forgotten:
            raise expired(f"too old resource version: {since} ({self._forgotten})")
        watcher = Watcher(namespace)
        for change in self._history:
            if change.version > since and self._concerns(watcher, change):
                watcher.pending.append(change)
        if watcher.pending:
            watcher.wake.set()
        self._watchers.add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def close_watches(self) -> None:
        """End every watch (the resource disappears, or the server stops)."""
        for watcher in self._watchers:
            watcher.close()
        self._watchers.clear()

    def forget(self) -> None:
        """Drop the remembered past, so that older watches answer 410."""
        self._history.clear()
        self._history_bytes = 0
        self._forgotten = self._store.version

    def _publish(self, change: Change) -> None:
        history = self._history
        history.append(change)
        self._history_bytes += len(change.now.raw)
        while len(history) > self._store.history or self._history_bytes > _HISTORY_BYTES:
            oldest = history.popleft()
            self._history_bytes -= len(oldest.now.raw)
            self._forgotten = oldest.version
        if len(history) > _FRESH:
            history[-_FRESH - 1].age()
        for watcher in self._watchers:
            if self._concerns(watcher, change):
                watcher.pending.append(change)
                watcher.wake.set()
                if len(watcher.pending) > _BACKLOG:
                    watcher.close()
        for listener in self._store.listeners:
            listener(change)

    @staticmethod
    def _concerns(watcher: Watcher, change: Change) -> bool:
        if not watcher.namespace:
            return True
        found: bool = change.now.obj["metadata"].get("namespace", "") == watcher.namespace
        return found


class Store:
    """All collections and the one counter of versions.

    ``listeners`` are called, in the loop and at once, with every change of any collection.
    """

    def __init__(self, history: int = HISTORY) -> None:
        self.version = 1000
        self.history = history
        self.listeners: list[Callable[[Change], None]] = []
        self._collections: dict[tuple[str, str], Collection] = {}

    def advance(self) -> int:
        self.version += 1
        return self.version

    def collection(self, storage: tuple[str, str]) -> Collection:
        found = self._collections.get(storage)
        if found is None:
            found = self._collections[storage] = Collection(self)
        return found

    def drop(self, storage: tuple[str, str]) -> None:
        """Forget a collection and end its watches."""
        found = self._collections.pop(storage, None)
        if found is not None:
            found.close_watches()

    def get(self, storage: tuple[str, str], namespace: str, name: str) -> Obj | None:
        """Return the stored object (not a copy)."""
        found = self.collection(storage).get(namespace, name)
        return found.obj if found else None

    def close(self) -> None:
        for collection in self._collections.values():
            collection.close_watches()
