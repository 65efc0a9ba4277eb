"""Keeps every PostgresCluster reconciled: one worker each, woken by news, patient with errors."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.operator.context import Blocked
from pytest_pgo_eks.local.operator.control import CommandFailed

Key = tuple[str, str]

# News that come together are taken together: an applied StatefulSet brings five within this time.
_GATHER_S = 0.02
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 30.0
# Everything is looked at once in this time even if no watch brought news, as PGO does.
_RESYNC_S = 3600.0


def log(message: str, **fields: object) -> None:
    """Write one line of the operator's log to standard output."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    more = "".join(f" {name}={value}" for name, value in fields.items())
    print(f'time="{stamp}" msg="{message}"{more}', flush=True)


class Manager:
    """Runs ``reconcile(key)`` for every key that ``changed`` names, never twice at once per key.

    ``reconcile`` returns after how many seconds to look again without news, or None. An error
    makes it look again after a time that doubles up to half a minute, or on news.
    """

    def __init__(
        self, reconcile: Callable[[Key], Awaitable[float | None]], *, resync_s: float = _RESYNC_S
    ) -> None:
        self._reconcile = reconcile
        self._resync_s = resync_s
        self._news: dict[Key, asyncio.Event] = {}
        self._workers: dict[Key, asyncio.Task[None]] = {}
        self._started = False

    def changed(self, namespace: str, name: str) -> None:
        """Say that there is something new about a cluster. Cheap; callable from a watch."""
        key = (namespace, name)
        news = self._news.get(key)
        if news is None:
            news = self._news[key] = asyncio.Event()
        news.set()
        if self._started and key not in self._workers:
            self._workers[key] = asyncio.create_task(self._work(key), name=f"{namespace}/{name}")

    def start(self) -> None:
        """Begin to work on what has been gathered since this was made."""
        self._started = True
        for key in list(self._news):
            self.changed(*key)

    def forget(self, key: Key) -> None:
        """Let the worker of a cluster that is gone end."""
        self._news.pop(key, None)
        worker = self._workers.pop(key, None)
        if worker is not None and worker is not asyncio.current_task():
            worker.cancel()

    async def stop(self) -> None:
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, key: Key) -> None:
        failures = 0
        wait_s: float | None = 0.0
        try:
            while (news := self._news.get(key)) is not None:
                await _either(news, self._resync_s if wait_s is None else wait_s)
                await asyncio.sleep(_GATHER_S)
                news.clear()
                started = time.monotonic()
                try:
                    wait_s = await self._reconcile(key)
                    failures = 0
                except (ApiError, CommandFailed, Blocked) as error:
                    failures += 1
                    wait_s = retry_s(failures)
                    log(
                        "reconcile failed",
                        cluster="/".join(key),
                        error=f'"{error}"',
                        again_in=f"{wait_s:.1f}s",
                    )
                    # News do not cut this wait short: whatever failed would fail again at once.
                    await asyncio.sleep(min(wait_s, 1.0))
                else:
                    took = time.monotonic() - started
                    log("reconciled cluster", cluster="/".join(key), seconds=f"{took:.3f}")
        finally:
            if self._workers.get(key) is asyncio.current_task():
                del self._workers[key]


def retry_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row, with jitter."""
    return float(min(_LAST_RETRY_S, _FIRST_RETRY_S * 2**failures) * random.uniform(0.8, 1.2))  # noqa: S311


async def _either(news: asyncio.Event, seconds: float) -> None:
    """Wait for news, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return
