"""The cache against an API server that misbehaves as told: cut streams, 410, stale answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError, Cache, Event, Listed
from pytest_pgo_eks.local.objects import CONFIG_MAP, Obj


def thing(name: str, version: int, uid: str = "u") -> Obj:
    metadata = {"name": name, "namespace": "n", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata}


class Script(ApiClient):
    """Answers lists and watches from a script; refuses to go on beyond its end."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[str] = []
        self.over = asyncio.Event()

    async def list(self, *_: Any, **__: Any) -> Listed:
        self.asked.append("list")
        answer = self.lists.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        items, version = answer
        return Listed(items, str(version))

    async def watch(self, *_: Any, resource_version: str, **__: Any) -> AsyncIterator[Event]:
        self.asked.append(f"watch {resource_version}")
        if not self.watches:
            self.over.set()
            await asyncio.Event().wait()
        for step in self.watches.pop(0):
            if isinstance(step, ApiError):
                raise step
            yield Event(*step)


async def played(script: Script) -> tuple[Cache, list[tuple[str, str, str]]]:
    told: list[tuple[str, str, str]] = []

    def changed(event: str, obj: Obj) -> None:
        told.append((event, obj["metadata"]["name"], obj["metadata"]["resourceVersion"]))

    cache = Cache(script, CONFIG_MAP, changed=changed)
    runner = asyncio.create_task(cache.run())
    async with asyncio.timeout(10):
        await script.over.wait()
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)
    return cache, told


def test_a_cut_stream_goes_on_where_it_ended() -> None:
    async def story() -> None:
        cut = ApiError(0, "Unreachable", "cut")
        script = Script(
            [([thing("a", 1)], 5)],
            [[("ADDED", thing("b", 6)), cut], [("DELETED", thing("a", 7))]],
        )
        cache, told = await played(script)
        assert script.asked == ["list", "watch 5", "watch 6", "watch 7"]
        assert told == [("ADDED", "a", "1"), ("ADDED", "b", "6"), ("DELETED", "a", "7")]
        assert list(cache.items) == [("n", "b")]

    asyncio.run(story())


def test_a_version_too_old_means_a_new_list_with_only_the_differences_told() -> None:
    async def story() -> None:
        gone = ApiError(410, "Expired", "too old")
        script = Script(
            [([thing("a", 1), thing("b", 2)], 5), ([thing("b", 2), thing("c", 8)], 9)], [[gone]]
        )
        _, told = await played(script)
        assert told[2:] == [("DELETED", "a", "1"), ("ADDED", "c", "8")]
        assert script.asked == ["list", "watch 5", "list", "watch 9"]

    asyncio.run(story())


def test_bookmarks_move_the_version_and_nothing_else() -> None:
    async def story() -> None:
        bookmark = {"metadata": {"resourceVersion": "50"}}
        script = Script([([], 5)], [[("BOOKMARK", bookmark)]])
        _, told = await played(script)
        assert script.asked[-1] == "watch 50"
        assert told == []

    asyncio.run(story())


def test_a_server_that_is_away_is_asked_ever_more_rarely() -> None:
    async def story() -> None:
        away = ApiError(0, "Unreachable", "no")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        script = Script([away] * 5 + [([], 1)], [])
        await played(script)
        # Half of 0.08 + 0.16 + 0.32 + 0.64; five equal pauses took 0.4 s at most.
        assert loop.time() - begun > 0.55

    asyncio.run(story())


def test_an_answer_is_learned_and_its_echo_told_only_once() -> None:
    async def story() -> None:
        told: list[tuple[str, str]] = []
        cache = Cache(
            Script([], []),
            CONFIG_MAP,
            changed=lambda event, obj: told.append((event, obj["metadata"]["resourceVersion"])),
        )
        cache.learn(thing("a", 10))
        assert cache.get("a", "n") is not None
        cache._take(Event("ADDED", thing("a", 10)))
        cache._take(Event("MODIFIED", thing("a", 11)))
        cache.learn(thing("a", 10))
        assert told == [("ADDED", "10"), ("MODIFIED", "11")]

    asyncio.run(story())


def test_what_is_gone_is_not_learned_back() -> None:
    async def story() -> None:
        cache = Cache(Script([], []), CONFIG_MAP)
        cache._take(Event("ADDED", thing("a", 10)))
        cache._take(Event("DELETED", thing("a", 12)))
        cache.learn(thing("a", 11))
        assert cache.get("a", "n") is None

    asyncio.run(story())


def test_the_end_of_a_predecessor_leaves_its_successor() -> None:
    async def story() -> None:
        cache = Cache(Script([], []), CONFIG_MAP)
        cache.learn(thing("a", 20, "second"))
        cache._take(Event("DELETED", thing("a", 15, "first")))
        found = cache.get("a", "n")
        assert found is not None
        assert found["metadata"]["uid"] == "second"

    asyncio.run(story())


def test_a_refusal_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        refused = ApiError(403, "Forbidden", "not for you")
        await played(Script([refused, refused, ([], 1)], []))

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert [r.getMessage() for r in caplog.records] == [
        "configmaps cannot be followed: 403 Forbidden: not for you"
    ]
