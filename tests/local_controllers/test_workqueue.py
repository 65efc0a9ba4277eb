"""The work queue: coalescing, one run per key, retries, timers."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

import pytest

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue

Work = Callable[[str], Awaitable[float | None]]


def drive(make: Callable[[WorkQueue[str]], Awaitable[None]], work: Work, workers: int = 8) -> None:
    async def whole() -> None:
        queue: WorkQueue[str] = WorkQueue("test", work, workers=workers, first_retry_s=0.001)
        runner = asyncio.create_task(queue.run())
        try:
            async with asyncio.timeout(5):
                await make(queue)
        finally:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)

    asyncio.run(whole())


async def settle(queue: WorkQueue[str]) -> None:
    for _ in range(1000):
        if queue.idle():
            break
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)


def test_many_wishes_are_one_run_and_one_more() -> None:
    runs: list[str] = []
    gate = asyncio.Event()

    async def work(key: str) -> None:
        runs.append(key)
        await gate.wait()

    async def story(queue: WorkQueue[str]) -> None:
        for _ in range(5):
            queue.add("a")
        await asyncio.sleep(0.01)
        assert runs == ["a"]
        for _ in range(5):
            queue.add("a")  # while it runs: once more, afterwards
        gate.set()
        await settle(queue)
        assert runs == ["a", "a"]

    drive(story, work)


def test_no_more_workers_than_allowed() -> None:
    now = most = 0

    async def work(_key: str) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1

    async def story(queue: WorkQueue[str]) -> None:
        for number in range(20):
            queue.add(str(number))
        await asyncio.sleep(0.005)
        await settle(queue)
        assert most == 3

    drive(story, work, workers=3)


def test_a_failure_is_tried_again_later_and_later(caplog: pytest.LogCaptureFixture) -> None:
    times: list[float] = []
    done = asyncio.Event()

    async def work(_key: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 6:
            raise ApiError(500, "InternalError", "no")
        done.set()

    async def story(queue: WorkQueue[str]) -> None:
        queue.add("a")
        await done.wait()
        pauses = [b - a for a, b in itertools.pairwise(times)]
        assert all(p >= 0.0009 * 2**i for i, p in enumerate(pauses)), pauses

    with caplog.at_level(logging.WARNING):
        drive(story, work)
    assert "InternalError" in caplog.text


def test_a_defect_is_logged_and_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)
        if key == "broken":
            raise KeyError("spec")

    async def story(queue: WorkQueue[str]) -> None:
        queue.add("broken")
        queue.add("sound")
        await asyncio.sleep(0.01)
        assert "sound" in seen
        assert seen.count("broken") > 1

    drive(story, work)
    assert "KeyError" in caplog.text


def test_a_run_may_ask_for_a_later_one_and_a_change_replaces_it() -> None:
    runs = 0
    later: float | None = 0.01

    async def work(_key: str) -> float | None:
        nonlocal runs
        runs += 1
        return later

    async def story(queue: WorkQueue[str]) -> None:
        nonlocal later
        queue.add("a")
        for _ in range(1000):
            if runs >= 3:
                break
            await asyncio.sleep(0.001)
        assert runs >= 3
        later = None
        queue.add("a")
        await settle(queue)
        before = runs
        await asyncio.sleep(0.03)
        assert runs == before

    drive(story, work)


def test_what_was_added_before_the_start_is_kept() -> None:
    seen: list[str] = []

    async def whole() -> None:
        async def work(key: str) -> None:
            seen.append(key)

        queue: WorkQueue[str] = WorkQueue("test", work)
        queue.add("early")
        await asyncio.sleep(0.005)
        assert not seen
        runner = asyncio.create_task(queue.run())
        await asyncio.sleep(0.005)
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)

    asyncio.run(whole())
    assert seen == ["early"]
