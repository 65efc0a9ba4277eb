"""A queue of keys to reconcile: coalescing, one worker per key, retries with growing pauses."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from pytest_pgo_eks.local.apiclient import ApiError

log = logging.getLogger(__name__)
K = TypeVar("K")


class WorkQueue(Generic[K]):
    """Calls ``reconcile(key)`` for every key that was added since its last run.

    A key added while it runs runs once more afterwards; the same key never runs twice at a time.
    What ``reconcile`` returns is the number of seconds after which it wants to look again (None:
    only when something changes). An :class:`ApiError` is tried again after ``first_retry_s``, then
    twice that and so on; any other exception is a defect: it is logged, and tried again likewise,
    so that one broken object does not stop the controller.
    """

    def __init__(
        self,
        name: str,
        reconcile: Callable[[K], Awaitable[float | None]],
        *,
        workers: int = 8,
        first_retry_s: float = 0.005,
        longest_retry_s: float = 30.0,
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._free = workers
        self._first_retry_s = first_retry_s
        self._longest_retry_s = longest_retry_s
        self._waiting: deque[K] = deque()
        self._wanted: set[K] = set()  # waiting, or to be run again
        self._running: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._group: asyncio.TaskGroup | None = None

    def add(self, key: K) -> None:
        """Ask for a run of this key as soon as possible."""
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._running:
            self._waiting.append(key)
            self._start()

    def after(self, key: K, delay_s: float) -> None:
        """Ask for a run of this key at a later time; replaces an earlier such wish."""
        self._forget_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(delay_s, self._due, key)

    def idle(self) -> bool:
        """Say whether nothing runs or waits (timers aside)."""
        return not self._running and not self._waiting

    async def run(self) -> None:
        """Work until cancelled. Keys added before are kept until now."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._start()
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _start(self) -> None:
        while self._group and self._free and self._waiting:
            key = self._waiting.popleft()
            self._free -= 1
            self._running.add(key)
            self._group.create_task(self._work(key), name=f"{self.name} {key}")

    async def _work(self, key: K) -> None:
        self._wanted.discard(key)
        self._forget_timer(key)
        again: float | None
        try:
            again = await self._reconcile(key)
            self._failures.pop(key, None)
        except ApiError as error:
            again = self._retry_s(key)
            level = logging.DEBUG if error.code in (404, 409) else logging.WARNING
            log.log(level, "%s %s: %s; again in %.3f s", self.name, key, error, again)
        except Exception:
            again = self._retry_s(key)
            log.exception("%s %s; again in %.3f s", self.name, key, again)
        finally:
            self._running.discard(key)
            self._free += 1
        if key in self._wanted:
            self._waiting.append(key)
        elif again is not None:
            self.after(key, again)
        self._start()

    def _retry_s(self, key: K) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return float(min(self._longest_retry_s, self._first_retry_s * 2 ** min(failures - 1, 20)))

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _forget_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
