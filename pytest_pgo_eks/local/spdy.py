"""As much of SPDY/3.1 as Kubernetes speaks, serving side, without any I/O.

kubectl sends SPDY frames through a WebSocket, a kube-apiserver to its kubelets through an upgraded
connection; bytes go in with ``receive``, events come out, and ``drain`` returns what is to be sent.
Flow control does not exist for either and not here.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

_WORDS = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
]
_MORE = ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
_CODES = (
    "100 101 201 202 205 206 300 302 303 304 305 306 307 402 405 406 407 408 409 410 411 412 413 "
    "414 415 416 417 502 504 505"
)
_REST = (
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, "
    "Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,"
    "sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
# The preset dictionary of header compression: a constant of the protocol (draft 3.1, 2.6.10.1).
DICTIONARY = b"".join(
    [struct.pack(">I", len(word)) + word.encode() for word in (*_WORDS, *_MORE)]
    + [_CODES.replace(" ", "").encode(), _REST.encode()]
)
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 0x01
# A frame's length has 24 bits; kubectl copies in pieces of 32 KiB.
_PIECE = 64 * 1024
_FRAME_LIMIT = 1 << 22


@dataclass(frozen=True)
class Event:
    """What the client did: opened a stream, sent data, ended its half, or reset the stream."""

    type: Literal["open", "data", "end", "reset"]
    stream: int
    headers: dict[str, str]
    data: bytes = b""


class Connection:
    """One connection. Stream ids are the client's; only the client opens streams."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._pending = bytearray()
        self._out = bytearray()

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the client.

        :raises ValueError: for what is not SPDY/3.
        """
        self._pending += data
        events: list[Event] = []
        while len(self._pending) >= 8:
            length = int.from_bytes(self._pending[5:8], "big")
            if length > _FRAME_LIMIT:
                raise ValueError(f"a SPDY frame of {length} bytes")
            if len(self._pending) < 8 + length:
                break
            head, body = bytes(self._pending[:8]), bytes(self._pending[8 : 8 + length])
            del self._pending[: 8 + length]
            if head[0] & 0x80:
                events += self._control(head, body)
            else:
                events += _data(int.from_bytes(head[:4], "big"), head[4], body)
        return events

    def _control(self, head: bytes, body: bytes) -> list[Event]:
        version, kind = struct.unpack(">HH", head[:4])
        if version & 0x7FFF != 3:
            raise ValueError(f"SPDY version {version & 0x7FFF}")
        flags = head[4]
        if kind == _SYN_STREAM:
            stream = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
            found = [Event("open", stream, self._headers(body[10:]))]
            return found + ([Event("end", stream, {})] if flags & _FIN else [])
        if kind == _RST_STREAM:
            return [Event("reset", int.from_bytes(body[:4], "big") & 0x7FFFFFFF, {})]
        if kind == _PING and body[3] % 2:  # odd ones are the client's, and want to come back
            self._frame(_PING, 0, body)
        return []

    def _headers(self, block: bytes) -> dict[str, str]:
        data = self._inflate.decompress(block)
        (count,) = struct.unpack_from(">I", data)
        at, parts = 4, []
        for _ in range(count * 2):
            (size,) = struct.unpack_from(">I", data, at)
            parts.append(data[at + 4 : at + 4 + size].decode())
            at += 4 + size
        return {name.lower(): value for name, value in zip(parts[::2], parts[1::2], strict=True)}

    def _frame(self, kind: int, flags: int, body: bytes) -> None:
        self._out += struct.pack(">HHB", 0x8003, kind, flags) + len(body).to_bytes(3, "big") + body

    def accept(self, stream: int) -> None:
        """Answer an opened stream."""
        block = self._deflate.compress(struct.pack(">I", 0))
        block += self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._frame(_SYN_REPLY, 0, struct.pack(">I", stream) + block)

    def send(self, stream: int, data: bytes) -> None:
        for at in range(0, len(data), _PIECE):
            self._piece(stream, 0, data[at : at + _PIECE])

    def end(self, stream: int) -> None:
        """End our half of a stream."""
        self._piece(stream, _FIN, b"")

    def reset(self, stream: int) -> None:
        self._frame(_RST_STREAM, 0, struct.pack(">II", stream, 5))

    def _piece(self, stream: int, flags: int, data: bytes) -> None:
        self._out += struct.pack(">IB", stream, flags) + len(data).to_bytes(3, "big") + data

    def drain(self) -> bytes:
        """Return what is to be sent now."""
        found = bytes(self._out)
        self._out.clear()
        return found


def _data(stream: int, flags: int, body: bytes) -> list[Event]:
    found = [Event("data", stream, {}, body)] if body else []
    return found + ([Event("end", stream, {})] if flags & _FIN else [])
