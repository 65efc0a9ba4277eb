"""The misbehaving API server as a process, over plain HTTP and over TLS."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pytest_pgo_eks.kube import Kube

NAMESPACE = "ns"


@dataclass
class Server:
    """The other process, and the levers to make it misbehave."""

    url: str
    pem: Path | None
    pid: int = 0

    def control(self, what: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/_chaos/{what}", data=json.dumps(body).encode(), method="POST"
        )
        tls = ssl.create_default_context(cafile=str(self.pem)) if self.pem else None
        with urllib.request.urlopen(request, timeout=10, context=tls) as answer:
            return json.load(answer)

    def rule(self, do: str, **more: Any) -> None:
        self.control("rule", {"do": do, **more})

    def seen(self, part: str = "") -> list[str]:
        return [line for line in self.control("seen") if part in line]

    def kubeconfig(self, path: Path, token: str = "valid-token") -> Path:
        cluster: dict[str, Any] = {"server": self.url}
        if self.pem:
            cluster["certificate-authority"] = str(self.pem)
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": {"token": token}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                }
            )
        )
        return path

    @contextlib.contextmanager
    def frozen(self, seconds: float) -> Iterator[None]:
        """Stop the process, sockets open and all, and let it go on after ``seconds``."""
        os.kill(self.pid, signal.SIGSTOP)
        timer = threading.Timer(seconds, os.kill, (self.pid, signal.SIGCONT))
        timer.start()
        try:
            yield
        finally:
            timer.join()


def _certificate(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chaos")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=24))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def _serve(pem: Path | None) -> Iterator[Server]:
    program = [sys.executable, str(Path(__file__).with_name("chaos_server.py"))]
    with subprocess.Popen(
        [*program, *([str(pem)] if pem else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        yield Server(f"http{'s' if pem else ''}://127.0.0.1:{port}", pem, process.pid)
        process.kill()


@pytest.fixture(scope="session")
def _plain() -> Iterator[Server]:
    yield from _serve(None)


@pytest.fixture(scope="session")
def _tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _serve(_certificate(tmp_path_factory.mktemp("tls") / "server.pem"))


@pytest.fixture
def server(_plain: Server) -> Server:
    _plain.control("reset")
    return _plain


@pytest.fixture
def tls_server(_tls: Server) -> Server:
    _tls.control("reset")
    return _tls


@pytest.fixture
def kube(server: Server, tmp_path: Path) -> Iterator[Kube]:
    with Kube(server.kubeconfig(tmp_path / "kubeconfig"), request_s=5.0) as client:
        yield client


@pytest.fixture
def tls_kube(tls_server: Server, tmp_path: Path) -> Iterator[Kube]:
    with Kube(tls_server.kubeconfig(tmp_path / "kubeconfig"), request_s=5.0) as client:
        yield client


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {},
    }
