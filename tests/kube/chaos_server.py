"""A small Kubernetes API in a process of its own, made to misbehave on demand.

``POST /_chaos/rule`` adds a rule ``{"method", "path" (regex), "do", "times", …}``; the first rule
that matches a request is applied and used up. ``POST /_chaos/token`` sets the token that is valid.
``GET /_chaos/seen`` returns every request so far. Prints one JSON line with its port when ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
CRD_GROUP = "postgres-operator.crunchydata.com"


class Chaos:
    def __init__(self) -> None:
        self.rules: list[dict[str, Any]] = []
        self.seen: list[str] = []
        self.token = "valid-token"
        self.version = 100
        self.oldest = 0
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.log: list[tuple[int, str, dict[str, Any]]] = []
        self.changed = asyncio.Condition()
        self.custom = False
        self.uids = 0

    def rule(self, request: web.Request) -> dict[str, Any] | None:
        for rule in self.rules:
            wanted_watch = rule.get("watch")
            is_watch = request.query.get("watch") == "true"
            if (
                rule.get("method", request.method) == request.method
                and re.search(rule.get("path", ""), request.path)
                and (wanted_watch is None or wanted_watch == is_watch)
            ):
                rule["times"] = rule.get("times", 1) - 1
                if rule["times"] <= 0:
                    self.rules.remove(rule)
                return rule
        return None

    async def record(self, kind: str, one: dict[str, Any], plural: str) -> None:
        async with self.changed:
            self.version += 1
            one["metadata"]["resourceVersion"] = str(self.version)
            # For benchmarks: the moment of the change, on the clock all processes share.
            one["metadata"]["changedAt"] = time.monotonic()
            self.log.append(
                (self.version, plural, {"type": kind, "object": json.loads(json.dumps(one))})
            )
            self.changed.notify_all()


def status(code: int, reason: str, message: str, **details: Any) -> web.Response:
    return web.json_response(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
            "details": details,
        },
        status=code,
    )


async def misbehave(request: web.Request, rule: dict[str, Any]) -> web.StreamResponse | None:
    do = rule["do"]
    assert request.transport is not None
    if do == "status":
        answer = status(rule["code"], rule.get("reason", "Chaos"), rule.get("message", "chaos"))
        for name, value in rule.get("headers", {}).items():
            answer.headers[name] = value
        return answer
    if do == "delay":
        await asyncio.sleep(rule["s"])
        return None
    if do == "drop":
        request.transport.abort()
        return web.Response()
    if do == "hang":
        await asyncio.sleep(3600)
    if do == "garbage":
        return web.Response(text=rule.get("text", "<html>not what you wanted</html>"))
    if do == "drip":
        answer2 = web.StreamResponse()
        await answer2.prepare(request)
        for _ in range(1000):
            await answer2.write(b" ")
            await asyncio.sleep(rule["s"])
        return answer2
    if do == "truncate":
        request.transport.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"kind": ')
        await asyncio.sleep(0.01)
        request.transport.abort()
        return web.Response()
    return None


@web.middleware
async def guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    chaos: Chaos = request.app["chaos"]
    if request.path.startswith("/_chaos"):
        return await handler(request)
    chaos.seen.append(f"{request.method} {request.path_qs}")
    if request.headers.get("Authorization") != f"Bearer {chaos.token}":
        return status(401, "Unauthorized", "Unauthorized")
    rule = chaos.rule(request)
    if rule is not None:
        request["rule"] = rule
        answer = await misbehave(request, rule)
        if answer is not None:
            return answer
    return await handler(request)


async def control(request: web.Request) -> web.Response:
    chaos: Chaos = request.app["chaos"]
    what = request.match_info["what"]
    if what == "seen":
        return web.json_response(chaos.seen)
    body = await request.json()
    if what == "rule":
        chaos.rules.append(body)
    elif what == "token":
        chaos.token = body
    elif what == "expire":
        chaos.oldest = chaos.version
    elif what == "crd":
        chaos.custom = body
    elif what == "reset":
        chaos.__init__()  # type: ignore[misc]
    return web.json_response({})


async def api_groups(request: web.Request) -> web.Response:
    groups = []
    if request.app["chaos"].custom:
        versions = [{"groupVersion": f"{CRD_GROUP}/{v}", "version": v} for v in ("v1", "v1beta1")]
        groups.append({"name": CRD_GROUP, "versions": versions, "preferredVersion": versions[0]})
    return web.json_response({"kind": "APIGroupList", "groups": groups})


async def group_version(request: web.Request) -> web.Response:
    if request.match_info.get("group") == CRD_GROUP and request.app["chaos"].custom:
        names = [
            ("postgresclusters", "PostgresCluster"),
            ("postgresclusters/status", "PostgresCluster"),
        ]
    elif "group" not in request.match_info:
        names = [("pods", "Pod"), ("pods/log", "Pod"), ("limitranges", "LimitRange")]
    else:
        return status(404, "NotFound", "the server could not find the requested resource")
    return web.json_response(
        {"resources": [{"name": name, "kind": kind, "namespaced": True} for name, kind in names]}
    )


def where(request: web.Request) -> tuple[str, str, str]:
    info = request.match_info
    return info["plural"], info.get("ns", ""), info.get("name", "")


def matches(one: dict[str, Any], request: web.Request) -> bool:
    labels = one["metadata"].get("labels") or {}
    for part in filter(None, request.query.get("labelSelector", "").split(",")):
        key, _, value = part.partition("=")
        if labels.get(key) != value:
            return False
    for part in filter(None, request.query.get("fieldSelector", "").split(",")):
        key, _, value = part.partition("=")
        found: Any = one
        for step in key.split("."):
            found = (found or {}).get(step)
        if found != value:
            return False
    return True


async def collection(request: web.Request) -> web.StreamResponse:
    chaos: Chaos = request.app["chaos"]
    plural, namespace, _ = where(request)
    if request.method == "POST":
        one = await request.json()
        name = one["metadata"].get("name") or f"{one['metadata']['generateName']}x{chaos.version}"
        if (plural, namespace, name) in chaos.objects:
            return status(409, "AlreadyExists", f'{plural} "{name}" already exists')
        chaos.uids += 1
        one["metadata"].update(name=name, namespace=namespace, uid=f"uid-{chaos.uids}")
        chaos.objects[plural, namespace, name] = one
        await chaos.record("ADDED", one, plural)
        return web.json_response(one, status=201)
    if request.query.get("watch") == "true":
        return await watch(request, plural)
    found = [
        {key: value for key, value in one.items() if key not in ("kind", "apiVersion")}
        for (p, ns, _), one in sorted(chaos.objects.items())
        if p == plural and namespace in ("", ns) and matches(one, request)
    ]
    start = int(request.query.get("continue") or 0)
    limit = int(request.app["page"] or request.query.get("limit") or 0) or len(found)
    meta: dict[str, Any] = {"resourceVersion": str(chaos.version)}
    if start + limit < len(found):
        meta["continue"] = str(start + limit)
    return web.json_response({"metadata": meta, "items": found[start : start + limit]})


async def watch(request: web.Request, plural: str) -> web.StreamResponse:  # noqa: C901
    chaos: Chaos = request.app["chaos"]
    rule = request.get("rule") or {}
    version = int(request.query["resourceVersion"])
    namespace = request.match_info.get("ns", "")
    if version < chaos.oldest and rule.get("do") != "event-410":
        return status(410, "Expired", "too old resource version")
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(request)
    if rule.get("do") == "event-410":
        error = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
        await answer.write(json.dumps({"type": "ERROR", "object": error}).encode() + b"\n")
        return answer
    sent = 0
    loop = asyncio.get_running_loop()
    ends = loop.time() + float(request.query.get("timeoutSeconds", "60"))
    while loop.time() < ends:
        for at, what, event in list(chaos.log):
            if at <= version or what != plural:
                continue
            version = at
            meta = event["object"]["metadata"]
            if namespace not in ("", meta["namespace"]) or not matches(event["object"], request):
                continue
            if rule.get("do") == "half-open" and sent >= rule.get("after", 0):
                await asyncio.sleep(3600)
            line = json.dumps(event).encode() + b"\n"
            if rule.get("do") == "split":
                await answer.write(line[:20])
                await asyncio.sleep(0.02)
                line = line[20:]
            await answer.write(line)
            sent += 1
            if rule.get("do") == "cut" and sent >= rule["after"]:
                assert request.transport is not None
                request.transport.abort()
                return answer
            if rule.get("do") == "end" and sent >= rule["after"]:
                return answer
        if rule.get("do") == "bad-event":
            await answer.write(b"{nonsense\n")
            return answer
        async with chaos.changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    chaos.changed.wait_for(lambda: chaos.version > version),  # noqa: B023
                    max(ends - loop.time(), 0.01),
                )
        if chaos.log and chaos.log[-1][0] <= version:
            version = max(version, chaos.log[-1][0])
    return answer


def merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif value is None:
            into.pop(key, None)
        else:
            into[key] = value


async def single(request: web.Request) -> web.StreamResponse:
    chaos: Chaos = request.app["chaos"]
    key = where(request)
    plural, _namespace, name = key
    one = chaos.objects.get(key)
    if request.method == "PATCH":
        patch = await request.json()
        is_apply = "apply-patch" in request.headers["Content-Type"]
        if is_apply and request.query.get("force") != "true" and (one or {}).get("_owner"):
            causes = [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "{one["_owner"]}"',  # type: ignore[index]
                    "field": ".spec.replicas",
                }
            ]
            return status(409, "Conflict", "Apply failed with 1 conflict", causes=causes)
        if one is None:
            if not is_apply:
                return status(404, "NotFound", f'{plural} "{name}" not found', name=name)
            chaos.uids += 1
            patch["metadata"]["uid"] = f"uid-{chaos.uids}"
            chaos.objects[key] = patch
            await chaos.record("ADDED", patch, plural)
            return web.json_response(patch, status=201)
        if isinstance(patch, list):
            for step in patch:
                merge(one, {step["path"].split("/")[1]: step["value"]})
        else:
            merge(one, patch)
        await chaos.record("MODIFIED", one, plural)
        return web.json_response(one)
    if one is None:
        return status(404, "NotFound", f'{plural} "{name}" not found', name=name)
    if request.method == "DELETE":
        options = await request.json() if request.can_read_body else {}
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != one["metadata"]["uid"]:
            return status(409, "Conflict", f"the UID in the precondition ({wanted}) does not match")
        del chaos.objects[key]
        one["_options"] = options
        await chaos.record("DELETED", one, plural)
    return web.json_response(one)


async def log(request: web.Request) -> web.Response:
    return web.Response(text=f"log of {request.match_info['name']} {request.query_string}\n")


async def execute(request: web.Request) -> web.StreamResponse:  # noqa: C901
    rule = request.get("rule") or {}
    if ("pods", request.match_info["ns"], request.match_info["name"]) not in request.app[
        "chaos"
    ].objects:
        return status(404, "NotFound", 'pods "gone" not found')
    ws = web.WebSocketResponse(protocols=(V4,) if rule.get("do") == "v4" else (V5, V4))
    await ws.prepare(request)
    if rule.get("do") == "exec-silent":
        await asyncio.sleep(3600)
    command = request.query.getall("command")
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE
            if "stdin" in request.query
            else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        failure = {"status": "Failure", "reason": "InternalError", "message": str(error)}
        await ws.send_bytes(b"\x03" + json.dumps(failure).encode())
        await ws.close()
        return ws

    async def pump(stream: asyncio.StreamReader, channel: int) -> None:
        size = rule.get("frame", 65536)
        while data := await stream.read(size):
            await ws.send_bytes(bytes([channel]) + data)

    async def feed() -> None:
        assert process.stdin is not None
        async for message in ws:
            if message.type != WSMsgType.BINARY or not message.data:
                continue
            if message.data[0] == 255:
                process.stdin.close()
            elif message.data[0] == 0:
                process.stdin.write(message.data[1:])
                with contextlib.suppress(ConnectionError):
                    await process.stdin.drain()

    feeder = asyncio.create_task(feed()) if process.stdin else None
    assert process.stdout is not None
    assert process.stderr is not None
    pumps = [
        asyncio.create_task(pump(process.stdout, 1)),
        asyncio.create_task(pump(process.stderr, 2)),
    ]
    if rule.get("do") == "exec-cut":
        await asyncio.sleep(rule.get("s", 0.1))
        assert request.transport is not None
        request.transport.abort()
        process.kill()
    await asyncio.gather(*pumps, return_exceptions=True)
    code = await process.wait()
    if feeder:
        feeder.cancel()
    if rule.get("do") == "exec-no-status":
        await ws.close()
        return ws
    said: dict[str, Any] = {"status": "Success"}
    if code:
        causes = [{"reason": "ExitCode", "message": str(code)}]
        said = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
    if rule.get("do") == "exec-bad-status":
        said = {"no": "status"}
    with contextlib.suppress(ConnectionError):
        await ws.send_bytes(b"\x03" + json.dumps(said).encode())
    await ws.close()
    return ws


async def forward(request: web.Request) -> web.StreamResponse:
    port = int(request.query["ports"])
    ws = web.WebSocketResponse(protocols=(V4,))
    await ws.prepare(request)
    for channel in (0, 1):
        await ws.send_bytes(bytes([channel]) + struct.pack("<H", port))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        await ws.send_bytes(b"\x01" + f"cannot connect to {port}: {error.errno}".encode())
        await ws.close()
        return ws

    async def back() -> None:
        while data := await reader.read(65536):
            await ws.send_bytes(b"\0" + data)
        await ws.close()

    task = asyncio.create_task(back())
    async for message in ws:
        if message.type == WSMsgType.BINARY and message.data and message.data[0] == 0:
            writer.write(message.data[1:])
            await writer.drain()
    writer.close()
    task.cancel()
    return ws


async def main() -> None:
    app = web.Application(middlewares=[guard], client_max_size=1 << 26)
    app["chaos"] = Chaos()
    app["page"] = int(os.environ.get("CHAOS_PAGE", "0"))
    route = app.router.add_route
    route("*", "/_chaos/{what}", control)
    route("GET", "/version", lambda _r: _async(web.json_response({"gitVersion": "v1.34.0+chaos"})))
    route("GET", "/apis", api_groups)
    for root in ("/api/v1", "/apis/{group}/{version}"):
        route("GET", root, group_version)
        route("*", root + "/{plural}", collection)
        route("*", root + "/namespaces/{ns}/{plural}", collection)
        route("*", root + "/namespaces/{ns}/{plural}/{name}", single)
        route("*", root + "/namespaces/{ns}/{plural}/{name}/status", single)
    for verb, handler in (("log", log), ("exec", execute), ("portforward", forward)):
        route("GET", "/api/v1/namespaces/{ns}/pods/{name}/" + verb, handler)
    tls = None
    if len(sys.argv) > 1:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(sys.argv[1])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    # The parent's end of stdin closes with it, however it ends.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


async def _async(answer: web.Response) -> web.Response:
    return answer


if __name__ == "__main__":
    asyncio.run(main())
