"""A running API server with the controllers on it, and a hand that plays the kubelet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from standin.server import client_of, running_api_server

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.apiserver import Identity
from pytest_pgo_eks.local.controllers import ControllerConfig, run_controllers
from pytest_pgo_eks.local.controllers.clock import stamp
from pytest_pgo_eks.local.objects import EVENT, NODE, POD, SERVICE_ACCOUNT, Kind, Obj, key

from .made import node

Look = Callable[[], Awaitable[Any]]


class Bed:
    """A cluster without kubelets: three nodes, all controllers, and the test as everything else."""

    def __init__(self, client: ApiClient, root: Path) -> None:
        self.client = client
        self.root = root
        self.namespace = "default"

    async def nodes(self, *names: str) -> None:
        """Create ready nodes; node-1 is in zone-a, node-2 in zone-b and so on."""
        for name in names or ("node-1", "node-2", "node-3"):
            made = node(name, f"zone-{'abcdefghi'[int(name.rpartition('-')[2]) - 1]}")
            status = made.pop("status")
            await self.client.create(NODE, made)
            await self.client.patch(NODE, name, None, {"status": status}, sub="status")

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        metadata = obj.setdefault("metadata", {})
        if kind.namespaced:
            metadata.setdefault("namespace", self.namespace)
        obj |= {"apiVersion": kind.api_version, "kind": kind.kind}
        return await self.client.create(kind, obj)

    async def get(self, kind: Kind, name: str) -> Obj | None:
        return await self.client.find(kind, name, self.namespace if kind.namespaced else None)

    async def every(self, kind: Kind, labels: str | None = None) -> list[Obj]:
        where = self.namespace if kind.namespaced else None
        return (await self.client.list(kind, where, labels=labels)).items

    async def patch(self, kind: Kind, name: str, patch: Obj, sub: str = "") -> Obj:
        where = self.namespace if kind.namespaced else None
        return await self.client.patch(kind, name, where, patch, sub=sub)

    async def events(self, reason: str) -> list[str]:
        return [e["message"] for e in await self.every(EVENT) if e["reason"] == reason]

    async def until(self, look: Look, *, within_s: float = 20.0) -> Any:
        """Wait until the look finds something true, and return it; the last find is in the error."""
        found: Any = None
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = await look()
                    if found:
                        return found
                    await asyncio.sleep(0.015)
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s; last seen: {found!r}") from None

    async def pods(self, *, labels: str | None = None) -> list[Obj]:
        return sorted(await self.every(POD, labels), key=key)

    async def bound(self, name: str) -> Obj:
        async def look() -> Obj | None:
            found = await self.get(POD, name)
            return found if found and found["spec"].get("nodeName") else None

        found: Obj = await self.until(look)
        return found

    async def kubelet_runs(self, name: str, *, ready: bool = True, ip: str = "") -> None:
        """Report the pod as running, as its kubelet would."""
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastTransitionTime": stamp(),
        }
        status: Obj = {"phase": "Running", "conditions": [condition]}
        if ip:
            status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        await self._report(name, status)

    async def kubelet_ends(self, name: str, *, exit_code: int = 0) -> None:
        """Report that the pod's only container has ended."""
        ended = {"terminated": {"exitCode": exit_code, "finishedAt": stamp()}}
        container = {
            "name": "main",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": ended,
        }
        phase = "Failed" if exit_code else "Succeeded"
        condition = {"type": "Ready", "status": "False", "lastTransitionTime": stamp()}
        await self._report(
            name, {"phase": phase, "containerStatuses": [container], "conditions": [condition]}
        )

    async def kubelet_removes(self, name: str) -> None:
        """Confirm that a deleted pod is gone from its node."""
        with contextlib.suppress(ApiError):
            await self.client.delete(POD, name, self.namespace, grace_s=0)

    async def _report(self, name: str, status: Obj) -> None:
        await self.client.patch(
            POD, name, self.namespace, {"status": status}, type="strategic", sub="status"
        )


@contextlib.asynccontextmanager
async def running_bed(root: Path, **settings: Any) -> AsyncIterator[Bed]:
    # The identity the stand-in gives them: what it is not allowed shows here.
    tokens = {"them": Identity("system:kube-controller-manager", ("system:controllers",))}
    async with (
        running_api_server(tokens=tokens) as (server, client),
        client_of(server, client, "them") as theirs,
    ):
        config = ControllerConfig(storage_root=root, cluster_ca="-- the CA --", **settings)
        controllers = asyncio.create_task(run_controllers(theirs, config=config))
        try:
            bed = Bed(client, root)
            # As on a real cluster, a namespace takes pods once it has its default account.
            await bed.until(lambda: bed.get(SERVICE_ACCOUNT, "default"))
            yield bed
        finally:
            controllers.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await controllers


Story = Callable[[Bed], Awaitable[None]]
Tell = Callable[..., None]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Run an async story on a bed of its own; settings go to the controllers."""

    def run(story: Story, **settings: Any) -> None:
        async def whole() -> None:
            async with asyncio.timeout(60), running_bed(tmp_path, **settings) as bed:
                await story(bed)

        asyncio.run(whole())

    return run
