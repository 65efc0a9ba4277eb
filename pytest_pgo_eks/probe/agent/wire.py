"""One PostgreSQL session over the version 3 protocol, driven by callbacks.

A request is a run of bytes that ends in a Sync (or a simple Query); its answer is everything up to
ReadyForQuery. The session calls ``finish(session)`` exactly once per request: when it is answered,
or when the connection ends first. Then ``rows``, ``tag``, ``error``, ``notices`` and ``lost``
describe what came.

Ending a session early is :meth:`Session.abort`: the socket is closed and unsent bytes are dropped.
There is no other way to interrupt a statement here, and that is the point: a CancelRequest makes
PostgreSQL report success for a commit that no standby has.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import cast

from .scram import Scram, ScramProblem, md5

_STARTUP_VERSION = 196608  # 3.0
_INT = struct.Struct(">i")
_HEAD = struct.Struct(">ci")
SYNC = b"S\x00\x00\x00\x04"
TERMINATE = b"X\x00\x00\x00\x04"

Fields = dict[str, str]
"""An error's or notice's fields: S severity, V severity not translated, C SQLSTATE, M message."""


class Session(asyncio.Protocol):
    """See the module's docstring. ``on_ready`` is called once, when the log-in is through or has
    failed (then ``error`` or ``lost`` is set); ``on_gone`` when an *idle* session ends."""

    def __init__(
        self,
        *,
        user: str,
        password: str | None,
        database: str,
        options: dict[str, str],
        on_ready: Callable[[Session], None],
        on_gone: Callable[[Session], None] | None = None,
    ) -> None:
        self.user = user
        self.parameters: dict[str, str] = {}
        self.rows: list[bytes] = []
        self.columns: bytes = b""
        self.tag = ""
        self.error: Fields | None = None
        self.notices: list[Fields] = []
        self.lost: str | None = None
        self.status = ""
        self.pid = 0
        self.authenticated = False
        self._password = password
        self._startup = _startup({"user": user, "database": database, **options})
        self._on_ready: Callable[[Session], None] | None = on_ready
        self._on_gone = on_gone
        self._finish: Callable[[Session], None] | None = None
        self._rest = b""
        self._scram: Scram | None = None
        self._transport: asyncio.Transport | None = None

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._startup)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(_reason(exc))

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 5:
            kind, length = _HEAD.unpack_from(data, at)
            stop = at + 1 + length
            if stop > end:
                break
            self._message(kind, data[at + 5 : stop])
            at = stop
        self._rest = data[at:]

    # -- our side

    @property
    def alive(self) -> bool:
        return self.lost is None

    @property
    def encrypted(self) -> bool:
        transport = self._transport
        return transport is not None and transport.get_extra_info("ssl_object") is not None

    @property
    def busy(self) -> bool:
        return self._finish is not None

    def request(self, message: bytes, finish: Callable[[Session], None]) -> None:
        """Send ``message``; ``finish`` is called once, never from within this call."""
        if self._finish is not None or self._on_ready is not None:
            raise RuntimeError("this session has not answered yet")
        if self.lost is not None or self._transport is None:
            raise RuntimeError(f"this session has ended: {self.lost}")
        self.rows, self.columns, self.tag = [], b"", ""
        self.error, self.notices = None, []
        self._finish = finish
        self._transport.write(message)

    def attend(self, on_gone: Callable[[Session], None]) -> None:
        """Let ``on_gone`` hear when the session ends while nothing is asked of it; at once if it has."""
        self._on_gone = on_gone
        if self.lost is not None:
            on_gone(self)

    def abort(self, reason: str) -> None:
        """Close the socket now, dropping unsent bytes; a running request finishes as lost.

        For TLS too: ``Transport.abort`` skips the shutdown handshake, so a black hole cannot hold
        the file descriptor (``close`` would wait 30 s for it).
        """
        if self._transport is not None:
            self._transport.abort()
        self._ended(reason)

    def close(self) -> None:
        """Say goodbye if that cannot be mistaken for anything else, then drop the socket."""
        if self._transport is None or self.lost is not None:
            return
        if self._finish is not None or self._on_ready is not None:
            self.abort("closed while busy")
            return
        self._on_gone = None
        self.lost = "closed by us"
        transport, self._transport = self._transport, None
        transport.write(TERMINATE)
        # A plain socket flushes and closes at once. TLS would wait for the peer's close_notify,
        # which never comes through a black hole: the kernel has our Terminate by then, so drop it.
        if transport.get_extra_info("ssl_object") is None:
            transport.close()
        else:
            transport.abort()

    # -- protocol

    def _ended(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        self._transport = None
        ready, self._on_ready = self._on_ready, None
        finish, self._finish = self._finish, None
        if ready is not None:
            ready(self)
        elif finish is not None:
            finish(self)
        elif self._on_gone is not None:
            self._on_gone(self)

    def _message(self, kind: bytes, body: bytes) -> None:
        if kind == b"D":
            self.rows.append(body)
        elif kind == b"C":
            self.tag = body[:-1].decode("utf-8", "replace")
        elif kind == b"Z":
            self.status = body.decode("ascii", "replace")
            self._answered()
        elif kind == b"E":
            self.error = fields(body)
        elif kind == b"N":
            self.notices.append(fields(body))
        elif kind == b"T":
            self.columns = body
        elif kind == b"S":
            name, _, value = body[:-1].partition(b"\x00")
            self.parameters[name.decode()] = value.decode("utf-8", "replace")
        elif kind == b"K":
            self.pid = _INT.unpack_from(body)[0]
        elif kind == b"R":
            self._authenticate(body)
        # BindComplete, ParseComplete, NoData, EmptyQuery, notifications: nothing to keep.

    def _answered(self) -> None:
        ready, self._on_ready = self._on_ready, None
        if ready is not None:
            ready(self)
            return
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(self)

    def _authenticate(self, body: bytes) -> None:
        (method,) = _INT.unpack_from(body)
        try:
            answer = self._answer(method, body[4:])
        except ScramProblem as problem:
            self.abort(f"authentication: {problem}")
            return
        if answer is not None and self._transport is not None:
            self._transport.write(b"p" + _INT.pack(len(answer) + 4) + answer)

    def _answer(self, method: int, rest: bytes) -> bytes | None:
        if method == 0:
            self.authenticated = True
            return None
        if method == 12:
            if self._scram is not None:
                self._scram.verify(rest)
            return None
        if self._password is None:
            raise ScramProblem("the server wants a password and none is known")
        if method == 3:
            return self._password.encode() + b"\x00"
        if method == 5:
            return md5(self.user, self._password, rest[:4]) + b"\x00"
        if method == 10:
            if b"SCRAM-SHA-256\x00" not in rest:
                raise ScramProblem(f"no mechanism we speak in {rest!r}")
            self._scram = Scram(self._password)
            first = self._scram.first()
            return b"SCRAM-SHA-256\x00" + _INT.pack(len(first)) + first
        if method == 11 and self._scram is not None:
            return self._scram.proof(rest)
        raise ScramProblem(f"the server asked for authentication method {method}")


def _reason(exc: BaseException | None) -> str:
    if exc is None:
        return "the server closed the connection"
    return f"{type(exc).__name__}: {exc}"


def _startup(settings: dict[str, str]) -> bytes:
    body = _INT.pack(_STARTUP_VERSION)
    body += b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in settings.items()) + b"\0"
    return _INT.pack(len(body) + 4) + body


def fields(body: bytes) -> Fields:
    """Split an ErrorResponse or NoticeResponse."""
    parts = body.rstrip(b"\0").split(b"\0")
    return {chr(part[0]): part[1:].decode("utf-8", "replace") for part in parts if part}


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + _INT.pack(len(body) + 4) + body


def query(sql: str) -> bytes:
    """Return a simple Query: text results, several statements allowed."""
    return _framed(b"Q", sql.encode() + b"\0")


def parse(sql: str, name: str = "") -> bytes:
    """Return a Parse for ``sql``; parameter types are written as casts in the text."""
    return _framed(b"P", name.encode() + b"\0" + sql.encode() + b"\0" + b"\0\0")


class Binding:
    """Bind + Execute + Sync for a statement whose parameters are all eight-byte integers.

    Built once: a message is then two joins, which is what makes 4,000 of them a second cheap.
    Results come in binary.
    """

    def __init__(self, name: str, parameters: int) -> None:
        head = b"\0" + name.encode() + b"\0"
        head += struct.pack(">hh", 1, 1) + struct.pack(">h", parameters)
        tail = struct.pack(">hh", 1, 1)
        execute = _framed(b"E", b"\0" + _INT.pack(0))
        length = 4 + len(head) + 12 * parameters + len(tail)
        self._prefix = b"B" + _INT.pack(length) + head
        self._suffix = tail + execute + SYNC
        self._values = struct.Struct(">" + "iq" * parameters)
        self._count = parameters

    def message(self, *values: int) -> bytes:
        if self._count == 2:
            return self._prefix + self._values.pack(8, values[0], 8, values[1]) + self._suffix
        flat = [x for value in values for x in (8, value)]
        return self._prefix + self._values.pack(*flat) + self._suffix


def cells(row: bytes) -> list[bytes | None]:
    """Split a DataRow into its values."""
    (count,) = struct.unpack_from(">h", row)
    at = 2
    out: list[bytes | None] = []
    for _ in range(count):
        (length,) = _INT.unpack_from(row, at)
        at += 4
        if length < 0:
            out.append(None)
        else:
            out.append(row[at : at + length])
            at += length
    return out


def names(columns: bytes) -> list[str]:
    """Return the column names of a RowDescription."""
    if not columns:
        return []
    (count,) = struct.unpack_from(">h", columns)
    at = 2
    out = []
    for _ in range(count):
        end = columns.index(b"\0", at)
        out.append(columns[at:end].decode("utf-8", "replace"))
        at = end + 1 + 18
    return out
