"""A container's log as it is written, until the container ends or nobody wants it any more."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.kube.client import Kube
from pytest_pgo_eks.kube.transport import _Failed, socket_of

# A container may be silent for as long as it likes; a connection that died without a word is found
# by this.
_SILENT_S = 300.0


class LogFollower:
    """Follows one container of one pod. ``lines`` in one thread, ``stop`` from any."""

    def __init__(self, kube: Kube, namespace: str, pod: str, container: str) -> None:
        self._transport = kube._transport  # noqa: SLF001 - one package, one connection handling
        self._path = kube.resolve("Pod").path(namespace, pod, "log")
        self._container = container
        self._response: Any = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End :meth:`lines` now, also while it is blocked in a read."""
        self._stopped.set()
        sock = socket_of(self._response) if self._response is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def lines(self, since: str | None = None) -> Iterator[str]:
        """Yield every line with its time before it (RFC 3339), from the first or from ``since``.

        Ends with the container, with the connection, or when it is stopped.

        :raises ApiProblem: there is no such log (yet), or it may not be read.
        """
        from urllib3.exceptions import HTTPError

        query = [("container", self._container), ("follow", "true"), ("timestamps", "true")]
        query += [("sinceTime", since)] if since else []
        try:
            response = self._transport.open("GET", self._path, query=query, timeout_s=_SILENT_S)
        except _Failed as failed:
            raise failed.problem from failed.__cause__
        self._response = response
        if self._stopped.is_set():
            self.stop()
        rest = b""
        try:
            while not self._stopped.is_set() and not self._transport.closed.is_set():
                try:
                    part = response.read1(1 << 16)
                except (HTTPError, OSError, ValueError, AttributeError):
                    break
                if not part:
                    break
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    yield line.decode("utf-8", "replace")
            if rest:
                yield rest.decode("utf-8", "replace")
        finally:
            self._response = None
            response.close()


def follow(kube: Kube, namespace: str, pod: str, container: str) -> LogFollower:
    """Return a follower of a container's log.

    :raises ApiProblem: the server cannot be asked.
    """
    if not pod or not container:
        raise ApiProblem("a pod and a container are needed to follow a log")
    return LogFollower(kube, namespace, pod, container)
