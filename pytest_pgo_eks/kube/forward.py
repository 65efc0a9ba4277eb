"""A TCP port on this machine that leads to a pod's port: one WebSocket for each connection.

For looking at a cluster, never for timing: DESIGN decision 5 measures inside the cluster only.
Channel 0 carries data, 1 an error text; the first message on each is the port number.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

from pytest_pgo_eks.errors import PgoEksError
from pytest_pgo_eks.kube.transport import Transport
from pytest_pgo_eks.kube.websocket import WebSocket, connect

_PROTOCOL = "v4.channel.k8s.io"
# A client that closed its sending side may still read an answer, or may be gone: they look the
# same. After this long without data from the pod it is taken as gone; until then the server in the
# pod keeps a session for it.
_LINGER_S = 0.5
_HIGH_WATER = 1 << 20


class Forward:
    """Listens on ``host``:``port`` while the context is open.

    ``errors`` are the reasons of connections that could not be made or broke, oldest first.
    """

    host = "127.0.0.1"

    def __init__(self, transport: Transport, path: str, port: int, what: str) -> None:
        self._transport = transport
        self._path = path
        self._port = port
        self._what = what
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._wake_read, self._wake_write = socket.socketpair()
        self._listener = socket.create_server((self.host, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._start(self._accept, "accept")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        # Closing the write end makes the read end readable in every thread at once.
        self._wake_write.close()
        for thread in list(self._threads):
            thread.join(timeout=5)
        self._listener.close()
        self._wake_read.close()

    def _start(self, target: object, name: str, *args: object) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(
            target=target,  # type: ignore[arg-type]
            args=args,
            name=f"forward {self._what} {name}",
            daemon=True,
        )
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._stop.is_set():
                selector.select()
                if self._stop.is_set():
                    return
                try:
                    client, address = self._listener.accept()
                except OSError:
                    # Gone again before we came to it.
                    continue
                self._start(self._serve, f"from port {address[1]}", client)

    def _serve(self, client: socket.socket) -> None:
        remote: WebSocket | None = None
        try:
            self._transport.requests += 1
            remote = connect(
                self._transport.endpoint(),
                f"{self._path}?ports={self._port}",
                (_PROTOCOL,),
                deadline_s=10,
                what=self._what,
            )
            error = self._pump(client, remote)
            if error:
                self.errors.append(error)
                _reset(client)
        except (PgoEksError, OSError) as error_:
            self.errors.append(str(error_))
            _reset(client)
        finally:
            client.close()
            if remote is not None:
                remote.close()

    def _pump(self, client: socket.socket, remote: WebSocket) -> str | None:
        """Carry bytes both ways until one side ends; return the pod side's error, if any."""
        client.setblocking(False)
        to_client = bytearray()
        begun = {0: False, 1: False}
        sending = True
        quiet_since = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            selector.register(client, selectors.EVENT_READ)
            selector.register(remote, selectors.EVENT_READ)
            while not self._stop.is_set():
                client_events = (
                    selectors.EVENT_READ if sending and remote.unsent < _HIGH_WATER else 0
                ) | (selectors.EVENT_WRITE if to_client else 0)
                _interest(selector, client, client_events)
                reading = len(to_client) < _HIGH_WATER
                _interest(
                    selector,
                    remote,
                    (selectors.EVENT_READ if reading else 0)
                    | (selectors.EVENT_WRITE if remote.unsent else 0),
                )
                pending = reading and remote.readable_now()
                selector.select(0 if pending else 0.1 if not sending else None)
                while reading and len(to_client) < _HIGH_WATER:
                    try:
                        message = remote.receive(0)
                    except TimeoutError:
                        break
                    if message is None:
                        _drain(client, to_client)
                        return None
                    quiet_since = time.monotonic()
                    if message and (error := _take(message, begun, to_client)) is not None:
                        _drain(client, to_client)
                        return error
                remote.flush()
                if not _write(client, to_client):
                    return None
                if sending and remote.unsent < _HIGH_WATER:
                    data = _read(client)
                    if data:
                        remote.send(b"\0" + data)
                    elif data == b"":
                        sending = False
                if not sending and time.monotonic() - quiet_since > _LINGER_S:
                    return None
        return None


def _take(message: bytes, begun: dict[int, bool], to_client: bytearray) -> str | None:
    """Sort one message; return the text of an error message."""
    channel, data = message[0], message[1:]
    if channel in begun and not begun[channel]:
        begun[channel] = True
        if len(data) == struct.calcsize("<H"):
            return None
    if channel == 0:
        to_client += data
    elif channel == 1 and data:
        return data.decode("utf-8", "replace")
    return None


def _interest(
    selector: selectors.BaseSelector, item: socket.socket | WebSocket, events: int
) -> None:
    """Register, change or drop ``item``: selectors know no empty interest."""
    try:
        known = selector.get_key(item)
    except KeyError:
        if events:
            selector.register(item, events)
        return
    if not events:
        selector.unregister(item)
    elif known.events != events:
        selector.modify(item, events)


def _read(client: socket.socket) -> bytes | None:
    """Return bytes, ``b""`` at the end, or None when nothing waits."""
    try:
        return client.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(client: socket.socket, data: bytearray) -> bool:
    """Write what the client takes now; return False when it is gone."""
    while data:
        try:
            sent = client.send(bytes(data[:65536]))
        except BlockingIOError:
            return True
        except OSError:
            return False
        del data[:sent]
    return True


def _drain(client: socket.socket, data: bytearray) -> None:
    client.settimeout(5)
    with contextlib.suppress(OSError):
        client.sendall(bytes(data))


def _reset(client: socket.socket) -> None:
    """Make the close a reset: the client must not take an error for an orderly end."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
