"""The part of Docker's API that starting one container takes; everything else is refused and noted.

Behind the container the stand-in cluster comes up, and its kubeconfig is what a command reads in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import socketserver
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LOCAL = (sys.executable, "-m", "pytest_pgo_eks.local")
ID = "c0ffee" * 10 + "c0de"
_VERSION = {"ApiVersion": "1.48", "MinAPIVersion": "1.24", "Version": "29.0.1"}


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens on a socket in ``home``; ``created`` is what the container was asked to be."""

    daemon_threads = True

    def __init__(self, home: Path) -> None:
        super().__init__(str(home / "docker.sock"), Api)
        self.home = home
        self.created: dict[str, Any] = {}
        self.name = ""
        self.port = 0
        self.kubeconfig = ""
        self.refused: list[str] = []
        self.pull_error = ""

    def start(self) -> None:
        """Bring up what is in the container."""
        place = self.home / "containers" / self.name
        place.mkdir(parents=True)
        up = [*LOCAL, "up", "--name", self.name, "--state-dir", str(place / "state")]
        subprocess.run(up, check=True, capture_output=True)
        text = (place / "state" / "kubeconfig").read_text("utf-8")
        found = re.search(r"https://127\.0\.0\.1:(\d+)", text)
        assert found, text
        self.port = int(found[1])
        self.kubeconfig = text.replace(found[0], "https://127.0.0.1:6443")


class Api(BaseHTTPRequestHandler):
    """One request to the engine."""

    protocol_version = "HTTP/1.1"
    server: Engine

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "the socket"

    def do_GET(self) -> None:
        path = self._path()
        state = {"Status": "running", "Running": True, "ExitCode": 0}
        ports = {"6443/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(self.server.port)}]}
        if path == "/version":
            self._say(200, _VERSION)
        elif path.startswith("/images/") and path.endswith("/json"):
            status = 404 if self.server.pull_error else 200
            self._say(status, {"Id": "sha256:1", "message": "No such image"})
        elif path == "/info":
            self._say(200, {"ServerVersion": "29.0.1", "OperatingSystem": "test"})
        elif path == f"/containers/{ID}/json":
            told = {
                "Id": ID,
                "Name": self.server.name,
                "State": state,
                "Image": "x",
                "Config": {"Tty": False},
            }
            self._say(200, {**told, "NetworkSettings": {"Ports": ports, "Networks": {}}})
        elif path == f"/containers/{ID}/logs":
            self._raw(_frame(b"Node controller sync successful\n"))
        elif path == "/exec/e1/json":
            self._say(200, {"ExitCode": 0, "Running": False})
        else:
            self._refuse()

    def do_POST(self) -> None:
        path = self._path()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/containers/create":
            if self.server.pull_error:
                self._say(404, {"message": "No such image"})
                return
            self.server.name = parse_qs(urlsplit(self.path).query)["name"][0]
            self.server.created = json.loads(body)
            self._say(201, {"Id": ID, "Warnings": []})
        elif path == "/images/create" and self.server.pull_error:
            self._say(500, {"message": self.server.pull_error})
        elif path == f"/containers/{ID}/start":
            self.server.start()
            self._say(204, None)
        elif path == f"/containers/{ID}/exec":
            assert json.loads(body)["Cmd"] == ["cat", "/etc/rancher/k3s/k3s.yaml"]
            self._say(201, {"Id": "e1"})
        elif path == "/exec/e1/start":
            self._raw(_frame(self.server.kubeconfig.encode()))
        else:
            self._refuse()

    def _path(self) -> str:
        return re.sub(r"^/v[\d.]+", "", urlsplit(self.path).path)

    def _say(self, status: int, body: Any) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _raw(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.raw-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self._wait_until_read()
        self.wfile.write(data)
        self.close_connection = True

    def _wait_until_read(self) -> None:
        """What comes with the head would be read by the client's HTTP library, and lost to the stream."""
        for _ in range(2000):
            unread = fcntl.ioctl(self.connection, termios.TIOCOUTQ, b"\0" * 4)
            if not int.from_bytes(unread, sys.byteorder):
                return
            time.sleep(0.005)

    def _refuse(self) -> None:
        self.server.refused.append(f"{self.command} {self.path}")
        self._say(501, {"message": "the engine of this test does not know that"})


def _frame(data: bytes) -> bytes:
    return struct.pack(">BxxxL", 1, len(data)) + data


@contextlib.contextmanager
def engine(home: Path) -> Iterator[Engine]:
    """Serve until the block ends."""
    with Engine(home) as serving:
        thread = threading.Thread(target=serving.serve_forever, name="engine")
        thread.start()
        try:
            yield serving
        finally:
            serving.shutdown()
            thread.join()
