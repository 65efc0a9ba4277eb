"""Paths: which resource a URL names, and the documents that belong to no resource."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from aiohttp import web

from pytest_pgo_eks.local.apiserver import discovery, openapi
from pytest_pgo_eks.local.apiserver.resources import Registry
from pytest_pgo_eks.local.apiserver.store import encode
from pytest_pgo_eks.local.objects import Obj

_HEALTH = ("/healthz", "/livez", "/readyz")


@dataclass(frozen=True)
class Target:
    """What a resource URL names; a collection has no ``name``."""

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse(path: str) -> Target | None:
    """Take a resource URL apart; None for every other path."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    if rest[0] == "watch":  # the old form: the query says watch as well
        rest = rest[1:]
    namespace = ""
    if rest and rest[0] == "namespaces" and len(rest) > 1:
        # /namespaces/NAME/status is the namespace's own; /namespaces/NS/pods is in it.
        if len(rest) == 2 or rest[2] in {"status", "finalize"}:
            return Target(group, version, "namespaces", rest[1], rest[1], "/".join(rest[2:]))
        namespace, rest = rest[1], rest[2:]
    if not rest or not rest[0]:
        return None
    name = rest[1] if len(rest) > 1 else ""
    return Target(group, version, rest[0], namespace, name, "/".join(rest[2:]))


class Front:
    """Answers what is not about resources. Documents are kept until the registry changes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._documents: dict[str, bytes] = {}

    def changed(self) -> None:
        """Forget the documents: a custom resource came or went."""
        self._documents.clear()

    def answer(self, request: web.BaseRequest, path: str) -> web.Response:
        """Return discovery, health, version and OpenAPI documents.

        :raises Problem: 404 for anything else.
        """
        plain = path.rstrip("/") or "/"
        if plain.startswith(_HEALTH):
            return self._health(request, plain)
        if plain == "/openapi/v2" and "proto-openapi" in request.headers.get("Accept", ""):
            return web.Response(
                body=openapi.V2_PROTOBUF,
                headers={"Content-Type": openapi.PROTOBUF, "Vary": "Accept"},
            )
        aggregated = plain in {"/api", "/apis"} and _wants_aggregated(request)
        key = plain + ("#" if aggregated else "")
        found = self._documents.get(key)
        if found is None:
            document = self._document(plain, request, aggregated=aggregated)
            if document is None:
                return web.Response(status=404, text="404 page not found\n")
            found = self._documents[key] = encode(document)
        content_type = discovery.AGGREGATED if aggregated else "application/json"
        return web.Response(body=found, headers={"Content-Type": content_type, "Vary": "Accept"})

    @staticmethod
    def _health(request: web.BaseRequest, path: str) -> web.Response:
        if "verbose" in request.query:
            return web.Response(text=f"[+]ping ok\n{path.strip('/').split('/')[0]} check passed\n")
        return web.Response(text="ok")

    def _document(self, path: str, request: web.BaseRequest, *, aggregated: bool) -> Obj | None:
        registry = self._registry
        if path == "/version":
            return discovery.version()
        if path == "/api":
            if aggregated:
                return discovery.aggregated(registry, core=True)
            return discovery.core_versions(request.host)
        if path == "/apis":
            return (
                discovery.aggregated(registry, core=False)
                if aggregated
                else discovery.groups(registry)
            )
        if path == "/":
            return {"paths": self._paths()}
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) == 2:
            return discovery.resources(registry, "", parts[1])
        if parts[0] == "apis" and len(parts) == 3:
            return discovery.resources(registry, parts[1], parts[2])
        if parts[0] == "apis" and len(parts) == 2:
            return discovery.one_group(registry, parts[1])
        if parts[0] == "openapi":
            return openapi.document(registry, parts[1:])
        return None

    def _paths(self) -> list[str]:
        found = ["/api", "/api/v1", "/apis"]
        for group, versions in self._registry.groups().items():
            if group:
                found.append(f"/apis/{group}")
                found += [f"/apis/{group}/{version}" for version in versions]
        return [*found, *_HEALTH, "/openapi/v2", "/openapi/v3", "/version"]


def _wants_aggregated(request: web.BaseRequest) -> bool:
    first = request.headers.get("Accept", "").split(",")[0]
    return "as=APIGroupDiscoveryList" in first and "v=v2" in first.replace("v=v2beta1", "")
