"""A WebSocket client (RFC 6455) with a deadline on everything, for exec and port-forward.

The libraries at hand connect without a timeout, cannot write without blocking, and tell a dropped
connection from a finished one only sometimes. This one never blocks in a write: what cannot be
sent yet waits in a buffer while reading goes on, so a command that fills its output while we fill
its input cannot lock both.
"""

from __future__ import annotations

import base64
import hashlib
import os
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from pytest_pgo_eks.errors import ApiProblem, ExecProblem
from pytest_pgo_eks.kube.problems import problem_of
from pytest_pgo_eks.kube.transport import Endpoint, keepalive_options

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class WebSocket:
    """One open connection. One thread only.

    ``protocol`` is the subprotocol the server chose. After the peer closed, :meth:`receive`
    returns None; ``close_code`` is then the peer's code, or None when the connection just broke.
    """

    def __init__(self, sock: socket.socket, protocol: str, early: bytes) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._selector = selectors.DefaultSelector()
        self._in = bytearray(early)
        self._out = bytearray()
        self._fragments: list[bytes] = []
        self._eof = False
        self.protocol = protocol
        self.close_code: int | None = None
        self.closed = False

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to read."""
        return len(self._out)

    def readable_now(self) -> bool:
        """Say whether data waits in our own buffers, where a selector on the socket is blind."""
        return bool(self._in) or (
            isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0
        )

    def send(self, payload: bytes) -> None:
        """Queue one binary message and send what can be sent without blocking."""
        self._queue(_BINARY, payload)
        self.flush()

    def flush(self) -> None:
        """Send what can be sent without blocking."""
        while self._out and not self._eof:
            try:
                sent = self._sock.send(bytes(self._out[:65536]))
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError:
                self._eof = True
                return
            del self._out[:sent]

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next whole message; None when the peer closed or the connection broke.

        :raises TimeoutError: none came within ``timeout_s``.
        """
        ends = time.monotonic() + timeout_s
        while True:
            message = self._next()
            if message is not None:
                return message
            if self.closed or self._eof:
                self.closed = True
                return None
            self._fill(ends)

    def close(self) -> None:
        """Say goodbye if that needs no waiting, and let go of the socket."""
        if not self._eof and not self.closed:
            self._queue(_CLOSE, struct.pack(">H", 1000))
            self.flush()
        self.closed = True
        self._selector.close()
        self._sock.close()

    # -- frames ---------------------------------------------------------------------------------

    def _queue(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        head = bytearray([0x80 | opcode])
        if size < 126:
            head.append(0x80 | size)
        elif size < 65536:
            head.append(0x80 | 126)
            head += struct.pack(">H", size)
        else:
            head.append(0x80 | 127)
            head += struct.pack(">Q", size)
        mask = os.urandom(4)
        self._out += head + mask + _masked(payload, mask)

    def _next(self) -> bytes | None:
        """Take the next whole data message out of the buffer, answering control frames."""
        while (frame := self._frame()) is not None:
            final, opcode, payload = frame
            if opcode == _PING:
                self._queue(_PONG, payload)
                self.flush()
            elif opcode == _CLOSE:
                self.close_code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else 1005
                self._queue(_CLOSE, payload[:2])
                self.flush()
                self.closed = True
                return None
            elif opcode in (_TEXT, _BINARY, _CONTINUATION):
                self._fragments.append(payload)
                if final:
                    whole = b"".join(self._fragments)
                    self._fragments.clear()
                    return whole
        return None

    def _frame(self) -> tuple[bool, int, bytes] | None:
        data = self._in
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7F, 2
        if size == 126:
            if len(data) < 4:
                return None
            size, at = struct.unpack_from(">H", data, 2)[0], 4
        elif size == 127:
            if len(data) < 10:
                return None
            size, at = struct.unpack_from(">Q", data, 2)[0], 10
        mask = b""
        if data[1] & 0x80:
            if len(data) < at + 4:
                return None
            mask, at = bytes(data[at : at + 4]), at + 4
        if len(data) < at + size:
            return None
        payload = bytes(data[at : at + size])
        final, opcode = bool(data[0] & 0x80), data[0] & 0x0F
        del data[: at + size]
        return final, opcode, _masked(payload, mask) if mask else payload

    def _fill(self, ends: float) -> None:
        """Wait for bytes, sending meanwhile; add them to the buffer."""
        while True:
            self.flush()
            try:
                part = self._sock.recv(262144)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self._wait(ends)
                continue
            except OSError:
                part = b""
            if not part:
                self._eof = True
            self._in += part
            return

    def _wait(self, ends: float) -> None:
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        self._selector.register(self._sock, events)
        try:
            self._selector.select(left_s)
        finally:
            self._selector.unregister(self._sock)


def connect(
    endpoint: Endpoint, path: str, protocols: Sequence[str], *, deadline_s: float, what: str
) -> WebSocket:
    """Open a WebSocket to the API server.

    :raises ApiProblem: the server answered with an HTTP error (its status and words).
    :raises ExecProblem: no answer within ``deadline_s``, or an answer that is no WebSocket.
    """
    ends = time.monotonic() + deadline_s
    sock: socket.socket | None = None
    try:
        sock = _tcp(endpoint, deadline_s)
        if endpoint.tls is not None:
            sock.settimeout(_left(ends))
            sock = endpoint.tls.wrap_socket(sock, server_hostname=endpoint.server_name)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {endpoint.path_prefix}{path} HTTP/1.1",
            f"Host: {endpoint.host}:{endpoint.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            f"Sec-WebSocket-Protocol: {', '.join(protocols)}",
            *(f"{name}: {value}" for name, value in endpoint.headers),
        ]
        sock.settimeout(_left(ends))
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        status, headers, rest = _answer(sock, ends)
        if status != 101:
            raise problem_of(status, _body(sock, headers, rest, ends), what)
        expected = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()  # noqa: S324
        if headers.get("sec-websocket-accept") != expected:
            raise OSError("the server's answer is no WebSocket handshake")  # noqa: TRY301
        return WebSocket(sock, headers.get("sec-websocket-protocol", ""), rest)
    except TimeoutError as error:
        _close(sock)
        raise ExecProblem(f"{what}: no connection within {deadline_s:g} s") from error
    except OSError as error:
        _close(sock)
        raise ExecProblem(f"{what}: no connection: {error}") from error
    except (ApiProblem, ExecProblem):
        _close(sock)
        raise


