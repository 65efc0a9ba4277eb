"""An assembly of which a part ends by itself, on SIGUSR1."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import standin_bare

from pytest_pgo_eks.local.supervisor import Cluster


async def start(cluster: Cluster, parts: contextlib.AsyncExitStack) -> None:
    async def part() -> None:
        broken = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, broken.set)
        await broken.wait()
        raise OSError("the part broke")

    cluster.spawn("part", part())
    await standin_bare.start(cluster, parts)
