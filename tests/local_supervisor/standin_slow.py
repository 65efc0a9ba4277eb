"""An assembly that never gets ready."""

from __future__ import annotations

import asyncio
import contextlib

from pytest_pgo_eks.local.supervisor import Cluster


async def start(cluster: Cluster, _parts: contextlib.AsyncExitStack) -> None:
    await asyncio.create_subprocess_exec("sleep", "1000")
    cluster.report.say("waiting")
    await asyncio.Event().wait()
