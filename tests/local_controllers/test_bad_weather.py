"""The controllers through an API that loses requests, answers and watches: they still get there."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from standin.server import ADMIN_TOKEN, ca_file, running_api_server

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError, Event
from pytest_pgo_eks.local.controllers import ControllerConfig, run_controllers
from pytest_pgo_eks.local.objects import (
    CLAIM,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    JOB,
    PERSISTENT_VOLUME,
    POD,
    REPLICA_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Obj,
)

from .conftest import Bed
from .test_deployment import deployment
from .test_job import job
from .test_scheduler import claim_template, stateful_set


class BadWeather(ApiClient):
    """Loses every fifth request or its answer, and ends watches after a few events."""

    def __init__(self, *arguments: Any, seed: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.dice = random.Random(seed)
        self.calm = False
        self.lost = 0

    async def request(self, method: str, path: str, **options: Any) -> Obj:
        luck = 1.0 if self.calm else self.dice.random()
        self.lost += luck < 0.2
        if luck < 0.1:
            raise ApiError(self.dice.choice([0, 429, 500]), "BadWeather", f"{method} {path} lost")
        answer = await super().request(method, path, **options)
        if luck < 0.2 and method != "GET":
            raise ApiError(0, "BadWeather", f"the answer to {method} {path} was lost")
        return answer

    async def watch(self, *arguments: Any, **options: Any) -> AsyncIterator[Event]:
        left = 10**6 if self.calm else self.dice.randint(1, 8)
        async for event in super().watch(*arguments, **options):
            yield event
            left -= 1
            if not left:
                code = self.dice.choice([0, 410])
                raise ApiError(code, "BadWeather", "the watch was lost")


@pytest.mark.parametrize("seed", [1, 2])
def test_everything_comes_right_in_the_end(tmp_path: Path, seed: int) -> None:
    async def story() -> None:
        async with running_api_server() as (server, client):
            bad = BadWeather(client.url, ca_file=ca_file(server), token=ADMIN_TOKEN, seed=seed)
            config = ControllerConfig(storage_root=tmp_path, job_backoff_s=0.1)
            running = asyncio.create_task(run_controllers(bad, config=config))
            bed = Bed(client, tmp_path)
            try:
                await bed.until(lambda: bed.get(SERVICE_ACCOUNT, "default"), within_s=30)
                ended: set[str] = set()
                await _whole_life(bed, ended)
                bad.calm = True
                assert bad.lost > 20, "the weather was fine"
                await _settled(bed, ended)
            finally:
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
                await bad.close()

    asyncio.run(asyncio.wait_for(story(), 90))


async def _whole_life(bed: Bed, ended: set[str]) -> None:
    await bed.nodes()
    await bed.create(DEPLOYMENT, deployment(replicas=4))
    made = stateful_set("db", 3, volumeClaimTemplates=[claim_template()])
    await bed.create(STATEFUL_SET, made)
    await bed.create(JOB, job("once", completions=3, parallelism=3))
    service = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    await bed.create(SERVICE, {"metadata": {"name": "web"}, "spec": service})

    async def all_there() -> bool:
        await _kubelet(bed, ended)
        web = (await bed.get(DEPLOYMENT, "web") or {}).get("status") or {}
        db = (await bed.get(STATEFUL_SET, "db") or {}).get("status") or {}
        once = (await bed.get(JOB, "once") or {}).get("status") or {}
        counts = web.get("availableReplicas"), db.get("readyReplicas")
        return counts == (4, 3) and bool(once.get("completionTime"))

    await bed.until(all_there, within_s=40)
    await bed.client.delete(STATEFUL_SET, "db", "default", propagation="Foreground")
    for ordinal in range(3):
        await bed.client.delete(CLAIM, f"data-db-{ordinal}", "default")


async def _settled(bed: Bed, ended: set[str]) -> None:
    async def right() -> bool:
        await _kubelet(bed, ended)
        pods = [p for p in await bed.pods() if p["status"]["phase"] == "Running"]
        slices = await bed.every(ENDPOINT_SLICE, "kubernetes.io/service-name=web")
        addresses = {a for s in slices for e in s["endpoints"] for a in e["addresses"]}
        return (
            len(pods) == 4
            and {p["status"]["podIP"] for p in pods} == addresses
            and len(slices) == 1
            and len(await bed.every(REPLICA_SET)) == 1
            and not await bed.every(STATEFUL_SET)
            and not await bed.every(CLAIM)
            and not await bed.every(PERSISTENT_VOLUME)
        )

    await bed.until(right, within_s=40)
    once = await bed.get(JOB, "once")
    assert once is not None
    # A lost answer may have cost a pod too many, but none was counted twice.
    assert 3 <= once["status"]["succeeded"] <= len(ended)
    for pod in await bed.every(POD, "job-name=once"):
        assert not pod["metadata"].get("finalizers")


async def _kubelet(bed: Bed, ended: set[str]) -> None:
    for pod in await bed.pods():
        name = pod["metadata"]["name"]
        if pod["metadata"].get("deletionTimestamp"):
            await bed.kubelet_removes(name)
        elif pod["spec"].get("nodeName") and pod["status"]["phase"] == "Pending":
            with contextlib.suppress(ApiError):  # it may have been removed meanwhile
                if name.startswith("once"):
                    await bed.kubelet_ends(name)
                    ended.add(pod["metadata"]["uid"])
                else:
                    number = abs(hash(pod["metadata"]["uid"])) % 60000
                    await bed.kubelet_runs(name, ip=f"10.1.{number // 250}.{number % 250 + 1}")
