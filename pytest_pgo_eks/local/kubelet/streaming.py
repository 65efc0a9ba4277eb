"""The kubelet's own API on port 10250: logs, exec, attach, port-forward; for the API server only."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pytest_pgo_eks.local.kubelet import sessions, spdy_streams
from pytest_pgo_eks.local.kubelet.channels import PROTOCOLS, Channels
from pytest_pgo_eks.local.kubelet.logs import (
    LogOptions,
    LogWriter,
    newest_first,
    read_log,
    since_seconds,
    since_time,
)
from pytest_pgo_eks.local.kubelet.node import PORT
from pytest_pgo_eks.local.kubelet.payload import NotYet
from pytest_pgo_eks.local.kubelet.pods import Pod
from pytest_pgo_eks.local.kubelet.runner import Runner
from pytest_pgo_eks.local.kubelet.shared import Shared
from pytest_pgo_eks.local.kubelet.status import Waiting

_STOP_S = 1.0


class Pods(Protocol):
    """The agent, as far as the server needs it."""

    shared: Shared
    pods: dict[str, Pod]

    def find(self, namespace: str, name: str, uid: str | None = None) -> Pod | None: ...


class StreamingServer:
    """Serves one node's address, for the API server and nobody else.

    It shows the bearer ``token`` or, where ``tls`` asks for one, a client certificate that the
    context's authority signed for the group ``system:masters``.
    """

    def __init__(self, agent: Pods, tls: ssl.SSLContext, token: str) -> None:
        self._agent = agent
        self._tls = tls
        self._token = token
        self._runner: web.AppRunner | None = None
        self._sessions: set[web.WebSocketResponse] = set()

    async def start(self) -> None:
        """Listen in the node's network namespace.

        :raises OSError: the address is not there, or taken.
        """
        app = web.Application(middlewares=[_guard(self._token)])
        where = "{namespace}/{pod}"
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/pods", self._list)
        app.router.add_get(f"/containerLogs/{where}/{{container}}", self._logs)
        for verb, handler in (("exec", self._exec), ("attach", self._attach)):
            for tail in ("{container}", "{uid}/{container}"):
                # A kube-apiserver that speaks SPDY posts.
                app.router.add_get(f"/{verb}/{where}/{tail}", handler)
                app.router.add_post(f"/{verb}/{where}/{tail}", handler)
        for tail in ("", "/{uid}"):
            app.router.add_get(f"/portForward/{where}{tail}", self._port_forward)
            app.router.add_post(f"/portForward/{where}{tail}", self._port_forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S)
        await self._runner.setup()
        node = self._agent.shared.node
        made = self._agent.shared.sockets((socket.AF_INET, socket.SOCK_STREAM, 0))
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setblocking(False)
            made.bind((node.ip, PORT))
            made.listen(128)
        except BaseException:
            made.close()
            raise
        await web.SockSite(self._runner, made, ssl_context=self._tls).start()

    async def stop(self) -> None:
        for socket_ in tuple(self._sessions):
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(_STOP_S):
                    await socket_.close()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    # ------------------------------------------------------------------ finding

    def _pod(self, request: web.Request) -> Pod:
        info = request.match_info
        pod = self._agent.find(info["namespace"], info["pod"], info.get("uid"))
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{info["pod"]}" not found on this node')
        return pod

    def _runner_of(self, request: web.Request) -> tuple[Pod, Runner]:
        pod = self._pod(request)
        name = request.match_info["container"]
        runner = pod.runner(name)
        if runner is None:
            raise web.HTTPNotFound(
                text=f"container {name} is not valid for pod {request.match_info['pod']}"
            )
        return pod, runner

    # ------------------------------------------------------------------ answers

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _list(self, _request: web.Request) -> web.Response:
        items = [pod.obj for pod in self._agent.pods.values()]
        return web.json_response(
            {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        )

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        pod, runner = self._runner_of(request)
        options = _log_options(request)
        path, writer = _log_file(pod, runner, previous=_flag(request, "previous"))
        answer = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for chunk in read_log(path, options, writer):
                await answer.write(chunk)
            await answer.write_eof()
        return answer

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        pod, runner = self._runner_of(request)
        argv = request.query.getall("command", [])
        if not argv:
            raise web.HTTPBadRequest(text="you must specify at least 1 command")
        container = runner.container
        if container is None:
            raise web.HTTPInternalServerError(text=_not_found(runner))
        wanted = _streams(request)
        async with self._accepted(request, wanted) as (answer, channels):
            await sessions.execute(pod.shared.home, container, argv, wanted, channels)
        return answer

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        _, runner = self._runner_of(request)
        if runner.container is None:
            raise web.HTTPInternalServerError(text=_not_found(runner))
        wanted = _streams(request)
        async with self._accepted(request, wanted) as (answer, channels):
            await sessions.attach(runner.container, wanted, channels)
        return answer

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        if spdy_streams.is_spdy(request):
            return await self._forward_streams(request, pod)
        values = request.query.getall("port", []) or request.query.getall("ports", [])
        ports = [int(p) for value in values for p in value.split(",") if p.isdecimal()]
        if not ports or not all(0 < port < 65536 for port in ports):
            raise web.HTTPBadRequest(text=f"query parameter 'port' is required: {values}")
        net = _network_of(pod)
        async with self._socket(request) as socket_:
            await sessions.forward(pod.shared.home, net, ports, Channels(socket_))
        return socket_

    async def _forward_streams(self, request: web.Request, pod: Pod) -> web.StreamResponse:
        net = _network_of(pod)
        link = await spdy_streams.upgraded(request, forward=True)
        home = pod.shared.home
        await spdy_streams.SpdyForward(link, partial(sessions.connect, home, net)).run()
        return link.response

    @contextlib.asynccontextmanager
    async def _accepted(
        self, request: web.Request, wanted: sessions.Streams
    ) -> AsyncIterator[tuple[web.StreamResponse, sessions.Link]]:
        if spdy_streams.is_spdy(request):
            link = await spdy_streams.upgraded(request)
            channels = spdy_streams.SpdyChannels(link)
            # A client that is gone before it began gets no answer, and needs none.
            with contextlib.suppress(ConnectionError):
                await channels.open(wanted)
                yield link.response, channels
            return
        async with self._socket(request) as socket_:
            yield socket_, Channels(socket_)

    @contextlib.asynccontextmanager
    async def _socket(self, request: web.Request) -> AsyncIterator[web.WebSocketResponse]:
        socket_ = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=0)
        if not socket_.can_prepare(request):
            raise web.HTTPBadRequest(text="Upgrade request required")
        await socket_.prepare(request)
        self._sessions.add(socket_)
        try:
            yield socket_
        finally:
            self._sessions.discard(socket_)
            with contextlib.suppress(ConnectionError):
                await socket_.close()


def _network_of(pod: Pod) -> int:
    try:
        return pod.sandbox.namespaces.fds["net"]
    except NotYet as error:
        raise web.HTTPInternalServerError(text="pod is not running") from error


def _guard(token: str) -> Middleware:
    """Return a middleware that refuses every request of anybody but the API server."""

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        known = hmac.compare_digest(given.encode(), f"Bearer {token}".encode())
        if not known and not _is_master(request):
            return web.Response(status=401, text="Unauthorized")
        return await handler(request)

    return admit


def _is_master(request: web.Request) -> bool:
    """Say whether the client showed a certificate of the cluster's administrators.

    TLS has verified it: one that nobody trusted signed never gets here.
    """
    shown = request.get_extra_info("peercert") or {}
    return any(
        (name, value) == ("organizationName", "system:masters")
        for parts in shown.get("subject", ())
        for name, value in parts
    )


def _flag(request: web.Request, *names: str) -> bool:
    return any(request.query.get(name, "").lower() in {"1", "true"} for name in names)


def _streams(request: web.Request) -> sessions.Streams:
    # The kubelet's names, and those of the API server.
    return sessions.Streams(
        stdin=_flag(request, "input", "stdin"),
        stdout=_flag(request, "output", "stdout"),
        stderr=_flag(request, "error", "stderr"),
        tty=_flag(request, "tty"),
    )


def _log_options(request: web.Request) -> LogOptions:
    query = request.query
    try:
        since = None
        if query.get("sinceTime"):
            since = since_time(query["sinceTime"])
        elif query.get("sinceSeconds"):
            since = since_seconds(float(query["sinceSeconds"]))
        tail = query.get("tailLines") or query.get("tail")
        limit = query.get("limitBytes")
        return LogOptions(
            follow=_flag(request, "follow"),
            tail=int(tail) if tail not in {None, "all"} else None,
            since=since,
            timestamps=_flag(request, "timestamps"),
            limit_bytes=int(limit) if limit else None,
        )
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from error


def _log_file(pod: Pod, runner: Runner, *, previous: bool) -> tuple[Path, LogWriter | None]:
    """Return the log asked for, and its writer while the container runs."""
    logs = newest_first(runner.log_directory())
    name, state = runner.record.name, runner.record.state
    if previous:
        # Between two runs the last one is the previous one.
        logs = logs if isinstance(state, Waiting) else logs[1:]
        if not logs:
            said = f'previous terminated container "{name}" in pod "{pod.name[1]}" not found'
            raise web.HTTPBadRequest(text=said)
        return logs[0], None
    if not logs:
        reason = state.reason if isinstance(state, Waiting) else "unknown"
        said = f'container "{name}" in pod "{pod.name[1]}" is waiting to start: {reason}'
        raise web.HTTPBadRequest(text=said)
    return logs[0], runner.container.log if runner.container else None


def _not_found(runner: Runner) -> str:
    return f'container not found ("{runner.record.name}")'
