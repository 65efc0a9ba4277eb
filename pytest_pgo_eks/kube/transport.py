"""Requests with a deadline through the official client, and its traps kept in one place.

What is worked around, each seen in 36 or 37:

- 36.0.0 and 36.0.1 send no token: refused by name.
- The library retries by itself (three times, and as often as ``Retry-After`` says), which makes a
  deadline four deadlines: retries are switched off there and made here, inside the deadline.
- ``DynamicClient`` discovers without a deadline and caches in a file in ``/tmp`` named after the
  server's URL, so a new cluster on a used port is read with an old one's kinds: it gets a
  discoverer that does nothing, and :mod:`pytest_pgo_eks.kube.kinds` discovers.
- A read timeout bounds one ``recv``, not the answer: bodies are read here, against the deadline.
"""

from __future__ import annotations

import importlib.metadata
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_pgo_eks.errors import ApiProblem, UsageProblem
from pytest_pgo_eks.kube.credentials import prove_header, set_both_names
from pytest_pgo_eks.kube.problems import plain, problem_of
from pytest_pgo_eks.secrets import filtered

Query = Sequence[tuple[str, str]]

BROKEN_CLIENTS = ("36.0.0", "36.0.1")
CONTENT_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
# Answers that say "not now". 500 is here because etcd's leader changes surface as 500.
_PASSING = frozenset({500, 502, 503, 504})
_TRIES = 6


def client_version() -> str:
    """Return the version of the installed client library without importing it.

    :raises UsageProblem: it is one that sends requests without credentials.
    """
    version = importlib.metadata.version("kubernetes")
    if version in BROKEN_CLIENTS:
        raise UsageProblem(
            f"kubernetes {version} sends requests without credentials; "
            "install 36.0.2 or newer: pip install 'kubernetes>=36.0.2'"
        )
    return version


class _NoDiscovery:
    """Stands where DynamicClient wants a discoverer, and discovers nothing."""

    def __init__(self, client: Any, cache_file: str | None) -> None:
        del client, cache_file


@dataclass(frozen=True)
class Endpoint:
    """Where a WebSocket goes: everything the library's configuration says about the server."""

    host: str
    port: int
    path_prefix: str
    headers: tuple[tuple[str, str], ...]
    tls: ssl.SSLContext | None
    server_name: str
    proxy: str | None


