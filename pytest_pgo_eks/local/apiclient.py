"""A small asyncio client of the Kubernetes API: what controllers, kubelet, network and operator use.

It talks to the stand-in's API server and to a real kube-apiserver alike: a URL, a CA and a token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp

from pytest_pgo_eks.local.objects import Kind, Obj

log = logging.getLogger(__name__)
PatchType = Literal["json", "merge", "strategic", "apply"]

_CONTENT_TYPES: dict[str, str] = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_REQUEST_S = 15.0
# A watch that brings nothing for this long is dead: the API server sends bookmarks every minute.
_SILENCE_S = 150.0


class ApiError(Exception):
    """The API answered with a Status that is no success; ``code`` is 0 when nothing answered."""

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}


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


class ApiClient:
    """One connection pool to one API server under one identity.

    ``token_file`` is read again for every request, so a rotated token is used at once.
    ``certificate`` is a client's certificate and key, for servers that know no tokens;
    ``tls_name`` is the name that the server's certificate must have, if not the URL's.
    ``socket_factory`` makes the TCP sockets (aiohttp's signature), for clients that live in
    another network namespace.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path,
        token: str | None = None,
        token_file: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        tls_name: str | None = None,
        user_agent: str = "pytest-pgo-eks-local",
        socket_factory: Callable[[Any], Any] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._token_file = token_file
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        if certificate:
            self._tls.load_cert_chain(*certificate)
        self._tls_name = tls_name
        self._agent = user_agent
        self._socket_factory = socket_factory
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; the client may be used again afterwards."""
        if self._session:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self._tls, limit=0, socket_factory=self._socket_factory
            )
            self._session = aiohttp.ClientSession(
                connector=connector, headers={"User-Agent": self._agent}
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        token = self._token_file.read_text().strip() if self._token_file else self._token
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
        timeout_s: float = _REQUEST_S,
    ) -> Obj:
        """Send one request and return the decoded answer.

        :raises ApiError: any answer of 400 or above, and ``code=0`` for no answer at all.
        """
        text = await self._send(
            method,
            path,
            body=body,
            query=query,
            content_type=content_type,
            timeout_s=timeout_s,
        )
        found: Obj = json.loads(text) if text else {}
        return found

    async def logs(
        self,
        namespace: str,
        pod: str,
        *,
        container: str,
        previous: bool = False,
        tail: int | None = None,
        timeout_s: float = _REQUEST_S,
    ) -> str:
        """Return a container's log, or its last ``tail`` lines."""
        query = {"container": container, "previous": str(previous).lower()}
        if tail is not None:
            query["tailLines"] = str(tail)
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        text = await self._send("GET", path, query=query, timeout_s=timeout_s)
        return text.decode("utf-8", "replace")

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
        timeout_s: float = _REQUEST_S,
    ) -> bytes:
        headers = self._headers() | {"Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = content_type
        try:
            async with self._open().request(
                method,
                self.url + path,
                data=data,
                params=query,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                server_hostname=self._tls_name,
            ) as answer:
                text = await answer.read()
                if answer.status >= 400:
                    raise _error(answer.status, text)
                return text
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = f"{method} {path}: {type(error).__name__} {error}"
            raise ApiError(0, "Unreachable", what) from error

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
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_REQUEST_S, sock_read=_SILENCE_S)
        try:
            async with self._open().get(
                self.url + kind.path(namespace),
                params=query,
                headers=self._headers(),
                timeout=timeout,
                server_hostname=self._tls_name,
            ) as answer:
                if answer.status >= 400:
                    raise _error(answer.status, await answer.read())
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


def _error(status: int, text: bytes) -> ApiError:
    try:
        found = json.loads(text)
        return ApiError(
            status, found.get("reason", ""), found.get("message", ""), found.get("details")
        )
    except (ValueError, AttributeError):
        return ApiError(status, "", text.decode("utf-8", "replace")[:500])


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
