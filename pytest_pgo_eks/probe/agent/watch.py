"""What the cluster says of itself, stamped with the clients' clock.

Lists and watches pods, Endpoints and EndpointSlices over plain HTTPS with the pod's own token, and
records an event only when something changed that a client could feel: an address, a role label, a
readiness, the leader record. A watch that breaks is opened again from a fresh list; the time
without it is recorded too, because what happened in it has no exact moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .records import Recorder

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_RETRY_S = 0.2
_IDLE_S = 30.0
_ROLE = "postgres-operator.crunchydata.com/role"
_LIMIT = 16 << 20

PATHS = {
    "pod": "/api/v1/namespaces/{ns}/pods",
    "endpoints": "/api/v1/namespaces/{ns}/endpoints",
    "slice": "/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices",
}


class Refused(Exception):
    """The API answered with another status than 200."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"status {status}: {body[:200]}")
        self.status = status


class Watch:
    """Watches until cancelled; ``config`` is the ``watch`` part of the run's configuration.

    Its keys, all optional but ``labels``: ``url``, ``ca`` (file), ``token_file``, ``namespace``,
    ``labels`` (selector of the PostgresCluster's objects), ``kinds``.
    """

    def __init__(self, recorder: Recorder, config: dict[str, Any]) -> None:
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        self._url = urlsplit(config.get("url") or f"https://{host}:{port}")
        self._ca = config.get("ca") or str(_ACCOUNT / "ca.crt")
        self._token_file = Path(config.get("token_file") or _ACCOUNT / "token")
        self._namespace = config.get("namespace") or _own_namespace()
        self._labels = config.get("labels", "")
        self._kinds = tuple(config.get("kinds") or PATHS)
        self._recorder = recorder
        self._seen: dict[tuple[str, str], dict[str, Any]] = {}

    async def run(self) -> None:
        await asyncio.gather(*(self._forever(kind) for kind in self._kinds))

    async def _forever(self, kind: str) -> None:
        lost_at = 0
        while True:
            try:
                version = await self._list(kind)
                if lost_at:
                    self._event(kind, f"watch of {kind} is back", since=lost_at)
                    lost_at = 0
                await self._watch(kind, version)
            except (OSError, Refused, ValueError, EOFError, TimeoutError) as error:
                if not lost_at:
                    lost_at = time.monotonic_ns()
                    self._recorder.event(
                        "watch-lost", object=kind, error=f"{type(error).__name__}: {error}"[:200]
                    )
            await asyncio.sleep(_RETRY_S)

    def _event(self, name: str, what: str, **details: Any) -> None:
        self._recorder.event("cluster", object=name, what=what, **details)

    async def _list(self, kind: str) -> str:
        body = b""
        async for part in self._get(kind, {}):
            body += part
        told = json.loads(body)
        present = set()
        for item in told.get("items", ()):
            present.add((kind, item["metadata"]["name"]))
            self._look(kind, item)
        for key in [k for k in self._seen if k[0] == kind and k not in present]:
            self._gone(key)
        return str(told["metadata"]["resourceVersion"])

    async def _watch(self, kind: str, version: str) -> None:
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        rest = b""
        async for part in self._get(kind, query):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if not line.strip():
                    continue
                told = json.loads(line)
                item = told["object"]
                if told["type"] == "ERROR":
                    raise Refused(int(item.get("code", 0)), str(item.get("message")))
                if told["type"] == "DELETED":
                    self._gone((kind, item["metadata"]["name"]))
                elif told["type"] != "BOOKMARK":
                    self._look(kind, item)

    def _look(self, kind: str, item: dict[str, Any]) -> None:
        name = item["metadata"]["name"]
        now = SUMMARIES[kind](item)
        before = self._seen.get((kind, name))
        self._seen[kind, name] = now
        if before is None:
            self._event(f"{kind}/{name}", f"{kind} {name}: {_told(now)}", now=now)
            return
        changed = {key: now[key] for key in now if now[key] != before.get(key)}
        if changed:
            was = {key: before.get(key) for key in changed}
            what = ", ".join(
                f"{key} {_short(was[key])} → {_short(changed[key])}" for key in changed
            )
            self._event(f"{kind}/{name}", f"{kind} {name}: {what}", now=changed, was=was)

    def _gone(self, key: tuple[str, str]) -> None:
        if self._seen.pop(key, None) is not None:
            self._event(f"{key[0]}/{key[1]}", f"{key[0]} {key[1]}: deleted", now=None)

    async def _get(self, kind: str, query: dict[str, str]) -> AsyncIterator[bytes]:
        """Yield the body of one GET in pieces, as they come."""
        if self._labels:
            query = {**query, "labelSelector": self._labels}
        text = "&".join(f"{key}={quote(value)}" for key, value in query.items())
        path = PATHS[kind].format(ns=self._namespace) + (f"?{text}" if text else "")
        secure = self._url.scheme == "https"
        context = ssl.create_default_context(cafile=self._ca) if secure else None
        host, port = self._url.hostname or "", self._url.port or 443
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(
                host,
                port,
                ssl=context,
                limit=_LIMIT,
            )
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
                "Accept: application/json\r\nConnection: close\r\n\r\n".encode()
            )
            async for part in _body(reader, watching="watch" in query):
                yield part
        finally:
            writer.transport.abort()


