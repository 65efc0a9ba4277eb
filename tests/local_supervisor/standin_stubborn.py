"""An assembly that cannot be stopped in an orderly way."""

from __future__ import annotations

import asyncio
import contextlib

import standin_bare

from pytest_pgo_eks.local import supervisor


async def start(cluster: supervisor.Cluster, parts: contextlib.AsyncExitStack) -> None:
    supervisor._STOP_S = 0.3
    parts.push_async_callback(asyncio.Event().wait)
    await standin_bare.start(cluster, parts)
