"""One watch per kind, shared by all controllers, with the indexes they need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError, Cache
from pytest_pgo_eks.local.objects import Kind, Obj, key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """What a watch told: ``new`` is None after a deletion, ``old`` None after a creation."""

    old: Obj | None
    new: Obj | None

    @property
    def obj(self) -> Obj:
        """Return the newest known state."""
        found = self.new or self.old
        assert found is not None
        return found


class Informer:
    """The objects of one kind, indexed by name, namespace and controller."""

    def __init__(self, client: ApiClient, kind: Kind) -> None:
        self.kind = kind
        self._cache = Cache(client, kind, changed=self._changed)
        self.synced = self._cache.synced
        self._known: dict[tuple[str, str], Obj] = {}
        self._by_namespace: dict[str, dict[str, Obj]] = {}
        self._by_owner: dict[str, dict[str, Obj]] = {}
        self._listeners: list[Callable[[Change], None]] = []

    def __iter__(self) -> Iterator[Obj]:
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call the listener after every change; those already known are told at once."""
        self._listeners.append(listener)
        for obj in self:
            listener(Change(None, obj))

    def get(self, name: str, namespace: str = "") -> Obj | None:
        return self._known.get((namespace, name))

    def within(self, namespace: str) -> list[Obj]:
        """Return the objects of one namespace."""
        return list(self._by_namespace.get(namespace, {}).values())

    def controlled_by(self, uid: str) -> list[Obj]:
        """Return the objects whose controller owner has this UID."""
        return list(self._by_owner.get(uid, {}).values())

    def learn(self, answer: Obj) -> Obj:
        """Take the answer to a write at once, and return it."""
        if answer.get("kind") == self.kind.kind and answer["metadata"].get("resourceVersion"):
            self._cache.learn(answer)
        return answer

    async def run(self) -> None:
        await self._cache.run()

    def _changed(self, event: str, obj: Obj) -> None:
        # Most of an object's bytes are managedFields, and no controller reads them.
        obj["metadata"].pop("managedFields", None)
        new = None if event == "DELETED" else obj
        old = self._known.get(key(obj))
        if old is not None and new is not None and _uid(old) != _uid(new):
            self._take(Change(old, None))
            old = None
        if old is None and new is None:
            return
        self._take(Change(obj if new is None else old, new))

    def _take(self, change: Change) -> None:
        namespace, name = key(change.obj)
        if change.old is not None:
            self._known.pop((namespace, name), None)
            self._by_namespace.get(namespace, {}).pop(name, None)
            for uid in _controllers(change.old):
                dependents = self._by_owner.get(uid, {})
                dependents.pop(_uid(change.old), None)
                if not dependents:
                    self._by_owner.pop(uid, None)
        if change.new is not None:
            self._known[namespace, name] = change.new
            self._by_namespace.setdefault(namespace, {})[name] = change.new
            for uid in _controllers(change.new):
                self._by_owner.setdefault(uid, {})[_uid(change.new)] = change.new
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:
                log.exception("a listener failed on %s %s/%s", self.kind.kind, namespace, name)


class Informers:
    """The informers of a set of controllers; asking for a kind is enough to have it watched."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client
        self._informers: dict[Kind, Informer] = {}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[Kind, asyncio.Task[None]] = {}

    def of(self, kind: Kind) -> Informer:
        if kind not in self._informers:
            self._informers[kind] = Informer(self.client, kind)
            self._start(kind)
        return self._informers[kind]

    def known(self) -> list[Informer]:
        """Return every informer there is."""
        return list(self._informers.values())

    def drop(self, kind: Kind) -> None:
        """Stop watching a kind that the server no longer serves."""
        self._informers.pop(kind, None)
        task = self._tasks.pop(kind, None)
        if task:
            task.cancel()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Run every watch, those asked for later too, in the group."""
        self._group = group
        for kind in self._informers:
            self._start(kind)

    async def synced(self) -> None:
        """Wait until every kind asked for so far was listed once."""
        for informer in list(self._informers.values()):
            while not informer.synced.is_set():
                try:
                    async with asyncio.timeout(10):
                        await informer.synced.wait()
                except TimeoutError:
                    log.warning("still waiting for the first list of %s", informer.kind.plural)

    def _start(self, kind: Kind) -> None:
        if self._group and kind not in self._tasks:
            informer = self._informers[kind]
            self._tasks[kind] = self._group.create_task(informer.run(), name=f"watch {kind.plural}")


async def served_kinds(client: ApiClient) -> list[Kind]:
    """Ask discovery for every kind that can be listed, watched and deleted.

    Of a group served in several versions only the preferred one counts, and Events never do:
    nothing depends on them and they are many.
    """
    groups = await client.request("GET", "/apis")
    versions = ["v1"] + [
        group["preferredVersion"]["groupVersion"] for group in groups.get("groups") or []
    ]
    found = []
    for version in versions:
        path = "/api/v1" if version == "v1" else f"/apis/{version}"
        try:
            resources = (await client.request("GET", path)).get("resources") or []
        except ApiError as error:
            if error.code != 404:
                raise
            continue
        found += [
            Kind(version, resource["kind"], resource["name"], namespaced=resource["namespaced"])
            for resource in resources
            if "/" not in resource["name"]
            and resource["name"] != "events"
            and {"list", "watch", "delete"} <= set(resource.get("verbs") or [])
        ]
    return found


def _uid(obj: Obj) -> str:
    uid: str = obj["metadata"]["uid"]
    return uid


def _controllers(obj: Obj) -> list[str]:
    references = obj["metadata"].get("ownerReferences") or []
    return [reference["uid"] for reference in references if reference.get("controller")]
