"""An EKS endpoint: it lets in whoever brings a token of EKS, and asks the cluster behind it.

Bytes are passed on as they come, so that exec, watches and port-forwards work through it; only the
head of a request is read. One request per connection, because the next one brings a token of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from eks.authenticator import Refused, verify

_HEAD = 1 << 16
_START_S = 30.0
Let = Callable[[str], None]


class Endpoint:
    """Serves on a loopback port of its own. ``authority`` is the CA as DescribeCluster gives it."""

    def __init__(self, behind: Path, place: Path, *, cluster: str, secret: str) -> None:
        settings = yaml.safe_load(behind.read_text("utf-8"))
        cluster_entry, user = settings["clusters"][0]["cluster"], settings["users"][0]["user"]
        server = urlsplit(cluster_entry["server"])
        self._host, self._port = server.hostname or "", server.port or 443
        self._token = user["token"]
        self._up = ssl.create_default_context(
            cadata=base64.b64decode(cluster_entry["certificate-authority-data"]).decode()
        )
        self._cluster, self._secret = cluster, secret
        self._down, self.authority = _certificate(place)
        self.url = ""
        #: What was let in, and why somebody was not.
        self.let_in = 0
        self.refused: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eks endpoint", daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(_START_S)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._down, limit=_HEAD)
        )
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            try:
                new = self._admitted(head)
            except Refused as refused:
                self.refused.append(str(refused))
                body = b'{"kind":"Status","status":"Failure","reason":"Unauthorized","code":401}'
                writer.write(
                    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n"
                    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                await writer.drain()
            else:
                self.let_in += 1
                await self._pass_on(new, reader, writer)
        writer.close()

    def _admitted(self, head: str) -> bytes:
        """Return the head of the request as the cluster behind gets it."""
        lines, token, upgrade = [], None, False
        for line in head.rstrip("\r\n").split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower() == "authorization":
                token = value.strip().removeprefix("Bearer ")
            elif name.lower() == "upgrade":
                upgrade = True
                lines.append(line)
            elif name.lower() not in {"connection", "host"}:
                lines.append(line)
        if token is None:
            raise Refused("no token")
        now = dt.datetime.now(dt.UTC)
        verify(token, cluster=self._cluster, secret=self._secret, now=now)
        connection = "Upgrade" if upgrade else "close"
        lines += [
            f"Host: {self._host}:{self._port}",
            f"Authorization: Bearer {self._token}",
            f"Connection: {connection}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def _pass_on(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port, ssl=self._up)
        up_writer.write(head)
        there = asyncio.ensure_future(_pipe(reader, up_writer))
        try:
            await _pipe(up_reader, writer)
        finally:
            there.cancel()
            up_writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_HEAD):
            writer.write(data)
            await writer.drain()


def _certificate(place: Path) -> tuple[ssl.SSLContext, str]:
    """Return a server context for 127.0.0.1, and its certificate in base64."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "eks")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = place / "endpoint.pem"
    path.touch(0o600)
    path.write_bytes(pem + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, base64.b64encode(pem).decode()
