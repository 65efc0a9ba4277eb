"""The operator as a program: in-cluster credentials, health endpoint, lease, caches, workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from pathlib import Path

from pytest_pgo_eks.local.apiclient import ApiClient
from pytest_pgo_eks.local.operator.context import Tools
from pytest_pgo_eks.local.operator.desired import Images
from pytest_pgo_eks.local.operator.lease import Lease, LostLease
from pytest_pgo_eks.local.operator.manager import Manager, log
from pytest_pgo_eks.local.operator.manifests import HEALTH_PORT
from pytest_pgo_eks.local.operator.reconcile import reconcile
from pytest_pgo_eks.local.operator.recorder import Recorder
from pytest_pgo_eks.local.operator.releases import release
from pytest_pgo_eks.local.operator.store import Store

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def in_cluster_client() -> ApiClient:
    """Return a client with the pod's own account; ``PGO_SERVICE_ACCOUNT`` names another folder."""
    account = Path(os.environ.get("PGO_SERVICE_ACCOUNT", _ACCOUNT))
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    where = f"[{host}]" if ":" in host else host
    return ApiClient(
        f"https://{where}:{port}",
        ca_file=account / "ca.crt",
        token_file=account / "token",
        user_agent="pgo-stand-in",
    )


async def operate() -> int:
    """Run until SIGTERM; returns the exit status."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    played = release(os.environ.get("PGO_RELEASE", "6.0"))
    log("starting", version=played.label)
    async with in_cluster_client() as client:
        manager = Manager(lambda key: _reconcile(tools, manager, key))
        store = Store(client, manager.changed)
        tools = Tools(client, store, Recorder(client), Images.from_environment(), played)
        lease = _lease(client) if played.leader_lease else None
        health = await asyncio.start_server(_answer, "", HEALTH_PORT)
        tasks = [asyncio.create_task(store.run(), name="caches")]
        tasks.append(asyncio.create_task(_lead(store, manager, lease), name="leader"))
        stop = asyncio.create_task(stopping.wait(), name="signal")
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        status = 0 if stop in done else 1
        for task in done - {stop}:
            log("ended", what=task.get_name(), error=f'"{task.exception()}"')
        health.close()
        await manager.stop()
        for task in (stop, *tasks):
            task.cancel()
        await asyncio.gather(stop, *tasks, return_exceptions=True)
        if lease:
            await lease.release()
    return status


async def _reconcile(tools: Tools, manager: Manager, key: tuple[str, str]) -> float | None:
    if key not in tools.store.clusters.items:
        manager.forget(key)
        return None
    return await reconcile(tools, key)


async def _lead(store: Store, manager: Manager, lease: Lease | None) -> None:
    if lease:
        await lease.acquire()
        log("leading")
    await store.synced()
    manager.start()
    if lease:
        await lease.keep()
    else:
        await asyncio.Event().wait()


def _lease(client: ApiClient) -> Lease:
    pod = os.environ.get("POD_NAME") or os.environ.get("HOSTNAME", "pgo")
    namespace = os.environ.get("PGO_NAMESPACE", "postgres-operator")
    name = os.environ.get("PGO_CONTROLLER_LEASE_NAME", "cpk-leader-election-lease")
    return Lease(client, namespace, name, f"{pod}_{uuid.uuid4()}")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer any request on the health port: that the loop turns is what the probes ask."""
    try:
        async with asyncio.timeout(5):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


def main() -> int:
    try:
        return asyncio.run(operate())
    except (LostLease, KeyboardInterrupt):
        return 1


if __name__ == "__main__":
    sys.exit(main())
