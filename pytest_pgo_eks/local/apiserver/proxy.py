"""exec, attach, port-forward and logs: handed on to the kubelet of the pod's node."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import quote

import aiohttp
from aiohttp import web

from pytest_pgo_eks.local.apiserver import problems, tunnel
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.problems import Problem, bad_request
from pytest_pgo_eks.local.apiserver.store import Store
from pytest_pgo_eks.local.objects import Obj

_CONNECT_S = 10.0
_LOG_OPTIONS = (
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
)
_STREAMS = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))
_EXEC = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io")
_FORWARD = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "v5.channel.k8s.io")
# Sent and received as they are; nothing is worth compressing on one machine.
_UNLIMITED = 0


class KubeletProxy:
    """Finds the kubelet of a pod and copies bytes both ways.

    ``token`` is presented to the kubelets, ``ca_file`` verifies them.
    """

    def __init__(self, store: Store, token: str, ca_file: Path | None) -> None:
        self._store = store
        self._token = token
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
            headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            self._session = aiohttp.ClientSession(
                connector=connector, headers=headers, auto_decompress=False
            )
        return self._session

    async def serve(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Answer a request to pods/exec, pods/attach, pods/portforward or pods/log.

        :raises Problem: 400 for what cannot be asked of this pod, 404, 500 for a silent kubelet.
        """
        pod = self._store.get(("", "pods"), call.namespace, call.name)
        if pod is None:
            raise call.not_found()
        if call.subresource == "log":
            return await self._logs(request, call, pod)
        return await self._stream(request, call, pod)

    def _kubelet(self, pod: Obj) -> str:
        """Return the kubelet's URL."""
        name = pod["spec"].get("nodeName")
        if not name:
            raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        node = self._store.get(("", "nodes"), "", name)
        if node is None:
            raise problems.not_found("", "nodes", name)
        status = node.get("status") or {}
        addresses = {
            one.get("type", ""): one.get("address", "") for one in status.get("addresses") or []
        }
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        if "InternalIP" not in addresses or not port:
            raise Problem(500, "InternalError", f"node {name} has not said where its kubelet is")
        return f"https://{addresses['InternalIP']}:{port}"

    async def _logs(self, request: web.BaseRequest, call: Call, pod: Obj) -> web.StreamResponse:
        container = _container(pod, call.query.get("container", ""))
        url = self._kubelet(pod) + f"/containerLogs/{call.namespace}/{call.name}/{container}"
        query = [(name, call.query[name]) for name in _LOG_OPTIONS if name in call.query]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        try:
            async with self._open().get(url, params=query, timeout=timeout) as kubelet:
                if kubelet.status >= 400:
                    raise _said(kubelet.status, (await kubelet.read()).decode("utf-8", "replace"))
                answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
                answer.enable_chunked_encoding()
                await answer.prepare(request)
                try:
                    async for chunk in kubelet.content.iter_any():
                        await answer.write(chunk)
                    await answer.write_eof()
                except ConnectionError:
                    pass  # whoever followed the log has seen enough
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _silent(call, url, error) from error

    async def _stream(self, request: web.BaseRequest, call: Call, pod: Obj) -> web.StreamResponse:
        # First of all: kubectl that was refused over WebSocket tries SPDY and shows that answer.
        where = _where(call, pod)
        upgrade = request.headers.get("Upgrade", "").lower()
        if upgrade != "websocket":
            raise bad_request(
                f"this server speaks exec, attach and port-forward over WebSocket only, not {upgrade}: "
                "use kubectl 1.31 or newer, or 1.30 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true and "
                "KUBECTL_PORT_FORWARD_WEBSOCKETS=true"
                if upgrade.startswith("spdy")
                else "Upgrade request required"
            )
        url = self._kubelet(pod) + where
        query = _query(request, call)
        wanted = _protocols(request)
        if call.subresource == "portforward" and tunnel.PROTOCOL in wanted:
            return await self._tunnel(request, url)
        known = _FORWARD if call.subresource == "portforward" else _EXEC
        chosen = [one for one in wanted if one in known]
        if wanted and not chosen:
            offered = ", ".join(wanted)
            raise bad_request(
                f"none of the protocols {offered} is known; known: {', '.join(known)}"
            )
        try:
            kubelet = await self._dial(url, query, chosen)
        except aiohttp.WSServerHandshakeError as error:
            raise _said(error.status, f"the kubelet refused: {error.message}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _silent(call, url, error) from error
        protocols = [kubelet.protocol] if kubelet.protocol else []
        client = web.WebSocketResponse(
            protocols=protocols, max_msg_size=_UNLIMITED, compress=False, timeout=5.0
        )
        try:
            await client.prepare(request)
            await _both(client, kubelet)
        finally:
            await kubelet.close()
            if client.prepared:
                await client.close()
        return client

    async def _dial(
        self, url: str, query: list[tuple[str, str]], protocols: Sequence[str]
    ) -> aiohttp.ClientWebSocketResponse:
        return await self._open().ws_connect(
            url,
            params=query,
            protocols=protocols,
            max_msg_size=_UNLIMITED,
            timeout=aiohttp.ClientWSTimeout(ws_close=5.0),
        )

    async def _tunnel(self, request: web.BaseRequest, url: str) -> web.StreamResponse:
        """Serve ``kubectl port-forward``: SPDY inside the WebSocket."""
        client = web.WebSocketResponse(
            protocols=[tunnel.PROTOCOL], max_msg_size=_UNLIMITED, compress=False, timeout=5.0
        )
        await client.prepare(request)

        async def dial(port: int) -> aiohttp.ClientWebSocketResponse:
            return await self._dial(url, [("port", str(port))], _FORWARD[:1])

        try:
            await tunnel.Tunnel(client, dial).run()
        finally:
            await client.close()
        return client


async def _copy(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, sink: object
) -> None:
    to = sink
    assert isinstance(to, web.WebSocketResponse | aiohttp.ClientWebSocketResponse)
    async for message in _messages(source):
        if message.type is aiohttp.WSMsgType.BINARY:
            await to.send_bytes(message.data)
        else:
            await to.send_str(message.data)


async def _messages(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> AsyncIterator[aiohttp.WSMessage]:
    while True:
        message = await source.receive()
        if message.type not in {aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT}:
            return
        yield message


async def _both(client: web.WebSocketResponse, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    """Copy both ways until either side ends."""
    tasks = [
        asyncio.create_task(_copy(client, kubelet)),
        asyncio.create_task(_copy(kubelet, client)),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, ConnectionError | aiohttp.ClientError):
                raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _container(pod: Obj, wanted: str) -> str:
    """Return the container that is meant.

    :raises Problem: 400 when that is not clear, or there is no such container.
    """
    spec, name = pod["spec"], pod["metadata"]["name"]
    plain = [one["name"] for one in spec.get("containers") or []]
    init = [one["name"] for one in spec.get("initContainers") or []]
    if wanted:
        if wanted not in plain + init:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(plain) == 1:
        return str(plain[0])
    default = (pod["metadata"].get("annotations") or {}).get(
        "kubectl.kubernetes.io/default-container"
    )
    if default in plain:
        return str(default)
    said = f"a container name must be specified for pod {name}, choose one of: [{' '.join(plain)}]"
    if init:
        said += f" or one of the init containers: [{' '.join(init)}]"
    raise bad_request(said)


def _where(call: Call, pod: Obj) -> str:
    where = f"{quote(call.namespace)}/{quote(call.name)}"
    if call.subresource == "portforward":
        return f"/portForward/{where}"
    container = _container(pod, call.query.get("container", ""))
    return f"/{call.subresource}/{where}/{quote(container)}"


def _query(request: web.BaseRequest, call: Call) -> list[tuple[str, str]]:
    """Translate the API's options into the kubelet's."""
    if call.subresource == "portforward":
        ports = request.query.getall("ports", []) + request.query.getall("port", [])
        return [("port", port) for listed in ports for port in listed.split(",")]
    found = [("command", part) for part in request.query.getall("command", [])]
    for name, theirs in _STREAMS:
        if call.flag(name):
            found.append((theirs, "1"))
    return found


def _protocols(request: web.BaseRequest) -> list[str]:
    listed = request.headers.get("Sec-WebSocket-Protocol", "")
    return [one.strip() for one in listed.split(",") if one.strip()]


def _said(status: int, text: str) -> Problem:
    if status == 400:
        return bad_request(text.strip())
    if status == 404:
        return Problem(404, "NotFound", text.strip())
    return Problem(500, "InternalError", f"Internal error occurred: {text.strip()}")


def _silent(call: Call, url: str, error: BaseException) -> Problem:
    said = str(error) or type(error).__name__
    return Problem(
        500,
        "InternalError",
        f'Get "{url}": cannot reach the kubelet of pod {call.namespace}/{call.name}: {said}',
    )
