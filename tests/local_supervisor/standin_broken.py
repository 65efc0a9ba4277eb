"""An assembly that fails while it starts."""

from __future__ import annotations

import contextlib

from pytest_pgo_eks.local.supervisor import Broken, Cluster


async def start(_cluster: Cluster, _parts: contextlib.AsyncExitStack) -> None:
    raise Broken("the widget did not come up")
