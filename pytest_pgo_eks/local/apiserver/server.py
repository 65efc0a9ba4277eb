"""The HTTP side: TLS sockets in, requests taken apart, answers out."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from pytest_pgo_eks.local.apiserver import bootstrap, definitions, problems, protobuf, reading
from pytest_pgo_eks.local.apiserver.admission import Allocators
from pytest_pgo_eks.local.apiserver.authentication import Authenticator, Identity
from pytest_pgo_eks.local.apiserver.authorization import MASTERS, Attributes, Authorizer
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.front import Front, Target, parse
from pytest_pgo_eks.local.apiserver.problems import Problem
from pytest_pgo_eks.local.apiserver.proxy import KubeletProxy
from pytest_pgo_eks.local.apiserver.reading import Form, Reading
from pytest_pgo_eks.local.apiserver.removal import Removal, options
from pytest_pgo_eks.local.apiserver.resources import Registry
from pytest_pgo_eks.local.apiserver.store import HISTORY, Store, Stored, encode
from pytest_pgo_eks.local.apiserver.subresources import Subresources
from pytest_pgo_eks.local.apiserver.times import since_s
from pytest_pgo_eks.local.apiserver.writing import Writing
from pytest_pgo_eks.local.objects import Obj

_log = logging.getLogger(__name__)
_JSON = "application/json"
_BODY_LIMIT = 8 * 1024 * 1024
_TYPES = ("application/json", "application/yaml", protobuf.CONTENT_TYPE)
_REVIEWS = {"authentication.k8s.io", "authorization.k8s.io"}
_CRD = ("apiextensions.k8s.io", "customresourcedefinitions")
_EVENTS_S = 3600.0


class ApiServer:
    """A Kubernetes API server that keeps everything in memory.

    ``tokens`` maps bearer tokens to identities; ``admin_token`` belongs to group system:masters.
    ``endpoints`` are the addresses of the ``kubernetes`` Service. ``kubelet_token`` and
    ``kubelet_ca`` are what exec, logs and port-forward use towards the kubelets. Nothing is kept
    on disk; ``state`` is where an ``audit.jsonl`` goes when ``audit`` is set.
    """

    def __init__(
        self,
        *,
        state: Path,
        admin_token: str,
        tokens: Mapping[str, Identity] | None = None,
        endpoints: Sequence[tuple[str, int]] = (("10.250.0.1", 6443),),
        service_network: str = "10.96.0.0/16",
        kubelet_token: str = "",
        kubelet_ca: Path | None = None,
        history: int = HISTORY,
        audit: bool = False,
        events_s: float = _EVENTS_S,
    ) -> None:
        self.state = state
        self.store = Store(history)
        self.registry = Registry()
        admin = Identity("kubernetes-admin", (MASTERS,))
        self.authenticator = Authenticator(self.store, {**(tokens or {}), admin_token: admin})
        self.authorizer = Authorizer(self.store)
        self.allocators = Allocators(self.store, service_network)
        self.writing = Writing(self.store, self.allocators)
        self.removal = Removal(self.store)
        self.reading = Reading(self.store)
        self.subresources = Subresources(
            self.store, self.writing, self.removal, self.authenticator, self.authorizer
        )
        self.proxy = KubeletProxy(self.store, kubelet_token, kubelet_ca)
        self.front = Front(self.registry)
        self.extensions: dict[str, Any] = {}
        self.writing.check_role = self._check_role
        self.writing.define = self._define
        self.writing.finish = self.removal.finish
        self.removal.removed = self._removed
        self._admin = Identity(admin.name, (*admin.groups, "system:authenticated"))
        self._events_s = events_s
        self._audit_file = (state / "audit.jsonl") if audit else None
        self._runner: web.ServerRunner | None = None
        self._sweeper: asyncio.Task[None] | None = None
        for obj in bootstrap.objects(self.allocators.first, endpoints):
            self.load(obj)

    def load(self, obj: Obj) -> Obj:
        """Create an object as the administrator, without HTTP."""
        resource = self.registry.by_kind(obj["apiVersion"], obj["kind"])
        if resource is None:
            raise problems.no_such_resource()
        namespace = obj["metadata"].get("namespace", "") if resource.namespaced else ""
        call = Call(resource, namespace, who=self._admin, agent="kube-apiserver")
        return self.writing.create(call, obj)

    async def start(self, sockets: list[socket.socket], tls: ssl.SSLContext) -> None:
        """Serve on sockets that are already listening."""
        server = web.Server(self._handle, access_log=None, keepalive_timeout=3600.0)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock, ssl_context=tls, backlog=512).start()
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """End every watch and stream, and close the sockets."""
        if self._sweeper:
            self._sweeper.cancel()
            self._sweeper = None
        self.store.close()
        await self.proxy.close()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _sweep(self) -> None:
        """Forget old events."""
        while True:
            await asyncio.sleep(min(60.0, self._events_s))
            self.sweep_events()

    def sweep_events(self) -> None:

        collection = self.store.collection(("", "events"))
        for stored in list(collection):
            obj = stored.obj
            last = obj.get("lastTimestamp") or obj["metadata"]["creationTimestamp"]
            if since_s(last) > self._events_s:
                collection.remove(obj)

    def _check_role(self, call: Call, obj: Obj) -> None:
        if call.resource.plural.endswith("bindings"):
            self.authorizer.require_bind(call.who, obj, call.resource.plural)
        else:
            self.authorizer.require_grant(call.who, obj, call.resource.plural)

    def _define(self, obj: Obj, old: Obj | None) -> None:
        definitions.prepare(obj, old)
        definitions.serve(obj, self.registry)
        self.front.changed()

    def _removed(self, obj: Obj) -> None:
        if obj.get("kind") == "CustomResourceDefinition":
            spec = obj["spec"]
            self.registry.remove_custom(spec["group"], spec["names"]["plural"])
            collection = self.store.collection((spec["group"], spec["names"]["plural"]))
            for stored in list(collection):
                collection.remove(stored.obj)
            self.store.drop((spec["group"], spec["names"]["plural"]))
            self.front.changed()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except Problem as problem:
            return _refusal(problem)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            _log.exception("%s %s", request.method, request.path_qs)
            return _refusal(
                Problem(500, "InternalError", "Internal error occurred: see the stand-in's log")
            )

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        who = self.authenticator.identify(request.headers.get("Authorization"))
        path = request.path
        target = parse(path)
        if target is None:
            self.authorizer.require(who, Attributes(request.method.lower(), path=path))
            return await self._other(request, who, path)
        attributes = _attributes(request, target)
        self.authorizer.require(who, attributes)
        resource = self.registry.find(target.group, target.version, target.resource)
        if resource is None:
            return await self._missing(request, target)
        if target.namespace and not resource.namespaced and target.resource != "namespaces":
            raise problems.no_such_resource()
        if target.subresource and target.subresource not in resource.subresources:
            raise problems.no_such_resource()
        call = Call(
            resource,
            target.namespace if resource.namespaced else "",
            target.name,
            target.subresource,
            request.query,
            who,
            request.headers.get("User-Agent", ""),
        )
        if call.subresource in {"exec", "attach", "portforward", "log"}:
            return await self.proxy.serve(request, call)
        return await self._verb(request, call)

    async def _missing(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        if target.version not in self.registry.groups().get(target.group, []):
            return web.Response(status=404, text="404 page not found\n")
        raise problems.no_such_resource()

    async def _other(
        self, request: web.BaseRequest, who: Identity, path: str
    ) -> web.StreamResponse:
        for prefix, handler in self.extensions.items():
            if path == prefix or path.startswith(prefix + "/"):
                found: web.StreamResponse = await handler(request, who)
                return found
        return self.front.answer(request, path)

    async def _verb(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        method = request.method
        how = reading.form(request.headers.get("Accept", ""))
        if method == "GET":
            return await self._read(request, call, how)
        body, content_type = await _body(request)
        if method == "POST":
            return self._post(call, body, how)
        if not call.name and method != "DELETE":
            raise problems.method_not_allowed()
        if method == "PUT":
            return self._put(call, body, how)
        if method == "PATCH":
            return self._patch(call, content_type, body, how)
        if method == "DELETE" and not call.subresource:
            return self._delete(call, body, how)
        raise problems.method_not_allowed()

    async def _read(self, request: web.BaseRequest, call: Call, how: Form) -> web.StreamResponse:
        if call.name and call.subresource == "scale":
            return _reply(encode(self.subresources.get_scale(call)))
        if call.name:
            return _reply(self.reading.get(call, how))
        if not {"list", "watch"} & set(call.resource.verbs):
            raise problems.method_not_allowed()
        if not call.flag("watch"):
            return _reply(self.reading.list(call, how))
        chunks = await self.reading.watch(call, how)
        answer = web.StreamResponse(headers={"Content-Type": _JSON})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        # A new stream says so at once, before there is anything to say.
        try:
            async for chunk in chunks:
                await answer.write(chunk)
            await answer.write_eof()
        except ConnectionError:
            pass
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]
        return answer

    def _post(self, call: Call, body: Any, how: Form) -> web.Response:
        if call.name and not call.subresource:
            raise problems.method_not_allowed()
        if call.resource.group in _REVIEWS:
            return _reply(encode(self.subresources.review(call, body or {})), 201)
        if call.subresource:
            handler = {
                "binding": self.subresources.bind,
                "eviction": self.subresources.evict,
                "token": self.subresources.token,
            }.get(call.subresource)
            if handler is None:
                raise problems.method_not_allowed()
            return _reply(encode(handler(call, body or {})), 201)
        if "create" not in call.resource.verbs:
            raise problems.method_not_allowed()
        return self._stored(call, self.writing.create(call, body), how, 201)

    def _put(self, call: Call, body: Any, how: Form) -> web.Response:
        if call.subresource == "scale":
            return _reply(encode(self.subresources.set_scale(call, body or {})))
        if call.subresource == "finalize":
            return _reply(encode(self.subresources.finalize(call, body or {})))
        obj, created = self.writing.update(call, body)
        return self._stored(call, obj, how, 201 if created else 200)

    def _patch(self, call: Call, content_type: str, body: Any, how: Form) -> web.Response:
        if call.subresource == "scale":
            return _reply(encode(self._patch_scale(call, content_type, body)))
        obj, created = self.writing.patch(call, content_type, body)
        return self._stored(call, obj, how, 201 if created else 200)

    def _patch_scale(self, call: Call, content_type: str, body: Any) -> Obj:
        from pytest_pgo_eks.local.apiserver import patches

        scale = self.subresources.get_scale(call)
        if content_type == "application/json-patch+json":
            return self.subresources.set_scale(call, patches.json_patch(scale, body))
        return self.subresources.set_scale(call, patches.merge(scale, body))

    def _delete(self, call: Call, body: Any, how: Form) -> web.Response:
        wanted = options(call, body)
        if not call.name:
            return self._delete_all(call, wanted)
        stored = self.writing.current(call)
        obj, gone = self.removal.delete(call, stored, wanted)
        if gone and call.resource.storage != ("", "pods"):
            return _reply(encode(_deleted(call, obj)))
        return self._stored(call, obj, how, 200)

    def _delete_all(self, call: Call, wanted: Obj) -> web.Response:
        if "deletecollection" not in call.resource.verbs:
            raise problems.method_not_allowed()
        found = self.reading.select(call)
        for stored in found:
            namespace = stored.obj["metadata"].get("namespace", "")
            name = stored.obj["metadata"]["name"]
            one = Call(call.resource, namespace, name, query=call.query, who=call.who)
            self.removal.delete(one, stored, wanted)
        head = {
            "kind": call.resource.list_kind,
            "apiVersion": call.resource.api_version,
            "metadata": {"resourceVersion": str(self.store.version)},
            "items": [stored.obj for stored in found],
        }
        return _reply(encode(head))

    def _stored(self, call: Call, obj: Obj, how: Form, status: int) -> web.Response:
        metadata = obj["metadata"]
        found = self.store.collection(call.resource.storage).get(
            metadata.get("namespace", ""), metadata["name"]
        )
        if found is None or found.obj is not obj:
            found = Stored(obj, 0)
        answer = _reply(reading.render(call.resource, found, how), status)
        for text in call.warnings:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            answer.headers.add("Warning", f'299 - "{quoted}"')
        return answer


def _attributes(request: web.BaseRequest, target: Target) -> Attributes:
    method = request.method
    if method == "GET" or method == "HEAD":
        watching = request.query.get("watch", "").lower() in {"true", "1"}
        verb = "get" if target.name else "watch" if watching else "list"
    elif method == "DELETE":
        verb = "delete" if target.name else "deletecollection"
    else:
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())
    return Attributes(
        verb, target.group, target.resource, target.subresource, target.namespace, target.name
    )


def _deleted(call: Call, obj: Obj) -> Obj:
    details: Obj = {"name": obj["metadata"]["name"], "kind": call.resource.plural}
    if call.resource.group:
        details["group"] = call.resource.group
    details["uid"] = obj["metadata"]["uid"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }


def _reply(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type=_JSON)


def _refusal(problem: Problem) -> web.Response:
    answer = _reply(encode(problem.status()), problem.code)
    answer.headers.update(problem.headers)
    return answer


async def _body(request: web.BaseRequest) -> tuple[Any, str]:
    """Return the decoded body and its content type.

    :raises Problem: 400 for what is no JSON or YAML, 413 and 415 for what is not taken.
    """
    content_type = request.headers.get("Content-Type", _JSON).partition(";")[0].strip().lower()
    data = await request.read()
    if len(data) > _BODY_LIMIT:
        raise Problem(413, "RequestEntityTooLarge", "Request entity too large: limit is 8388608")
    if not data:
        return None, content_type
    if content_type == protobuf.CONTENT_TYPE:
        return protobuf.decode(data), content_type
    if "cbor" in content_type:
        raise problems.unsupported_media_type(content_type, _TYPES)
    if "yaml" in content_type and data.lstrip()[:1] != b"{":
        try:
            return yaml.load(data, Loader=_Loader), content_type  # noqa: S506 - a safe loader
        except yaml.YAMLError as error:
            raise problems.bad_request(f"error decoding YAML: {error}") from None
    try:
        return json.loads(data), content_type
    except ValueError as error:
        raise problems.bad_request(
            f"the object provided is unrecognized (must be of type object): {error}"
        ) from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Leaves timestamps as the strings they are."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
