"""Get, list and watch: from stored objects to the bytes of an answer."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from pytest_pgo_eks.local.apiserver import events, problems, selecting, tables
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.problems import Problem
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.apiserver.selecting import Predicate
from pytest_pgo_eks.local.apiserver.store import (
    Change,
    Collection,
    Store,
    Stored,
    Watcher,
    encode,
    event_line,
)
from pytest_pgo_eks.local.objects import Obj

_BOOKMARK_S = 60.0
# How long a watch may last when the client does not say, as real servers choose it.
_WATCH_S = (1800.0, 3600.0)


@dataclass(frozen=True)
class Form:
    """How the client wants objects: as they are, as a table, or as metadata only."""

    shape: str = ""  # "", "Table" or "PartialObjectMetadata"
    version: str = "v1"


def form(accept: str) -> Form:
    """Choose from an ``Accept`` header.

    :raises Problem: 406 when none of what it names can be made here.
    """
    if not accept:
        return Form()
    for part in accept.split(","):
        kind, *parameters = (one.strip() for one in part.split(";"))
        if kind not in {
            "application/json",
            "*/*",
            "application/*",
            "text/plain",
            "application/yaml",
        }:
            continue
        given = dict(one.partition("=")[::2] for one in parameters)
        shape = given.get("as", "")
        if shape in {"Table", "PartialObjectMetadata", "PartialObjectMetadataList"}:
            return Form(shape.removesuffix("List"), given.get("v", "v1"))
        if not shape:
            return Form()
    raise Problem(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/yaml",
    )


def _shown(resource: Resource, stored: Stored) -> Obj:
    """Return the object in the resource's own version (shared, not to be changed)."""
    obj = stored.obj
    if resource.group == "events.k8s.io":
        return events.from_core(obj)
    if obj.get("apiVersion") != resource.api_version:
        return {**obj, "apiVersion": resource.api_version}
    return obj


def _raw(resource: Resource, stored: Stored) -> bytes:
    obj = _shown(resource, stored)
    return stored.raw if obj is stored.obj else encode(obj)


def render(resource: Resource, stored: Stored, how: Form, include: str = "Metadata") -> bytes:
    """Return one object in the wanted form."""
    if how.shape == "Table":
        return encode(tables.table(resource, [_shown(resource, stored)], how.version, include))
    if how.shape == "PartialObjectMetadata":
        return encode(_partial(_shown(resource, stored), how.version))
    return _raw(resource, stored)


def _partial(obj: Obj, version: str) -> Obj:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj["metadata"],
    }


class Reading:
    """Get, list and watch over a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, call: Call, how: Form) -> bytes:
        """:raises Problem: 404."""
        stored = self.store.collection(call.resource.storage).get(call.namespace, call.name)
        if stored is None:
            raise call.not_found()
        return render(call.resource, stored, how, call.query.get("includeObject", "Metadata"))

    def predicate(self, call: Call) -> Predicate | None:
        """Return what the call's selectors ask for."""
        return selecting.both(
            selecting.labels_predicate(call.query.get("labelSelector", "")),
            selecting.fields_predicate(call.query.get("fieldSelector", ""), call.resource),
        )

    def select(self, call: Call) -> list[Stored]:
        """Return the objects that a collection call is about, in order."""
        found, _, _ = self._page(call, 0, None)
        return found

    def _page(
        self, call: Call, limit: int, after: tuple[str, str] | None
    ) -> tuple[list[Stored], bool, Predicate | None]:
        collection = self.store.collection(call.resource.storage)
        namespace = call.namespace if call.namespace or not call.resource.namespaced else None
        name = selecting.single_name(call.query.get("fieldSelector", ""))
        predicate = self.predicate(call)
        if name is not None and namespace is not None:
            one = collection.get(namespace, name)
            found = [one] if one is not None and (predicate is None or predicate(one.obj)) else []
            return found, False, predicate
        if predicate is None:
            found, more = collection.page(namespace, after, limit)
            return found, more, None
        every, _ = collection.page(namespace, after, 0)
        found = [one for one in every if predicate(one.obj)]
        if limit and len(found) > limit:
            return found[:limit], True, predicate
        return found, False, predicate

    def list(self, call: Call, how: Form) -> bytes:
        """Return a list, or one page of it.

        :raises Problem: 400 for a bad selector or continue token.
        """
        limit = call.number("limit") or 0
        version, after = str(self.store.version), None
        token = call.query.get("continue")
        if token:
            version, after = _continued(token)
        found, more, _ = self._page(call, limit, after)
        inside: Obj = {"resourceVersion": version}
        if more:
            last = found[-1].obj["metadata"]
            inside["continue"] = _continue(version, last.get("namespace", ""), last["name"])
        resource = call.resource
        if how.shape == "Table":
            shown = [_shown(resource, one) for one in found]
            include = call.query.get("includeObject", "Metadata")
            table = tables.table(resource, shown, how.version, include)
            return encode({**table, "metadata": inside})
        if how.shape == "PartialObjectMetadata":
            head: Obj = {
                "kind": "PartialObjectMetadataList",
                "apiVersion": f"meta.k8s.io/{how.version}",
                "metadata": inside,
            }
            parts = [encode(_partial(_shown(resource, one), how.version)) for one in found]
        else:
            head = {
                "kind": resource.list_kind,
                "apiVersion": resource.api_version,
                "metadata": inside,
            }
            parts = [_raw(resource, one) for one in found]
        return encode(head)[:-1] + b',"items":[' + b",".join(parts) + b"]}"

    async def watch(self, call: Call, how: Form) -> AsyncIterator[bytes]:
        """Yield chunks of event lines until the watch's time is over.

        :raises Problem: 410 for a version that is too old, before anything is yielded.
        """
        collection = self.store.collection(call.resource.storage)
        since = _since(call)
        initial = call.flag("sendInitialEvents")
        if since and since > self.store.version:
            raise Problem(
                504,
                "Timeout",
                f"Too large resource version: {since}, current: {self.store.version}",
                details={
                    "causes": [
                        {
                            "reason": "ResourceVersionTooLarge",
                            "message": "Too large resource version",
                        }
                    ],
                    "retryAfterSeconds": 1,
                },
            )
        predicate = self.predicate(call)
        start = self.store.version if not since or initial else since
        watcher = collection.watch(call.namespace, start)
        line = _Lines(call, how, predicate)
        first = b""
        if not since or initial:
            first = b"".join(line.added(one) for one in self._page(call, 0, None)[0])
            if initial:
                first += line.bookmark(self.store.version, ended=True)
        return self._stream(call, collection, watcher, line, first)

    async def _stream(
        self, call: Call, collection: Collection, watcher: Watcher, line: _Lines, first: bytes
    ) -> AsyncIterator[bytes]:
        seconds = call.number("timeoutSeconds")
        lasts = float(seconds) if seconds else random.uniform(*_WATCH_S)  # noqa: S311
        deadline = time.monotonic() + lasts
        bookmarks = call.flag("allowWatchBookmarks")
        try:
            if first:
                yield first
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                if not watcher.pending:
                    try:
                        async with asyncio.timeout(min(left, _BOOKMARK_S)):
                            await watcher.wake.wait()
                    except TimeoutError:
                        if bookmarks:
                            yield line.bookmark(self.store.version)
                        continue
                watcher.wake.clear()
                pending = list(watcher.pending)
                watcher.pending.clear()
                chunk = b"".join(line.of(change) for change in pending)
                if chunk:
                    yield chunk
                if watcher.closed:
                    return
        finally:
            collection.unwatch(watcher)


