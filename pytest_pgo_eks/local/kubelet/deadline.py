"""How long a pod's containers have to end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pytest_pgo_eks.local.objects import Obj


class Deadline:
    """A moment that may come nearer while others wait for it."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds
        self._changed = asyncio.Event()

    def left_s(self) -> float:
        return max(0.0, self._at - time.monotonic())

    def shorten(self, seconds: float) -> None:
        at = time.monotonic() + seconds
        if at < self._at:
            self._at = at
            self._changed.set()

    async def wait_for(self, what: asyncio.Future[Any]) -> bool:
        """Wait until ``what`` is done or the time is up; say whether it is done."""
        while not what.done() and self.left_s() > 0:
            change = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait(
                    (what, change), timeout=self.left_s(), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                change.cancel()
            self._changed.clear()
        return what.done()


def grace_of(pod: Obj) -> float:
    """Return the pod's termination grace period in seconds, 30 by default."""
    found = pod["spec"].get("terminationGracePeriodSeconds")
    return 30.0 if found is None else float(found)
