"""One attempt of a probe over the network: HTTP, HTTPS without verification, or a bare TCP connect.

Written on streams rather than on an HTTP client: a cluster at rest does little else than this.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SocketFactory = Callable[[Any], socket.socket]
_BODY_BYTES = 10 * 1024
_VERSION = "1.34"


@dataclass(frozen=True)
class Attempt:
    """The outcome of one attempt; ``output`` is what the Event says of a failure."""

    success: bool
    output: str = ""


def unverified_tls() -> ssl.SSLContext:
    """Return the context for all HTTPS probes: making one costs milliseconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def port_number(port: int | str, container: Mapping[str, Any]) -> int:
    """Return the number of a port given by number or by name.

    :raises ValueError: the container declares no such name.
    """
    if isinstance(port, int) or port.isdecimal():
        return int(port)
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    raise ValueError(f"couldn't find port: {port}")


async def connect(
    host: str,
    port: int,
    factory: SocketFactory,
    tls: ssl.SSLContext | None = None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection from the node's network namespace.

    :raises OSError: refused, unreachable, or not TLS.
    """
    made = factory((socket.AF_INET, socket.SOCK_STREAM, 0))
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (host, port))
        return await asyncio.open_connection(
            sock=made, ssl=tls, server_hostname=host if tls else None
        )
    except BaseException:
        made.close()
        raise


async def tcp(host: str, port: int, factory: SocketFactory, timeout_s: float) -> Attempt:
    """Connect and close."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await connect(host, port, factory)
    except TimeoutError:
        return Attempt(False, f"dial tcp {host}:{port}: i/o timeout")
    except OSError as error:
        return Attempt(False, f"dial tcp {host}:{port}: connect: {_text(error)}")
    writer.transport.abort()
    return Attempt(True)


async def http(
    action: Mapping[str, Any],
    host: str,
    port: int,
    factory: SocketFactory,
    *,
    tls: ssl.SSLContext,
    timeout_s: float,
) -> Attempt:
    """Send one GET; any status from 200 to 399 is a success. Redirects are not followed."""
    secure = (action.get("scheme") or "HTTP").upper() == "HTTPS"
    path = action.get("path") or "/"
    path = path if path.startswith("/") else "/" + path
    url = f"{'https' if secure else 'http'}://{host}:{port}{path}"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await connect(host, port, factory, tls if secure else None)
            writer.write(_request(action, host, port, path))
            status, body = await _answer(reader)
    except TimeoutError:
        waiting = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Attempt(False, f'Get "{url}": {waiting}')
    except ConnectionRefusedError:
        return Attempt(False, f'Get "{url}": dial tcp {host}:{port}: connect: connection refused')
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        return Attempt(False, f'Get "{url}": {_text(error)}')
    finally:
        if writer is not None:
            # No TLS farewell: the peer of a probe does not wait for one, and nor do we.
            writer.transport.abort()
    if 200 <= status < 400:
        return Attempt(True, body)
    return Attempt(False, f"HTTP probe failed with statuscode: {status}")


def _request(action: Mapping[str, Any], host: str, port: int, path: str) -> bytes:
    headers = {
        "Host": action.get("host") or f"{host}:{port}",
        "User-Agent": f"kube-probe/{_VERSION}",
        "Accept": "*/*",
        "Connection": "close",
    }
    for header in action.get("httpHeaders") or []:
        headers = {k: v for k, v in headers.items() if k.lower() != header["name"].lower()}
        headers[header["name"]] = header.get("value") or ""
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    line = await reader.readline()
    version, _, rest = line.decode("latin-1").partition(" ")
    if not version.startswith("HTTP/") or not rest[:3].isdecimal():
        raise ValueError("EOF" if not line else f"malformed HTTP response {line[:40]!r}")
    while (await reader.readline()).strip():
        pass
    # Headers are the answer. A body is only looked at as far as it has come.
    body = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            body = await reader.read(_BODY_BYTES)
    return int(rest[:3]), body.decode("utf-8", "replace")


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