class _Lines:
    """Event lines for one watch, in its form and through its selecting."""

    def __init__(self, call: Call, how: Form, predicate: Predicate | None) -> None:
        self._resource = call.resource
        self._how = how
        self._predicate = predicate
        self._include = call.query.get("includeObject", "Metadata")
        self._plain = not how.shape and call.resource.group != "events.k8s.io"
        self._columns = True

    def added(self, stored: Stored) -> bytes:
        return event_line("ADDED", self._render(stored))

    def bookmark(self, version: int, *, ended: bool = False) -> bytes:
        metadata: Obj = {"resourceVersion": str(version), "creationTimestamp": None}
        if ended:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj: Obj = {
            "kind": self._resource.kind,
            "apiVersion": self._resource.api_version,
            "metadata": metadata,
        }
        if self._how.shape == "Table":
            obj = tables.table(self._resource, [], self._how.version, "None")
            obj = {**obj, "columnDefinitions": None, "metadata": metadata}
            row = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }
            obj["rows"] = [{"cells": [], "object": row}]
        elif self._how.shape:
            obj = _partial(obj, self._how.version)
        return event_line("BOOKMARK", encode(obj))

    def of(self, change: Change) -> bytes:
        """Return the line of a change as this watch sees it, or nothing."""
        what = change.type
        if self._predicate is not None:
            matched = change.before is not None and self._predicate(change.before.obj)
            matches = what != "DELETED" and self._predicate(change.now.obj)
            if not matched and not matches:
                return b""
            seen = "MODIFIED" if matched and matches else "ADDED" if matches else "DELETED"
            if seen != what:
                return event_line(seen, self._render(self._last(change, seen)))
        if self._plain and change.now.obj.get("apiVersion") == self._resource.api_version:
            return change.line()
        return event_line(what, self._render(change.now))

    @staticmethod
    def _last(change: Change, seen: str) -> Stored:
        """For an object that no longer matches: its last matching state, at the new version."""
        if seen != "DELETED" or change.type == "DELETED" or change.before is None:
            return change.now
        metadata = {**change.before.obj["metadata"], "resourceVersion": str(change.version)}
        return Stored({**change.before.obj, "metadata": metadata}, change.version)

    def _render(self, stored: Stored) -> bytes:
        if self._how.shape != "Table":
            return render(self._resource, stored, self._how)
        shown = [_shown(self._resource, stored)]
        table = tables.table(self._resource, shown, self._how.version, self._include)
        if not self._columns:
            table["columnDefinitions"] = None
        self._columns = False
        return encode(table)


def _since(call: Call) -> int:
    text = call.query.get("resourceVersion", "")
    if text in {"", "0"}:
        return 0
    try:
        return int(text)
    except ValueError:
        error = problems.wrong("resourceVersion", text, "strconv.ParseUint: invalid syntax")
        raise problems.invalid("meta.k8s.io", "ListOptions", "", [error]) from None


def _continue(version: str, namespace: str, name: str) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": [namespace, name]})
    return base64.urlsafe_b64encode(text.encode()).decode()


def _continued(token: str) -> tuple[str, tuple[str, str]]:
    try:
        found = json.loads(base64.urlsafe_b64decode(token))
        namespace, name = found["start"]
        return str(found["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError):
        raise problems.bad_request("continue key is not valid: the token is malformed") from None
