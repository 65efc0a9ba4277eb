"""An API server of the stand-in inside the test's own event loop, on a port of its own."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.local import pki
from pytest_pgo_eks.local.apiclient import ApiClient
from pytest_pgo_eks.local.apiserver import ApiServer

ADMIN_TOKEN = "admin-of-the-test"


@contextlib.asynccontextmanager
async def running_api_server(**options: Any) -> AsyncIterator[tuple[ApiServer, ApiClient]]:
    """Serve until the block ends; yield the server and an administrator's client.

    ``options`` go to ``ApiServer``. ``client.url`` and ``ca_file(server)`` are for other clients;
    ``kubeconfig(server, client)`` writes a file for kubectl.
    """
    with tempfile.TemporaryDirectory(prefix="standin-api-") as directory:
        state = Path(directory)
        names = ["127.0.0.1", "localhost"]
        made = pki.issue(state / "pki", api_names=names, kubelet_names=names)
        options.setdefault("kubelet_ca", made.ca_file)
        options.setdefault("admin_token", ADMIN_TOKEN)
        server = ApiServer(state=state, **options)
        door = socket.create_server(("127.0.0.1", 0))
        door.setblocking(False)
        url = f"https://127.0.0.1:{door.getsockname()[1]}"
        await server.start([door], made.api_server.server_context())
        client = ApiClient(url, ca_file=made.ca_file, token=options["admin_token"])
        try:
            yield server, client
        finally:
            await client.close()
            await server.stop()
            door.close()


def ca_file(server: ApiServer) -> Path:
    """Return the file with the CA that the server's certificate is from."""
    return server.state / "pki" / "ca.crt"


def kubelet_pair(server: ApiServer) -> pki.Pair:
    """Return a kubelet's certificate for 127.0.0.1, from the CA that the server trusts."""
    directory = server.state / "pki"
    return pki.Pair(directory / "kubelet.crt", directory / "kubelet.key")


def client_of(server: ApiServer, admin: ApiClient, token: str | None) -> ApiClient:
    """Return a client under another identity; close it."""
    return ApiClient(admin.url, ca_file=ca_file(server), token=token)


def kubeconfig(server: ApiServer, admin: ApiClient, token: str = ADMIN_TOKEN) -> Path:
    """Write a kubeconfig into the server's directory and return it."""
    found = server.state / "kubeconfig"
    cluster = {"server": admin.url, "certificate-authority": str(ca_file(server))}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stand-in", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "admin"}}],
        "current-context": "stand-in",
    }
    found.write_text(yaml.safe_dump(config))
    return found
