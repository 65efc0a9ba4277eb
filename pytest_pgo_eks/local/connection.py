"""One connection pool to one Kubernetes API server, under one identity."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import aiohttp

from pytest_pgo_eks.local.objects import Obj

REQUEST_S = 15.0
# A watch only reads, so a partition leaves it waiting for the server's next retransmission: after
# 60 s without a network that came 47 s late. Keepalive ends such a connection after 25 s, and the
# next one works as soon as the network does. Go's client does the same with HTTP/2 pings (45 s).
_KEEPALIVE = {
    "TCP_KEEPIDLE": 10,  # seconds
    "TCP_KEEPINTVL": 5,  # seconds
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 25_000,  # milliseconds
}


class ApiError(Exception):
    """The API answered with a Status that is no success; ``code`` is 0 when nothing answered."""

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}


class Connection:
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
                ssl=self._tls, limit=0, socket_factory=self._make_socket
            )
            self._session = aiohttp.ClientSession(
                connector=connector, headers={"User-Agent": self._agent}
            )
        return self._session

    def _make_socket(self, address: Any) -> socket.socket:
        made: socket.socket = (
            self._socket_factory(address) if self._socket_factory else socket.socket(*address[:3])
        )
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return made

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
        timeout_s: float = REQUEST_S,
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
        timeout_s: float = REQUEST_S,
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
        timeout_s: float = REQUEST_S,
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
                    raise refused(answer.status, text)
                return text
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = f"{method} {path}: {type(error).__name__} {error}"
            raise ApiError(0, "Unreachable", what) from error


def refused(status: int, text: bytes) -> ApiError:
    """Return the error that an answer of 400 or above means."""
    try:
        found = json.loads(text)
        return ApiError(
            status, found.get("reason", ""), found.get("message", ""), found.get("details")
        )
    except (ValueError, AttributeError):
        return ApiError(status, "", text.decode("utf-8", "replace")[:500])