class Transport:
    """One server, one identity, many threads.

    A 401 reloads the kubeconfig once and tries again, so a token that expired or was exchanged on
    disk costs one request.
    """

    def __init__(self, kubeconfig: Path, context: str | None) -> None:
        client_version()
        self.kubeconfig = kubeconfig
        self.context = context
        self.requests = 0
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._generation = 0
        self._dynamic: Any = None
        self._load()

    # -- configuration --------------------------------------------------------------------------

    def _load(self) -> None:
        import yaml
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException
        from kubernetes.dynamic import DynamicClient

        settings = client.Configuration()
        settings.retries = False
        settings.connection_pool_maxsize = 32
        settings.socket_options = keepalive_options()
        try:
            load: Any = config.load_kube_config
            load(
                config_file=str(self.kubeconfig),
                context=self.context,
                client_configuration=settings,
                persist_config=False,
            )
        except (
            ConfigException,
            yaml.YAMLError,
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ) as error:
            said = " ".join(str(error).split())
            raise UsageProblem(f"kubeconfig {self.kubeconfig} cannot be used: {said}") from error
        if _loopback(urlsplit(settings.host).hostname or ""):
            settings.proxy = None
        set_both_names(settings)
        prove_header(settings, client_version())
        self._configuration = settings
        dynamic: Any = DynamicClient
        self._dynamic = dynamic(client.ApiClient(settings), discoverer=_NoDiscovery)

    def reload(self, generation: int) -> None:
        """Read the kubeconfig again, unless another thread did since ``generation``."""
        with self._lock:
            if self._generation == generation:
                self._load()
                self._generation += 1

    @property
    def generation(self) -> int:
        return self._generation

    def endpoint(self) -> Endpoint:
        """Return what a WebSocket needs, from a configuration of its own per call.

        The library's ``stream`` swaps a method on the shared client; 35 of 130 calls failed when
        other threads used it. Nothing here touches the shared client.
        """
        settings: Any = self._configuration
        url = urlsplit(settings.host)
        tls: ssl.SSLContext | None = None
        if url.scheme == "https":
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if not settings.verify_ssl:
                tls.check_hostname = False
                tls.verify_mode = ssl.CERT_NONE
            elif settings.ssl_ca_cert:
                tls.load_verify_locations(cafile=settings.ssl_ca_cert)
            else:
                tls.load_default_certs()
            if settings.assert_hostname is False:
                tls.check_hostname = False
            if settings.cert_file:
                tls.load_cert_chain(settings.cert_file, settings.key_file)
        headers = tuple(
            (str(auth["key"]), str(auth["value"]))
            for auth in settings.auth_settings().values()
            if auth.get("in") == "header" and auth.get("value")
        )
        host = url.hostname or ""
        return Endpoint(
            host=host,
            port=url.port or (443 if tls else 80),
            path_prefix=url.path.rstrip("/"),
            headers=headers,
            tls=tls,
            server_name=settings.tls_server_name or host,
            proxy=settings.proxy,
        )

    def close(self) -> None:
        self.closed.set()
        self._dynamic.client.close()

    # -- requests -------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Any = None,
        content_type: str = "application/json",
        deadline_s: float,
        repeatable: bool | None = None,
    ) -> Any:
        """Return the decoded JSON answer of one request, all its retries within ``deadline_s``.

        ``repeatable`` says that sending it twice does no harm (default: GET only). What was
        certainly not executed (429, no connection) is repeated whatever it says.
        """
        raw = self.raw(
            method,
            path,
            query=query,
            body=body,
            content_type=content_type,
            deadline_s=deadline_s,
            repeatable=method == "GET" if repeatable is None else repeatable,
        )
        try:
            return json.loads(raw)
        except ValueError as error:
            raise ApiProblem(
                f"{method} {path}: the answer is no JSON: {filtered(repr(raw[:200]))}"
            ) from error

    def raw(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Any = None,
        content_type: str = "application/json",
        deadline_s: float,
        repeatable: bool = False,
    ) -> bytes:
        """Return the body of one request, undecoded. See :meth:`request`."""
        ends = time.monotonic() + deadline_s
        renewed = False
        for attempt in range(1, _TRIES + 1):
            generation = self._generation
            try:
                response = self.open(
                    method,
                    path,
                    query=query,
                    body=body,
                    content_type=content_type,
                    timeout_s=max(ends - time.monotonic(), 0.001),
                )
                return _read(response, ends, f"{method} {path}", deadline_s)
            except _Failed as failed:
                if failed.problem.status == 401 and not renewed:
                    renewed = True
                    self.reload(generation)
                    continue
                pause_s = failed.pause_s(attempt, repeatable=repeatable)
                if failed.problem.status == 401:
                    raise self._expired(failed.problem) from failed.__cause__
                if pause_s is None or attempt == _TRIES or self.closed.is_set():
                    raise failed.problem from failed.__cause__
                if time.monotonic() + pause_s >= ends:
                    raise failed.problem from failed.__cause__
                self.closed.wait(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _expired(self, problem: ApiProblem) -> ApiProblem:
        return ApiProblem(
            f"{problem}; {self.kubeconfig} was read again and is not accepted either: its credentials "
            "have expired or were withdrawn; log in again, then run on with --pgo-reuse or anew",
            status=problem.status,
            reason=problem.reason,
        )

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Any = None,
        content_type: str = "application/json",
        timeout_s: float,
    ) -> Any:
        """Send one request once and return the library's open response (status 2xx).

        ``timeout_s`` bounds everything up to the answer's head, and each read of its body.

        :raises _Failed: carries the error to raise and what may be done about it.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError, NewConnectionError, SSLError

        self.requests += 1
        what = f"{method} {path}"
        try:
            return self._dynamic.request(
                method,
                path,
                body=body,
                query_params=list(query),
                header_params={"Accept": "application/json"},
                content_type=content_type,
                serialize=False,
                _request_timeout=float(timeout_s),
            )
        except ApiException as error:
            status = int(error.status or 0)
            if status == 0:
                raise _Failed(ApiProblem(f"{what}: {error.reason}")) from error
            retry_after = _retry_after(getattr(error, "headers", None))
            raise _Failed(
                problem_of(status, getattr(error, "body", None), what), retry_after
            ) from error
        except SSLError as error:
            raise _Failed(ApiProblem(f"{what}: TLS failed: {error}")) from error
        except HTTPError as error:
            unsent = isinstance(error, NewConnectionError) or isinstance(
                getattr(error, "reason", None), NewConnectionError
            )
            raise _Failed(
                ApiProblem(f"{what}: no answer: {plain(error)}"), unsent=unsent, lost=True
            ) from error
        except (OSError, ValueError, AttributeError) as error:
            # 36 trips over its own error when TLS fails and there is no body to decode.
            why = error.__context__ if isinstance(error, AttributeError) else error
            raise _Failed(
                ApiProblem(f"{what}: no answer: {plain(why or error)}"), lost=True
            ) from error


class _Failed(Exception):
    """One attempt failed: the error to raise, and whether another attempt makes sense."""

    def __init__(
        self,
        problem: ApiProblem,
        retry_after_s: float | None = None,
        *,
        unsent: bool = False,
        lost: bool = False,
    ) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.retry_after_s = retry_after_s
        self.unsent = unsent
        self.lost = lost

    def pause_s(self, attempt: int, *, repeatable: bool) -> float | None:
        """Return how long to wait before trying again, or None when that makes no sense."""
        backoff_s: float = min(0.05 * 2 ** (attempt - 1), 1.0) * random.uniform(0.8, 1.2)  # noqa: S311
        told_s = backoff_s if self.retry_after_s is None else self.retry_after_s
        if self.problem.status == 429:
            return told_s
        if self.unsent:
            return backoff_s
        if repeatable and (self.lost or self.problem.status in _PASSING):
            return told_s
        return None


def _read(response: Any, ends: float, what: str, deadline_s: float) -> bytes:
    """Read a body to its end, however slowly it drips, but not past ``ends``."""
    from urllib3.exceptions import HTTPError

    parts: list[bytes] = []
    try:
        while True:
            left_s = ends - time.monotonic()
            if left_s <= 0:
                problem = ApiProblem(f"{what}: no complete answer within {deadline_s:g} s")
                raise _Failed(problem)  # noqa: TRY301
            sock = socket_of(response)
            if sock is not None:
                sock.settimeout(left_s)
            part = response.read1(65536)
            if not part:
                break
            parts.append(part)
    except (HTTPError, OSError) as error:
        response.close()
        raise _Failed(ApiProblem(f"{what}: the answer broke off: {plain(error)}"), lost=True) from (
            error
        )
    except _Failed:
        response.close()
        raise
    response.release_conn()
    return b"".join(parts)


def socket_of(response: Any) -> socket.socket | None:
    """Return the socket under an open response, or None once the library has let go of it."""
    sock = getattr(getattr(response, "connection", None), "sock", None)
    return sock if isinstance(sock, socket.socket) else None


def _retry_after(headers: Any) -> float | None:
    if headers is None:
        return None
    value = headers.get("Retry-After") or headers.get("retry-after")
    try:
        return max(float(value), 0.0) if value is not None else None
    except ValueError:
        return None


def keepalive_options() -> list[tuple[int, int, int]]:
    """Notice within about 20 s that the peer's host is gone, also while nothing is sent."""
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    for name, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 20_000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
