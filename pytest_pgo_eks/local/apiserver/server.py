"""The HTTP side: TLS sockets in, requests taken apart, answers out."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from pytest_pgo_eks.local.apiserver import (
    bootstrap,
    definitions,
    identity,
    patches,
    problems,
    reading,
)
from pytest_pgo_eks.local.apiserver.admission import Allocators
from pytest_pgo_eks.local.apiserver.authentication import Authenticator, Identity
from pytest_pgo_eks.local.apiserver.authorization import MASTERS, Attributes, Authorizer
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.front import Front, Target, parse
from pytest_pgo_eks.local.apiserver.listener import Listener
from pytest_pgo_eks.local.apiserver.problems import Problem
from pytest_pgo_eks.local.apiserver.proxy import KubeletProxy
from pytest_pgo_eks.local.apiserver.reading import Form, Reading
from pytest_pgo_eks.local.apiserver.removal import Removal, options
from pytest_pgo_eks.local.apiserver.resources import Registry
from pytest_pgo_eks.local.apiserver.store import HISTORY, Store, Stored, encode
from pytest_pgo_eks.local.apiserver.subresources import Subresources
from pytest_pgo_eks.local.apiserver.times import since_s
from pytest_pgo_eks.local.apiserver.wire import (
    JSON,
    asked_for,
    deleted,
    read_body,
    refusal,
    reply,
)
from pytest_pgo_eks.local.apiserver.writing import Writing
from pytest_pgo_eks.local.objects import Obj

_log = logging.getLogger(__name__)
_REVIEWS = {"authentication.k8s.io", "authorization.k8s.io"}
_CRD = ("apiextensions.k8s.io", "customresourcedefinitions")
_EVENTS_S = 3600.0
_YEAR_S = 365 * 86400
Extension = Callable[[web.BaseRequest, Identity], Awaitable[web.StreamResponse]]


class ApiServer:
    """A Kubernetes API server that keeps everything in memory.

    ``tokens`` maps bearer tokens to identities; ``admin_token`` belongs to group system:masters.
    ``endpoints`` are the addresses of the ``kubernetes`` Service. ``kubelet_token`` and
    ``kubelet_ca`` are what exec, logs and port-forward use towards the kubelets. ``history`` is the
    number of events per resource from which watches can go on, ``events_s`` how long Events are
    kept. ``state`` is the cluster's directory; nothing is kept there.

    ``extensions`` maps path prefixes to handlers of other parts: ``handler(request, identity)``,
    called for whoever may use that path (non-resource rules).
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
        self.extensions: dict[str, Extension] = {}
        self.writing.check_role = self._check_role
        self.writing.fill_token = self._fill_token
        self.writing.define = self._define
        self.writing.finish = self.removal.finish
        self.cleanup = definitions.Cleanup(self.store, self.registry, self.removal, self.front)
        self._admin = Identity(admin.name, (*admin.groups, "system:authenticated"))
        self._events_s = events_s
        self._ca_file = kubelet_ca
        self._listener = Listener(self._handle)
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
        await self._listener.open(sockets, tls)
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """End every watch and stream, and close the sockets."""
        if self._sweeper:
            self._sweeper.cancel()
            self._sweeper = None
        self.store.close()
        await self.proxy.close()
        await self._listener.close()

    async def _sweep(self) -> None:
        """Forget old events."""
        while True:
            await asyncio.sleep(min(60.0, self._events_s))
            self.sweep_events()

    def sweep_events(self) -> None:
        """Remove the Events that are older than they are kept."""
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

    def _fill_token(self, secret: Obj) -> None:
        """Put a token into a Secret that asks for one, as the token controller does.

        :raises Problem: 422 when the annotation names no service account.
        """
        metadata = secret["metadata"]
        annotation = "kubernetes.io/service-account.name"
        name = (metadata.get("annotations") or {}).get(annotation, "")
        account = self.store.get(("", "serviceaccounts"), metadata["namespace"], name)
        if account is None:
            error = problems.required(f"metadata.annotations[{annotation}]")
            raise problems.invalid("", "Secret", metadata.get("name", ""), [error])
        metadata["annotations"]["kubernetes.io/service-account.uid"] = account["metadata"]["uid"]
        token, _ = self.authenticator.issue(account, seconds=_YEAR_S, bound={"Secret": metadata})
        ca = self._ca_file.read_bytes() if self._ca_file else b""
        data = {"token": token.encode(), "namespace": metadata["namespace"].encode(), "ca.crt": ca}
        secret["data"] = {
            **(secret.get("data") or {}),
            **{key: base64.b64encode(value).decode() for key, value in data.items()},
        }

    def _define(self, obj: Obj, old: Obj | None) -> None:
        definitions.prepare(obj, old)
        definitions.serve(obj, self.registry)
        self.front.changed()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except Problem as problem:
            return refusal(problem)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:  # noqa: BLE001 - a bug of ours is one failed request, not a dead server
            _log.exception("%s %s", request.method, request.path_qs)
            return refusal(
                Problem(500, "InternalError", "Internal error occurred: see the stand-in's log")
            )

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        who = self.authenticator.identify(request.headers.get("Authorization"))
        who = identity.effective(request, who, self.authorizer)
        path = request.path
        target = parse(path)
        if target is None:
            self.authorizer.require(who, Attributes(request.method.lower(), path=path))
            return await self._other(request, who, path)
        asked = asked_for(request, target)
        self.authorizer.require(who, asked)
        resource = self.registry.find(target.group, target.version, target.resource)
        if resource is None:
            return self._missing(target)
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
        allowed = resource.subresources[call.subresource][1] if call.subresource else resource.verbs
        if asked.verb not in allowed:
            raise problems.method_not_allowed()
        return await self._verb(request, call)

    def _missing(self, target: Target) -> web.StreamResponse:
        if target.version not in self.registry.groups().get(target.group, []):
            return web.Response(status=404, text="404 page not found\n")
        raise problems.no_such_resource()

    async def _other(
        self, request: web.BaseRequest, who: Identity, path: str
    ) -> web.StreamResponse:
        for prefix, handler in self.extensions.items():
            if path == prefix or path.startswith(prefix + "/"):
                return await handler(request, who)
        return self.front.answer(request, path)

    async def _verb(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        method = request.method
        how = reading.form(request.headers.get("Accept", ""))
        if method == "GET":
            return await self._read(request, call, how)
        body, content_type = await read_body(request)
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
            return reply(encode(self.subresources.get_scale(call)))
        if call.name:
            return reply(self.reading.get(call, how))
        if not call.flag("watch"):
            return reply(self.reading.list(call, how))
        chunks = await self.reading.watch(call, how)
        answer = web.StreamResponse(headers={"Content-Type": JSON})
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
            return reply(encode(self.subresources.review(call, body or {})), 201)
        if call.subresource:
            handler = {
                "binding": self.subresources.bind,
                "eviction": self.subresources.evict,
                "token": self.subresources.token,
            }.get(call.subresource)
            if handler is None:
                raise problems.method_not_allowed()
            return reply(encode(handler(call, body or {})), 201)
        return self._stored(call, self.writing.create(call, body), how, 201)

    def _put(self, call: Call, body: Any, how: Form) -> web.Response:
        if call.subresource == "scale":
            return reply(encode(self.subresources.set_scale(call, body or {})))
        if call.subresource == "finalize":
            return reply(encode(self.subresources.finalize(call, body or {})))
        obj, created = self.writing.update(call, body)
        return self._stored(call, obj, how, 201 if created else 200)

    def _patch(self, call: Call, content_type: str, body: Any, how: Form) -> web.Response:
        if call.subresource == "scale":
            return reply(encode(self._patch_scale(call, content_type, body)))
        obj, created = self.writing.patch(call, content_type, body)
        return self._stored(call, obj, how, 201 if created else 200)

    def _patch_scale(self, call: Call, content_type: str, body: Any) -> Obj:
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
            return reply(encode(deleted(call, obj)))
        return self._stored(call, obj, how, 200)

    def _delete_all(self, call: Call, wanted: Obj) -> web.Response:
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
        return reply(encode(head))

    def _stored(self, call: Call, obj: Obj, how: Form, status: int) -> web.Response:
        metadata = obj["metadata"]
        found = self.store.collection(call.resource.storage).get(
            metadata.get("namespace", ""), metadata["name"]
        )
        if found is None or found.obj is not obj:
            found = Stored(obj, 0)
        answer = reply(reading.render(call.resource, found, how), status)
        for text in call.warnings:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            answer.headers.add("Warning", f'299 - "{quoted}"')
        return answer