def _tcp(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    if endpoint.proxy:
        proxy = urlsplit(endpoint.proxy)
        sock = socket.create_connection((proxy.hostname or "", proxy.port or 3128), timeout_s)
        target = f"{endpoint.host}:{endpoint.port}"
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("latin-1"))
        status, _, _ = _answer(sock, time.monotonic() + timeout_s)
        if status != 200:
            raise OSError(f"the proxy {proxy.hostname} answered {status}")
    else:
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout_s)
    for level, option, value in keepalive_options():
        sock.setsockopt(level, option, value)
    return sock


def _answer(sock: socket.socket, ends: float) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        sock.settimeout(_left(ends))
        part = sock.recv(65536)
        if not part or len(data) > 262144:
            raise OSError("the server closed the connection instead of answering")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        status = int(first.split(" ", 2)[1])
    except (IndexError, ValueError) as error:
        raise OSError(f"the server's answer is no HTTP: {first[:80]!r}") from error
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return status, headers, rest


def _body(sock: socket.socket, headers: dict[str, str], rest: bytes, ends: float) -> bytes:
    """Read the body of an error answer as far as it comes; its words are a courtesy."""
    try:
        size = int(headers.get("content-length", "65536"))
    except ValueError:
        size = 65536
    try:
        while len(rest) < min(size, 65536):
            sock.settimeout(min(_left(ends), 2.0))
            part = sock.recv(65536)
            if not part:
                break
            rest += part
    except OSError:
        return rest
    if headers.get("transfer-encoding") == "chunked":
        start, end = rest.find(b"{"), rest.rfind(b"}")
        return rest[start : end + 1] if start >= 0 else b""
    return rest


def _left(ends: float) -> float:
    left_s = ends - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()


def _masked(payload: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one big integer: 200 times as quick as a byte loop."""
    size = len(payload)
    if not size:
        return b""
    repeated = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return mixed.to_bytes(size, "big")
