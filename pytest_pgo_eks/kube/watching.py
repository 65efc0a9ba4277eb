"""List, then watch, for as long as asked: over disconnects, silence, 410 and expired tokens.

The official ``Watch`` ends in silence when the server closes the stream under a DynamicClient, and
has no read timeout, so a half-open socket holds it for ever. This loop owns both: every read has a
timeout, an idle stream is opened again from where it stood (one cheap request), and after a gap the
new list is compared with what was known, so that no change is lost: at worst several changes
of one object arrive as one, and an object made and deleted within the gap is never seen.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.kube.transport import Query, Transport, _Failed, socket_of

# Real API servers send bookmarks about once a minute; a watch that is silent for this long is
# opened again, so a half-open stream is found this soon at the latest.
IDLE_S = 15.0
_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
# Refusals that no waiting cures. Everything else is tried again until the deadline.
_HOPELESS = frozenset({400, 403, 404, 405, 406, 415, 422})

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
Listing = Callable[[float], tuple[list[dict[str, Any]], str]]


@dataclass(frozen=True)
class WatchEvent:
    """One change. ``object`` is the whole object as the API gave it; do not change it."""

    type: EventType
    object: dict[str, Any]


class WatchLoop:
    """One list-then-watch. Iterate :meth:`events` in one thread; :meth:`stop` from any.

    ``problem`` is why the loop sees nothing at the moment, None while it does; ``since`` is the
    monotonic time since when that is so. ``synced`` is set once the first list is in.
    """

    def __init__(
        self,
        transport: Transport,
        path: str,
        listing: Listing,
        *,
        selectors: Query,
        what: str,
        idle_s: float = IDLE_S,
    ) -> None:
        self._transport = transport
        self._path = path
        self._listing = listing
        self._selectors = tuple(selectors)
        self._what = what
        self._idle_s = idle_s
        self._known: dict[str, dict[str, Any]] = {}
        self._version = ""
        self._response: Any = None
        self._stopped = threading.Event()
        self.synced = threading.Event()
        self.problem: ApiProblem | None = None
        self.since = time.monotonic()

    def stop(self) -> None:
        """End :meth:`events` now, also while it is blocked in a read."""
        self._stopped.set()
        sock = socket_of(self._response) if self._response is not None else None
        if sock is not None:
            # The plain socket's shutdown: SSLSocket's own would take the TLS object from under
            # the thread that is reading from it.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def events(self, deadline_s: float | None) -> Generator[WatchEvent, None, None]:
        """Yield every change until the deadline, what exists already as ``ADDED`` first.

        :raises ApiProblem: the server refuses for good, or cannot be reached at the deadline: then
            silence would not mean that nothing happened.
        """
        ends = time.monotonic() + deadline_s if deadline_s is not None else float("inf")
        failures = 0
        while not self._over(ends):
            try:
                if not self._version:
                    yield from self._relist(ends)
                    self.synced.set()
                for event in self._stream(ends):
                    failures = 0
                    yield event
                failures = 0
            except _Expired:
                self._version = ""
            except ApiProblem as problem:
                if self._stopped.is_set():
                    return
                self._trouble(problem)
                if problem.status in _HOPELESS:
                    raise
                pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                failures += 1
                self._stopped.wait(min(pause_s, max(ends - time.monotonic(), 0)))
        if self.problem is not None and not self._stopped.is_set():
            raise ApiProblem(
                f"{self._what}: nothing could be seen for the last "
                f"{time.monotonic() - self.since:.1f} s: {self.problem}",
                status=self.problem.status,
                reason=self.problem.reason,
            )

    def _over(self, ends: float) -> bool:
        return self._stopped.is_set() or self._transport.closed.is_set() or time.monotonic() >= ends

    def _trouble(self, problem: ApiProblem) -> None:
        if self.problem is None:
            self.since = time.monotonic()
        self.problem = problem

    def _relist(self, ends: float) -> Iterator[WatchEvent]:
        objects, version = self._listing(min(max(ends - time.monotonic(), 0.001), self._idle_s))
        self.problem = None
        before, self._known = self._known, {_key(one): one for one in objects}
        self._version = version
        for key, old in before.items():
            if key not in self._known:
                yield WatchEvent("DELETED", old)
        for key, one in self._known.items():
            old_one = before.get(key)
            if old_one is None:
                yield WatchEvent("ADDED", one)
            elif _version(old_one) != _version(one):
                yield WatchEvent("MODIFIED", one)

    def _stream(self, ends: float) -> Iterator[WatchEvent]:
        left_s = ends - time.monotonic()
        if left_s <= 0:
            return
        quiet_s = min(self._idle_s, left_s)
        query = [
            *self._selectors,
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(max(int(min(left_s, 300.0)) + 1, 1))),
        ]
        generation = self._transport.generation
        try:
            response = self._transport.open("GET", self._path, query=query, timeout_s=quiet_s)
        except _Failed as failed:
            if failed.problem.status == 410:
                raise _Expired from None
            if failed.problem.status == 401:
                self._transport.reload(generation)
            if failed.problem.status == 429 and failed.retry_after_s:
                self._stopped.wait(min(failed.retry_after_s, max(ends - time.monotonic(), 0)))
            raise failed.problem from failed.__cause__
        self.problem = None
        self._response = response
        if self._stopped.is_set():
            self.stop()
        try:
            for line in self._lines(response, ends):
                event = self._event(line)
                if event is not None:
                    yield event
        finally:
            self._response = None
            # Never back into the pool: the stream is in the middle of an answer.
            response.close()

    def _lines(self, response: Any, ends: float) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        rest = b""
        while not self._over(ends):
            sock = socket_of(response)
            if sock is not None:
                sock.settimeout(max(min(self._idle_s, ends - time.monotonic()), 0.001))
            try:
                part = response.read1(1 << 20)
            except (HTTPError, OSError, ValueError, AttributeError):
                # Broken off or silent too long (AttributeError: closed by stop() under the
                # read). Both mean: open again from the last version; if the server is
                # gone, opening says so.
                return
            if not part:
                return
            rest += part
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if line.strip():
                    yield line

    def _event(self, line: bytes) -> WatchEvent | None:
        try:
            said = json.loads(line)
            kind, one = said["type"], said["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise ApiProblem(f"{self._what}: not an event: {line[:200]!r}") from error
        if kind == "ERROR":
            if one.get("code") == 410:
                raise _Expired
            raise ApiProblem(
                f"{self._what}: {one.get('message', 'error without a message')}",
                status=int(one.get("code") or 0) if one.get("code") not in _HOPELESS else 0,
                reason=str(one.get("reason", "")),
            )
        self._version = _version(one) or self._version
        if kind == "BOOKMARK":
            return None
        key = _key(one)
        if kind == "DELETED":
            self._known.pop(key, None)
            return WatchEvent("DELETED", one)
        is_new = key not in self._known
        self._known[key] = one
        return WatchEvent("ADDED" if is_new else "MODIFIED", one)


class _Expired(Exception):
    """The version we stood at is gone (410): list again."""


def _key(one: dict[str, Any]) -> str:
    meta = one.get("metadata") or {}
    return str(meta.get("uid") or f"{meta.get('namespace', '')}/{meta.get('name', '')}")


def _version(one: dict[str, Any]) -> str:
    return str((one.get("metadata") or {}).get("resourceVersion") or "")
