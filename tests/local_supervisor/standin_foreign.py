"""An API server and controllers outside any namespace, for clusters that attach to them.

``python standin_foreign.py DIRECTORY`` writes ``kubeconfig`` there, prints its URL, and serves until
its standard input ends.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from pytest_pgo_eks.local import assembly, pki
from pytest_pgo_eks.local.apiclient import ApiClient
from pytest_pgo_eks.local.apiserver import ApiServer
from pytest_pgo_eks.local.controllers import ControllerConfig, run_controllers


async def serve(directory: Path) -> None:
    made = pki.issue(
        directory / "pki", api_names=["localhost", "10.96.0.1"], kubelet_names=["none"]
    )
    server = ApiServer(state=directory, admin_token="admin")
    door = socket.create_server(("127.0.0.1", 0))
    door.setblocking(False)
    await server.start([door], made.api_server.server_context())
    url = f"https://localhost:{door.getsockname()[1]}"
    assembly._write_kubeconfig(directory / "kubeconfig", url, made, "admin")
    client = ApiClient(url, ca_file=made.ca_file, token="admin")
    config = ControllerConfig(storage_root=directory / "volumes", cluster_ca=made.ca_text())
    controllers = asyncio.create_task(run_controllers(client, config=config))
    print(url, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    controllers.cancel()
    await asyncio.gather(controllers, return_exceptions=True)
    await client.close()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
