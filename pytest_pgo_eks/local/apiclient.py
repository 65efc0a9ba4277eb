"""A small asyncio client of the Kubernetes API: what controllers, kubelet, network and operator use.

It talks to the stand-in's API server and to a real kube-apiserver alike: a URL, a CA and a token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from pytest_pgo_eks.local.connection import REQUEST_S, ApiError, Connection, refused
from pytest_pgo_eks.local.objects import Kind, Obj

__all__ = ["ApiClient", "ApiError", "Cache", "Event", "Executed", "Listed", "PatchType"]

log = logging.getLogger(__name__)
PatchType = Literal["json", "merge", "strategic", "apply"]

_CONTENT_TYPES: dict[str, str] = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
# A watch that brings nothing for this long is dead: the API server sends bookmarks every minute.
_SILENCE_S = 150.0


@dataclass(frozen=True)
class Listed:
    """The answer to a list: the items, and the version from which a watch goes on."""

    items: list[Obj]
    resource_version: str


@dataclass(frozen=True)
class Event:
    """One watch event; ``type`` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Obj


@dataclass(frozen=True)
class Executed:
    """The end of a command in a container."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class ApiClient(Connection):
    """The verbs of the API over one connection pool, under one identity."""

    async def get(self, kind: Kind, name: str, namespace: str | None = None, sub: str = "") -> Obj:
        return await self.request("GET", kind.path(namespace, name, sub))

    async def find(self, kind: Kind, name: str, namespace: str | None = None) -> Obj | None:
        """Return the object, or None where there is none."""
        try:
            return await self.get(kind, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
    ) -> Listed:
        """List objects; the items get the apiVersion and kind that lists leave out."""
        answer = await self.request("GET", kind.path(namespace), query=_selectors(labels, fields))
        items = answer["items"] or []
        for item in items:
            item.setdefault("apiVersion", kind.api_version)
            item.setdefault("kind", kind.kind)
        return Listed(items, answer["metadata"]["resourceVersion"])

    async def create(
        self, kind: Kind, obj: Obj, namespace: str | None = None, sub: str = ""
    ) -> Obj:
        """Create an object, or POST to a subresource (token, eviction) of the named one."""
        metadata = obj.get("metadata") or {}
        name = metadata.get("name") if sub else None
        where = namespace or metadata.get("namespace")
        return await self.request("POST", kind.path(where, name, sub), body=obj)

    async def replace(self, kind: Kind, obj: Obj, sub: str = "") -> Obj:
        metadata = obj["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"], sub)
        return await self.request("PUT", path, body=obj)

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        patch: Any,
        *,
        type: PatchType = "merge",  # noqa: A002 - the API's own word
        sub: str = "",
        field_manager: str | None = None,
        force: bool = False,
    ) -> Obj:
        query = {"fieldManager": field_manager} if field_manager else {}
        if force:
            query["force"] = "true"
        return await self.request(
            "PATCH",
            kind.path(namespace, name, sub),
            body=patch,
            query=query,
            content_type=_CONTENT_TYPES[type],
        )

    async def apply(
        self, kind: Kind, obj: Obj, *, field_manager: str, force: bool = True, sub: str = ""
    ) -> Obj:
        """Server-side apply."""
        metadata = obj["metadata"]
        return await self.patch(
            kind,
            metadata["name"],
            metadata.get("namespace"),
            obj,
            type="apply",
            sub=sub,
            field_manager=field_manager,
            force=force,
        )

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        grace_s: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
    ) -> Obj:
        options: Obj = {"kind": "DeleteOptions", "apiVersion": "v1"}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if any(preconditions.values()):
            options["preconditions"] = {k: v for k, v in preconditions.items() if v}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if propagation:
            options["propagationPolicy"] = propagation
        return await self.request("DELETE", kind.path(namespace, name), body=options)

    async def delete_collection(
        self, kind: Kind, namespace: str | None = None, *, labels: str | None = None
    ) -> Obj:
        return await self.request("DELETE", kind.path(namespace), query=_selectors(labels, None))

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str | None = None,
        fields: str | None = None,
    ) -> AsyncIterator[Event]:
        """Yield events until the server ends the stream.

        :raises ApiError: ``code=410`` when the version is too old, ``code=0`` for a cut stream.
        """
        query = _selectors(labels, fields) | {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_S, sock_read=_SILENCE_S)
        try:
            async with self._open().get(
                self.url + kind.path(namespace),
                params=query,
                headers=self._headers(),
                timeout=timeout,
                server_hostname=self._tls_name,
            ) as answer:
                if answer.status >= 400:
                    raise refused(answer.status, await answer.read())
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield _event(kind, json.loads(line))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, "Unreachable", f"watch of {kind.plural}: {error}") from error

    async def exec(
        self,
        namespace: str,
        pod: str,
        command: Sequence[str],
        *,
        container: str | None = None,
        stdin: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Executed:
        """Run a command in a container (WebSocket, ``v5.channel.k8s.io``) and wait for its end.

        :raises ApiError: the stream ended without an exit status, or the time was up.
        """
        query = [("command", part) for part in command]
        query += [("stdout", "true"), ("stderr", "true"), ("stdin", str(stdin is not None).lower())]
        if container:
            query.append(("container", container))
        url = f"{self.url}/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        streams: dict[int, bytearray] = {1: bytearray(), 2: bytearray(), 3: bytearray()}
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._open().ws_connect(
                    url,
                    params=query,
                    headers=self._headers(),
                    server_hostname=self._tls_name,
                    protocols=("v5.channel.k8s.io",),
                    max_msg_size=0,
                ) as socket,
            ):
                if stdin is not None:
                    await socket.send_bytes(b"\x00" + stdin)
                    await socket.send_bytes(b"\xff\x00")  # v5: close channel 0
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY and message.data:
                        streams.setdefault(message.data[0], bytearray()).extend(message.data[1:])
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(error.status, "ExecRefused", f"{pod}: {error.message}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = f"{command[0]} in {pod}: {type(error).__name__} {error}"
            raise ApiError(0, "ExecFailed", what) from error
        return _executed(streams, f"{command[0]} in {pod}")


class Cache:
    """A list kept current by a watch. ``changed`` is called after every event, and never raises.

    ``run`` lists, then watches for ever: it resumes after a cut stream, lists again after 410, and
    backs off with jitter while the API server is away. Objects must not be modified in place.
    """

    def __init__(
        self,
        client: ApiClient,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        changed: Callable[[str, Obj], None] | None = None,
    ) -> None:
        self.kind = kind
        self.items: dict[tuple[str, str], Obj] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._changed = changed or (lambda _type, _obj: None)
        self._seen = 0  # the version up to which the list or the watch has told everything
        self._failures = 0

    def get(self, name: str, namespace: str = "") -> Obj | None:
        return self.items.get((namespace, name))

    def learn(self, obj: Obj) -> None:
        """Take the answer to a write of one's own, before the watch brings it.

        Whoever creates objects with generated names must see them at once, or it creates them
        twice. An answer older than what the watch already told is ignored, so an object deleted in
        the meantime does not come back.
        """
        if int(_version(obj)) <= self._seen:
            return
        self._store("MODIFIED" if _key(obj) in self.items else "ADDED", obj)

    async def run(self) -> None:
        """Keep the cache current until cancelled."""
        version = ""
        while True:
            try:
                if not version:
                    version = await self._relist()
                    self.synced.set()
                async for event in self._client.watch(
                    self.kind,
                    self._namespace,
                    resource_version=version,
                    labels=self._labels,
                    fields=self._fields,
                ):
                    version = _version(event.object)
                    self._failures = 0
                    self._take(event)
                # A server that ends every stream at once must not be asked in a tight loop.
                self._failures += 1
            except ApiError as error:
                if error.code == 410:
                    version = ""
                elif error.code and not self._failures:
                    # Refused, not unreachable: a missing right or kind, which somebody must know.
                    log.warning("%s cannot be followed: %s", self.kind.plural, error)
                self._failures += 1
            if self._failures > 1:
                pause = min(5.0, 0.02 * 2 ** min(self._failures, 10))
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    async def _relist(self) -> str:
        listed = await self._client.list(
            self.kind, self._namespace, labels=self._labels, fields=self._fields
        )
        fresh = {_key(item): item for item in listed.items}
        for gone in self.items.keys() - fresh.keys():
            self._changed("DELETED", self.items.pop(gone))
        for name, item in fresh.items():
            known = self.items.get(name)
            self.items[name] = item
            if known is None or _version(known) != _version(item):
                self._changed("ADDED" if known is None else "MODIFIED", item)
        self._seen = int(listed.resource_version)
        return listed.resource_version

    def _take(self, event: Event) -> None:
        self._seen = max(self._seen, int(_version(event.object)))
        if event.type == "BOOKMARK":
            return
        if event.type == "DELETED":
            known = self.items.get(_key(event.object))
            if known and known["metadata"].get("uid") != event.object["metadata"].get("uid"):
                return  # a successor of the same name was learned already
            self.items.pop(_key(event.object), None)
            self._changed(event.type, event.object)
        else:
            self._store(event.type, event.object)

    def _store(self, event_type: str, obj: Obj) -> None:
        known = self.items.get(_key(obj))
        if known is not None and int(_version(known)) >= int(_version(obj)):
            return  # learned from a write before the watch came to it
        self.items[_key(obj)] = obj
        self._changed(event_type, obj)


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _version(obj: Obj) -> str:
    version: str = obj["metadata"]["resourceVersion"]
    return version


def _selectors(labels: str | None, fields: str | None) -> dict[str, str]:
    named = {"labelSelector": labels, "fieldSelector": fields}
    return {name: value for name, value in named.items() if value}


def _event(kind: Kind, found: Obj) -> Event:
    obj = found["object"]
    if found["type"] == "ERROR":
        raise ApiError(obj.get("code", 500), obj.get("reason", ""), obj.get("message", ""))
    obj.setdefault("apiVersion", kind.api_version)
    obj.setdefault("kind", kind.kind)
    return Event(found["type"], obj)


def _executed(streams: dict[int, bytearray], what: str) -> Executed:
    if not streams[3]:
        raise ApiError(0, "ExecFailed", f"{what}: the stream ended without an exit status")
    status = json.loads(bytes(streams[3]))
    code = 0
    if status.get("status") != "Success":
        causes = (status.get("details") or {}).get("causes") or []
        codes = [int(c["message"]) for c in causes if c.get("reason") == "ExitCode"]
        if not codes:
            raise ApiError(0, "ExecFailed", f"{what}: {status.get('message')}")
        code = codes[0]
    return Executed(code, bytes(streams[1]), bytes(streams[2]))
