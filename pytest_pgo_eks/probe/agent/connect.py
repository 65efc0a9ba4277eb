"""Opening a session: names, hosts in order, TLS, log-in, and the attributes a DSN may ask for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from . import resolve, wire
from .wire import Session

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
ATTRIBUTES = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
TLS_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True)
class Target:
    """Where and as whom to connect, as libpq understands it.

    ``hosts`` are tried in the order given, every address of each; ``attributes`` is libpq's
    ``target_session_attrs``. ``host_s`` limits one address's attempt, as ``connect_timeout`` does
    (but without its floor of 2 s); None leaves only the caller's deadline.
    """

    hosts: tuple[tuple[str, int], ...]
    user: str
    database: str
    password: str | None = field(default=None, repr=False)
    tls: str = "require"
    ca: str | None = None
    """A file with CA certificates in PEM."""
    attributes: str = "any"
    host_s: float | None = None
    options: tuple[tuple[str, str], ...] = ()
    """Run-time parameters of the startup packet, such as ``synchronous_commit``."""


class ConnectFailed(Exception):
    """No session. ``code`` is a SQLSTATE or a word of ours; ``fields`` what the server said."""

    def __init__(self, code: str, message: str, fields: wire.Fields | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.fields = fields or {}


@functools.lru_cache(maxsize=32)
def _context(tls: str, ca: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = tls == "verify-full"
    if tls.startswith("verify"):
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=ca)
    else:
        context.verify_mode = ssl.CERT_NONE
    return context


async def open_session(
    target: Target,
    on_gone: Callable[[Session], None] | None = None,
    notice: Callable[[wire.Fields], None] | None = None,
) -> Session:
    """Return a session that has logged in and has the wanted attributes.

    Cancelling (a deadline) closes the socket of whatever attempt is under way. ``notice`` gets
    what the server said during a log-in that failed or succeeded. ``on_gone`` hears of the end of
    the session that is returned, never of one that was given up: whoever opens it knows.

    :raises ConnectFailed: every host refused; the last refusal is told.
    """
    failure = ConnectFailed("08001", "no host was given")
    wanted = target.attributes
    passes = ("standby", "any") if wanted == "prefer-standby" else (wanted,)
    for attributes in passes:
        for host, port in target.hosts:
            try:
                addresses = await resolve.addresses(host)
            except OSError as error:
                failure = ConnectFailed("name", f"{host}: {error}")
                continue
            for address in addresses:
                try:
                    async with asyncio.timeout(target.host_s):
                        session = await _one(target, host, address, port)
                except ConnectFailed as error:
                    failure = error
                    continue
                except TimeoutError:
                    failure = ConnectFailed("timeout", f"{host}: no answer in {target.host_s} s")
                    continue
                if notice is not None:
                    for said in session.notices:
                        notice(said)
                if await _suits(session, attributes):
                    if on_gone is not None:
                        session.attend(on_gone)
                    return session
                session.close()
                failure = ConnectFailed("attributes", f"{host}: the session is not {attributes}")
    raise failure


async def _one(
    target: Target,
    host: str,
    address: str,
    port: int,
) -> Session:
    """Connect to one address; on any way out but success the socket is closed at once."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    ready: asyncio.Future[None] = loop.create_future()

    def on_ready(_session: Session) -> None:
        if not ready.done():
            ready.set_result(None)

    session = Session(
        user=target.user,
        password=target.password,
        database=target.database,
        options=dict(target.options),
        on_ready=on_ready,
    )
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, (address, port))
        if await _tls_agreed(loop, sock, target.tls):
            await loop.create_connection(
                lambda: session,
                sock=sock,
                ssl=_context(target.tls, target.ca),
                server_hostname=host,
            )
        else:
            await loop.create_connection(lambda: session, sock=sock)
        await ready
    except ssl.SSLCertVerificationError as error:
        _drop(session, sock)
        raise ConnectFailed("certificate", f"{host}: {error.verify_message}") from error
    except (OSError, ssl.SSLError) as error:
        _drop(session, sock)
        raise ConnectFailed(_word(error), f"{host}: {error}") from error
    except BaseException:
        _drop(session, sock)
        raise
    if session.error is not None:
        said = session.error
        session.abort("log-in refused")
        raise ConnectFailed(said.get("C", "?????"), f"{host}: {said.get('M')}", said)
    if session.lost is not None:
        raise ConnectFailed("lost", f"{host}: {session.lost}")
    return session


def _drop(session: Session, sock: socket.socket) -> None:
    session.abort("given up while connecting")
    # A transport that asyncio is still building owns the descriptor; shutting the socket down is
    # safe either way, closing it twice would not be (the number may be somebody else's by then).
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        sock.close()


async def _tls_agreed(loop: asyncio.AbstractEventLoop, sock: socket.socket, tls: str) -> bool:
    if tls == "disable":
        return False
    await loop.sock_sendall(sock, _SSL_REQUEST)
    answer = await loop.sock_recv(sock, 1)
    if answer == b"S":
        return True
    if answer == b"N" and tls == "prefer":
        return False
    if answer == b"N":
        raise ConnectFailed("no-tls", "the server does not speak TLS")
    if not answer:
        raise ConnectFailed("lost", "closed before TLS was agreed on")
    raise ConnectFailed("protocol", f"unexpected answer to the TLS request: {answer!r}")


def _word(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "unreachable"


async def _suits(session: Session, attributes: str) -> bool:
    if attributes == "any":
        return True
    standby = session.parameters.get("in_hot_standby")
    read_only = session.parameters.get("default_transaction_read_only", "off")
    if standby is None:  # before PostgreSQL 14, and poolers that do not pass it on
        rows = await ask(session, "SELECT pg_is_in_recovery()")
        standby = "on" if rows and rows[0][0] == "t" else "off"
    if attributes == "primary":
        return standby == "off"
    if attributes == "standby":
        return standby == "on"
    writable = standby == "off" and read_only == "off"
    return writable if attributes == "read-write" else not writable


async def ask(session: Session, sql: str) -> list[list[str | None]]:
    """Run ``sql`` as a simple query and return its rows as text.

    Cancelling aborts the session.

    :raises ConnectFailed: the server refused (``code`` is the SQLSTATE) or the session ended.
    """
    await run(session, wire.query(sql))
    if session.error is not None:
        said = session.error
        raise ConnectFailed(said.get("C", "?????"), said.get("M", ""), said)
    if session.lost is not None:
        raise ConnectFailed("lost", session.lost)
    return [
        [None if cell is None else cell.decode("utf-8", "replace") for cell in wire.cells(row)]
        for row in session.rows
    ]


async def run(session: Session, message: bytes) -> None:
    """Send ``message`` and wait for its answer; whatever interrupts the wait aborts the session.

    :raises ConnectFailed: the session had ended before.
    """
    if session.lost is not None:
        raise ConnectFailed("lost", session.lost)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def finish(_session: Session) -> None:
        if not done.done():
            done.set_result(None)

    session.request(message, finish)
    try:
        await done
    except BaseException:
        session.abort("given up while waiting for an answer")
        raise