async def _body(reader: asyncio.StreamReader, *, watching: bool) -> AsyncIterator[bytes]:
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split()[1])
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
    if status != 200:
        async with asyncio.timeout(5):
            raise Refused(status, (await reader.read(1000)).decode("utf-8", "replace"))
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while True:
            # A watch may be silent for long; bookmarks come about once a minute.
            async with asyncio.timeout(4 * _IDLE_S if watching else _IDLE_S):
                size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
                data = await reader.readexactly(size + 2)
            if not size:
                return
            yield data[:-2]
    elif "content-length" in headers:
        async with asyncio.timeout(_IDLE_S):
            yield await reader.readexactly(int(headers["content-length"]))
    else:
        while data := await reader.read(1 << 16):
            yield data


def _own_namespace() -> str:
    try:
        return (_ACCOUNT / "namespace").read_text(encoding="ascii").strip()
    except OSError:
        return "default"


def _pod(item: dict[str, Any]) -> dict[str, Any]:
    meta, status = item["metadata"], item.get("status", {})
    conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
    patroni = _json(meta.get("annotations", {}).get("status"))
    containers = status.get("containerStatuses", ())
    return {
        "uid": meta["uid"],
        "role": meta.get("labels", {}).get(_ROLE),
        "ready": conditions.get("Ready"),
        "phase": status.get("phase"),
        "address": status.get("podIP"),
        "deleting": "deletionTimestamp" in meta,
        "restarts": sum(c.get("restartCount", 0) for c in containers),
        "patroni": "/".join(str(patroni.get(k, "-")) for k in ("state", "role", "timeline")),
    }


def _endpoints(item: dict[str, Any]) -> dict[str, Any]:
    told = item["metadata"].get("annotations") or {}
    subsets = item.get("subsets") or ()
    return {
        "addresses": sorted(a["ip"] for s in subsets for a in s.get("addresses") or ()),
        "leader": told.get("leader"),
        "acquired": told.get("acquireTime"),
        "transitions": told.get("transitions"),
        "sync": told.get("sync_standby"),
        "sync_leader": told.get("leader") if "sync_standby" in told else None,
    }


def _slice(item: dict[str, Any]) -> dict[str, Any]:
    ready = [
        address
        for endpoint in item.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses", ())
    ]
    service = (item["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
    return {"service": service, "addresses": sorted(ready)}


SUMMARIES = {"pod": _pod, "endpoints": _endpoints, "slice": _slice}


def _json(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _short(value: Any) -> str:
    if value is None or value == []:
        return "nothing"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _told(summary: dict[str, Any]) -> str:
    return ", ".join(
        f"{k} {_short(v)}" for k, v in summary.items() if v not in (None, [], False, 0)
    )
