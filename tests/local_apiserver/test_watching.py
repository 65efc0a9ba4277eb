"""Watches: order, resumption, selectors, bookmarks, and the past that is forgotten."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest

from local_apiserver.api_bench import Bench, config_map, pod, served, until, watching
from pytest_pgo_eks.local.apiclient import Cache
from pytest_pgo_eks.local.apiserver import reading
from pytest_pgo_eks.local.objects import CONFIG_MAP, POD


@served()
async def test_every_change_arrives_once_and_in_order(bench: Bench) -> None:
    admin = bench.admin
    async with watching(admin, CONFIG_MAP) as here, watching(admin, CONFIG_MAP, None) as everywhere:
        made = await admin.create(CONFIG_MAP, config_map(a="1"), "default")
        changed = await admin.patch(CONFIG_MAP, "settings", "default", {"data": {"a": "2"}})
        elsewhere = config_map()
        elsewhere["metadata"]["namespace"] = "kube-system"
        await admin.create(CONFIG_MAP, elsewhere, "kube-system")
        await admin.delete(CONFIG_MAP, "settings", "default")
        seen = [await here.full() for _ in range(3)]
        assert [event.type for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
        assert [event.object for event in seen[:2]] == [made, changed]
        versions = [int(event.object["metadata"]["resourceVersion"]) for event in seen]
        assert versions == sorted(set(versions))
        assert seen[2].object["data"] == {"a": "2"}
        every = [await everywhere.full() for _ in range(4)]
        assert [event.object["metadata"]["namespace"] for event in every][2] == "kube-system"
        assert here.events.empty()


@served()
async def test_a_watch_goes_on_from_a_version(bench: Bench) -> None:
    admin = bench.admin
    first = await admin.create(CONFIG_MAP, config_map(a="1"), "default")
    await admin.patch(CONFIG_MAP, "settings", "default", {"data": {"a": "2"}})
    await admin.create(CONFIG_MAP, config_map("other"), "default")
    version = first["metadata"]["resourceVersion"]
    async with watching(admin, CONFIG_MAP, resource_version=version) as watched:
        assert await watched.next() == ("MODIFIED", "settings")
        assert await watched.next() == ("ADDED", "other")


@served(only_ours="with bookmarks a real server needs an etcd that reports progress for this")
async def test_a_watch_from_zero_begins_with_what_is_there(bench: Bench) -> None:
    admin = bench.admin
    await admin.create(CONFIG_MAP, config_map(a="1"), "default")
    await admin.create(CONFIG_MAP, config_map("other"), "default")
    async with watching(admin, CONFIG_MAP, resource_version="0") as watched:
        assert await watched.next() == ("ADDED", "other")
        assert await watched.next() == ("ADDED", "settings")


@served(history=5)
async def test_a_forgotten_version_is_410_and_a_future_one_504(bench: Bench) -> None:
    admin = bench.admin
    first = await admin.create(CONFIG_MAP, config_map(a="1"), "default")
    for number in range(6):
        await admin.patch(CONFIG_MAP, "settings", "default", {"data": {"a": str(10 + number)}})
    with bench.refused(410, "Expired", "too old resource version"):
        async for _ in admin.watch(
            CONFIG_MAP, "default", resource_version=first["metadata"]["resourceVersion"]
        ):
            pytest.fail("an event of a forgotten past")
    with bench.refused(504, "Timeout", "Too large resource version"):
        async for _ in admin.watch(CONFIG_MAP, "default", resource_version="999999"):
            pytest.fail("an event of the future")


@served()
async def test_objects_that_begin_or_cease_to_match_are_added_and_deleted(bench: Bench) -> None:
    admin = bench.admin
    async with watching(admin, POD, labels="role=master") as watched:
        await admin.create(POD, pod("a"), "default")
        await admin.patch(POD, "a", "default", {"metadata": {"labels": {"role": "master"}}})
        await admin.patch(POD, "a", "default", {"metadata": {"labels": {"more": "x"}}})
        moved = await admin.patch(
            POD, "a", "default", {"metadata": {"labels": {"role": "replica"}}}
        )
        seen = [await watched.full() for _ in range(3)]
        assert [event.type for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
        last = seen[2].object["metadata"]
        assert last["labels"] == {"role": "master", "more": "x"}
        assert last["resourceVersion"] == moved["metadata"]["resourceVersion"]
        await admin.delete(POD, "a", "default")
        await admin.create(POD, pod("b", labels={"role": "master"}), "default")
        assert await watched.next() == ("ADDED", "b")
    async with watching(admin, POD, fields="spec.nodeName=n1") as watched:
        await admin.request(
            "POST",
            POD.path("default", "b", "binding"),
            body={"metadata": {"name": "b"}, "target": {"name": "n1"}},
        )
        assert await watched.next() == ("ADDED", "b")


@served()
async def test_a_quiet_watch_gets_bookmarks(bench: Bench) -> None:
    with mock.patch.object(reading, "_BOOKMARK_S", 0.05):
        async with watching(bench.admin, CONFIG_MAP) as watched:
            bench.server.store.advance()
            event = await watched.full()
            assert event.type == "BOOKMARK"
            assert event.object["kind"] == "ConfigMap"
            assert event.object["metadata"]["resourceVersion"] == str(bench.server.store.version)


@served(only_ours="a real server needs an etcd that reports progress: 3.4.25, 3.5.8 or newer")
async def test_initial_events_end_with_a_marked_bookmark(bench: Bench) -> None:
    admin = bench.admin
    await admin.create(CONFIG_MAP, config_map("a"), "default")
    path = CONFIG_MAP.path("default")
    query = {
        "watch": "1",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "1",
    }
    session = admin._open()
    async with session.get(admin.url + path, params=query, headers=admin._headers()) as answer:
        text = await answer.text()
    lines = text.splitlines()
    assert '"type":"ADDED"' in lines[0]
    assert '"k8s.io/initial-events-end":"true"' in lines[1]
    # The last word of a watch that has had its time is where to go on from.
    assert len(lines) == 3
    assert '"type":"BOOKMARK"' in lines[2]
    assert "initial-events-end" not in lines[2]


@served()
async def test_a_watch_ends_with_its_time_with_its_client_and_with_the_server(bench: Bench) -> None:
    admin = bench.admin
    collection = bench.server.store.collection(("", "configmaps"))
    path = CONFIG_MAP.path("default") + "?watch=1&timeoutSeconds=1"
    async with asyncio.timeout(3):
        session = admin._open()
        async with session.get(admin.url + path, headers=admin._headers()) as answer:
            assert await answer.read() == b""
    async with watching(admin, CONFIG_MAP) as watched:
        await until(lambda: bool(collection._watchers))
    # The client has left: nothing waits for an event any more.
    await until(lambda: not collection._watchers)
    async with watching(admin, CONFIG_MAP) as watched:
        await until(lambda: bool(collection._watchers))
        bench.server.store.close()
        async with asyncio.timeout(3):
            await watched.ended.wait()
        assert watched.error is None


@served(history=3)
async def test_a_cache_stays_right_through_410(bench: Bench) -> None:
    admin = bench.admin
    cache = Cache(admin, CONFIG_MAP, "default")
    task = asyncio.create_task(cache.run())
    await cache.synced.wait()
    for number in range(5):
        await admin.create(CONFIG_MAP, config_map(f"m{number}"), "default")
    bench.server.store.collection(("", "configmaps")).close_watches()
    for number in range(5, 12):
        await admin.create(CONFIG_MAP, config_map(f"m{number}"), "default")
    await admin.delete(CONFIG_MAP, "m0", "default")
    wanted = {("default", f"m{number}") for number in range(1, 12)}
    await until(lambda: set(cache.items) == wanted)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
