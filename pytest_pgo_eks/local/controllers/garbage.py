"""The garbage collector: objects go when their owners are gone.

Background, foreground and orphan deletion as in
https://kubernetes.io/docs/concepts/architecture/garbage-collection/#cascading-deletion.
"""

from __future__ import annotations

import logging

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.kinds import AllKinds
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import Kind, Obj, key

log = logging.getLogger(__name__)
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
# The kind of an owner may not be served (yet): its dependents are looked at again this much later.
_UNKNOWN_KIND_S = 5.0


class GarbageCollector:
    """Keeps the graph of owners and dependents of everything there is, and tidies it."""

    def __init__(self, context: Context, kinds: AllKinds) -> None:
        self._context = context
        self._kinds = kinds
        self._found: dict[str, tuple[Kind, Obj]] = {}  # by UID
        self._dependents: dict[str, set[str]] = {}  # owner UID -> dependent UIDs
        self._queue: WorkQueue[str] = WorkQueue("garbage", self._sync)
        kinds.listen(self._changed)

    async def run(self) -> None:
        # Before everything is known, a missing owner may only be unlisted.
        await self._kinds.ready.wait()
        await self._queue.run()

    def _changed(self, kind: Kind, change: Change) -> None:
        uid = change.obj["metadata"]["uid"]
        before = {r["uid"] for r in _references(change.old)} if change.old else set()
        after = {r["uid"] for r in _references(change.new)} if change.new else set()
        for owner in before - after:
            self._dependents.get(owner, set()).discard(uid)
            if not self._dependents.get(owner):
                self._dependents.pop(owner, None)
            self._wake_owner(owner)
        for owner in after - before:
            self._dependents.setdefault(owner, set()).add(uid)
        if change.new is None:
            self._found.pop(uid, None)
            for dependent in self._dependents.get(uid, ()):
                self._queue.add(dependent)
            for owner in before:
                self._wake_owner(owner)
            return
        self._found[uid] = (kind, change.new)
        if change.old is None or before != after or _leaves(change.new) != _leaves(change.old):
            if after or _leaves(change.new):
                self._queue.add(uid)
            if _leaves(change.new):
                for dependent in self._dependents.get(uid, ()):
                    self._queue.add(dependent)

    def _wake_owner(self, uid: str) -> None:
        """An owner deleted in the foreground waits for its dependents."""
        found = self._found.get(uid)
        if found and _leaves(found[1]):
            self._queue.add(uid)

    async def _sync(self, uid: str) -> float | None:
        found = self._found.get(uid)
        if found is None:
            return None
        kind, obj = found
        finalizers = _leaves(obj)
        if ORPHAN in finalizers:
            await self._orphan(kind, obj)
            return None
        if FOREGROUND in finalizers:
            await self._delete_dependents_first(kind, obj)
            return None
        if obj["metadata"].get("deletionTimestamp"):
            return None
        return await self._judge(kind, obj)

    async def _judge(self, kind: Kind, obj: Obj) -> float | None:
        """Delete the object if none of its owners is left."""
        judged: dict[str, list[Obj]] = {"solid": [], "dangling": [], "waiting": []}
        for reference in _references(obj):
            state = await self._state_of(reference, key(obj)[0])
            if state is None:
                return _UNKNOWN_KIND_S
            judged[state].append(reference)
        dangling, waiting = judged["dangling"], judged["waiting"]
        if judged["solid"]:
            if dangling or waiting:
                await self._drop_references(kind, obj, {r["uid"] for r in dangling + waiting})
            return None
        if not dangling and not waiting:
            return None
        # An owner that waits for us is deleted in the foreground; so are our own dependents then.
        blocked = waiting and self._dependents.get(obj["metadata"]["uid"])
        propagation = "Foreground" if blocked else "Background"
        await self._context.delete(kind, obj, propagation=propagation)
        return None

    async def _state_of(self, reference: Obj, namespace: str) -> str | None:
        """Return solid, dangling or waiting; None when the kind is not served."""
        known = self._found.get(reference["uid"])
        if known:
            _, owner = known
            in_reach = key(owner)[0] in ("", namespace)
            if in_reach and owner["kind"] == reference["kind"]:
                return "waiting" if FOREGROUND in _leaves(owner) else "solid"
        kind = self._kinds.kind_of(reference["apiVersion"], reference["kind"])
        if kind is None:
            return None
        # Our own view may be behind: only the API server's word condemns an object.
        where = namespace if kind.namespaced else None
        if kind.namespaced and not namespace:
            return "dangling"
        found = await self._context.client.find(kind, reference["name"], where)
        if found is None or found["metadata"]["uid"] != reference["uid"]:
            return "dangling"
        return "solid"

    async def _delete_dependents_first(self, kind: Kind, obj: Obj) -> None:
        blocking = False
        for uid in list(self._dependents.get(obj["metadata"]["uid"], ())):
            found = self._found.get(uid)
            if found is None:
                continue
            for reference in _references(found[1]):
                if reference["uid"] == obj["metadata"]["uid"] and reference.get(
                    "blockOwnerDeletion"
                ):
                    blocking = True
            if not found[1]["metadata"].get("deletionTimestamp"):
                self._queue.add(uid)
        if not blocking:
            await self._remove_finalizer(kind, obj, FOREGROUND)

    async def _orphan(self, kind: Kind, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        for dependent in list(self._dependents.get(uid, ())):
            found = self._found.get(dependent)
            if found:
                await self._drop_references(*found, {uid})
        await self._remove_finalizer(kind, obj, ORPHAN)

    async def _drop_references(self, kind: Kind, obj: Obj, uids: set[str]) -> None:
        kept = [r for r in _references(obj) if r["uid"] not in uids]
        await self._patch(kind, obj, {"ownerReferences": kept or None})

    async def _remove_finalizer(self, kind: Kind, obj: Obj, finalizer: str) -> None:
        kept = [f for f in obj["metadata"].get("finalizers") or [] if f != finalizer]
        await self._patch(kind, obj, {"finalizers": kept or None})

    async def _patch(self, kind: Kind, obj: Obj, metadata: Obj) -> None:
        # The version guards against an object that somebody else just changed.
        version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        try:
            await self._context.patch(kind, obj, {"metadata": metadata | version})
        except ApiError as error:
            if error.code != 404:
                raise


def _references(obj: Obj) -> list[Obj]:
    return obj["metadata"].get("ownerReferences") or []


def _leaves(obj: Obj) -> tuple[str, ...]:
    """Return the finalizers by which a deleted object asks for our work; empty otherwise."""
    if not obj["metadata"].get("deletionTimestamp"):
        return ()
    finalizers = obj["metadata"].get("finalizers") or []
    return tuple(f for f in (FOREGROUND, ORPHAN) if f in finalizers)
