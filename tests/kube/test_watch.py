"""The list-then-watch loop against everything that ends or fools a watch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.kube import Kube, Watcher, WatchEvent

from .conftest import NAMESPACE, Server, pod


def follow(kube: Kube, deadline_s: float, until: Callable[[list[str]], bool]) -> list[str]:
    """Watch Pods until ``until`` says so of the events so far, each as ``TYPE name``."""
    events: list[str] = []
    for event in kube.watch("Pod", NAMESPACE, deadline_s=deadline_s):
        events.append(_short(event))
        if until(events):
            break
    return events


def _short(event: WatchEvent) -> str:
    return f"{event.type} {event.object['metadata']['name']}"


def later(action: Callable[[], object], after_s: float = 0.2) -> threading.Timer:
    timer = threading.Timer(after_s, action)
    timer.start()
    return timer


def test_what_exists_comes_first_then_changes(kube: Kube) -> None:
    kube.create(pod("a"))

    def change() -> None:
        kube.create(pod("b"))
        kube.patch("Pod", "a", NAMESPACE, {"spec": {"x": 1}})
        kube.delete("Pod", "b", NAMESPACE)

    later(change)
    events = follow(kube, 5, lambda seen: len(seen) == 4)
    assert events == ["ADDED a", "ADDED b", "MODIFIED a", "DELETED b"]


def test_a_watch_ends_at_its_deadline(kube: Kube) -> None:
    began = time.monotonic()
    assert follow(kube, 0.4, lambda _: False) == []
    assert 0.3 < time.monotonic() - began < 10


@pytest.mark.parametrize("do", ["cut", "end", "split"])
def test_a_stream_that_ends_is_opened_again_where_it_stood(
    server: Server, kube: Kube, do: str
) -> None:
    server.rule(do, after=1, times=3, watch=True)

    def change() -> None:
        for number in range(6):
            kube.create(pod(f"p{number}"))

    later(change)
    events = follow(kube, 8, lambda seen: len(seen) == 6)
    assert events == [f"ADDED p{number}" for number in range(6)]
    lists = [line for line in server.seen("GET /api/v1/namespaces/ns/pods?") if "watch" not in line]
    assert len(lists) == 1


def test_a_half_open_stream_is_left_after_the_idle_time(server: Server, kube: Kube) -> None:
    server.rule("half-open", after=1, watch=True)

    def change() -> None:
        kube.create(pod("a"))
        kube.create(pod("b"))

    later(change)
    # Far less than the default idle time, after which it would be left as well.
    events = kube.watch_loop("Pod", NAMESPACE, idle_s=0.5).events(10)
    assert [_short(next(events)), _short(next(events))] == ["ADDED a", "ADDED b"]
    events.close()


def test_a_frozen_server_costs_no_event(server: Server, kube: Kube) -> None:
    kube.create(pod("a"))
    events = kube.watch_loop("Pod", NAMESPACE, idle_s=0.3).events(15)
    assert _short(next(events)) == "ADDED a"
    with server.frozen(1.2):
        later(lambda: kube.create(pod("b")), 0.1)
        assert _short(next(events)) == "ADDED b"
    events.close()


@pytest.mark.parametrize("do", ["event-410", "status"])
def test_410_lists_again_and_tells_only_the_difference(server: Server, kube: Kube, do: str) -> None:
    for name in ("stays", "goes", "changes", "reborn"):
        kube.create(pod(name))

    def gap() -> None:
        # The stream breaks, and while it is down the world changes and history is forgotten.
        kube.delete("Pod", "goes", NAMESPACE)
        kube.patch("Pod", "changes", NAMESPACE, {"spec": {"x": 1}})
        kube.delete("Pod", "reborn", NAMESPACE)
        kube.create(pod("reborn"))
        kube.create(pod("new"))
        server.control("expire")

    server.rule(do, code=410, reason="Expired", watch=True)
    server.control("expire")
    events: list[str] = []
    for event in kube.watch("Pod", NAMESPACE, deadline_s=8):
        events.append(_short(event))
        if len(events) == 4:
            gap()
        if len(events) == 9:
            break
    assert sorted(events[:4]) == ["ADDED changes", "ADDED goes", "ADDED reborn", "ADDED stays"]
    assert "DELETED goes" in events[4:]
    assert "DELETED reborn" in events[4:]
    assert "ADDED reborn" in events[4:]
    assert events[4:].index("DELETED reborn") < events[4:].index("ADDED reborn")
    assert "MODIFIED changes" in events[4:]
    assert not [event for event in events[4:] if "stays" in event]


def test_server_errors_and_throttling_are_outlived(server: Server, kube: Kube) -> None:
    kube.create(pod("a"))
    server.rule("status", code=500, watch=True, times=2)
    server.rule("status", code=429, headers={"Retry-After": "0.2"}, watch=True)
    server.rule("drop", watch=True)
    server.rule("bad-event", watch=True)
    later(lambda: kube.create(pod("b")), 0.8)
    assert follow(kube, 8, lambda seen: len(seen) == 2) == ["ADDED a", "ADDED b"]


def test_a_token_that_expires_costs_no_event(server: Server, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path / "k")
    with Kube(path) as kube:
        server.rule("end", after=1, watch=True)

        def change() -> None:
            kube.create(pod("a"))
            server.control("token", "next")
            server.kubeconfig(path, "next")
            kube.create(pod("b"))

        later(change)
        assert follow(kube, 8, lambda seen: len(seen) == 2) == ["ADDED a", "ADDED b"]


@pytest.mark.parametrize("watch", [True, False])
def test_a_refusal_for_good_is_no_silence(server: Server, kube: Kube, watch: bool) -> None:
    server.rule("status", code=403, message="no list for you", times=100, watch=watch)
    with pytest.raises(ApiProblem, match="no list for you") as caught:
        follow(kube, 5, lambda _: False)
    assert caught.value.status == 403


def test_being_out_of_sight_at_the_deadline_is_no_silence(server: Server, kube: Kube) -> None:
    server.rule("status", code=503, times=1000, watch=True)
    with pytest.raises(ApiProblem, match="nothing could be seen for the last"):
        follow(kube, 0.8, lambda _: False)


def test_a_watcher_shares_one_watch_and_keeps_what_it_saw(server: Server, kube: Kube) -> None:
    kube.create(pod("a", app="x"))
    with Watcher(kube) as watcher:
        feed = watcher.feed("Pod", NAMESPACE)
        assert watcher.feed("Pod", NAMESPACE) is feed
        assert [one["metadata"]["name"] for one in feed.objects()] == ["a"]
        assert feed.objects({"app": "y"}) == []
        before = feed.sequence()
        later(lambda: kube.create(pod("b")))
        assert feed.wait(before, 5) > before
        assert feed.get("b") is not None
        kube.delete("Pod", "b", NAMESPACE)
        deadline = time.monotonic() + 5
        while feed.get("b") is not None and time.monotonic() < deadline:
            feed.wait(feed.sequence(), 0.1)
        assert feed.get("b") is None
        empty = watcher.feed("Service", NAMESPACE)
        assert empty.objects() == []
        both = watcher.any_of(feed, empty)
        count = both.sequence()
        assert both.wait(count, 0.05) == count
        later(lambda: kube.create({**pod("s"), "kind": "Service"}))
        assert both.wait(count, 5) > count
    assert len([line for line in server.seen("/pods?") if "watch=true" in line]) == 1


def test_a_feed_out_of_sight_refuses_to_repeat_old_truths(
    server: Server, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_pgo_eks.kube.watcher.STALE_S", 0.3)
    kube.create(pod("a"))
    server.rule("end", after=1, watch=True)
    with Watcher(kube) as watcher:
        feed = watcher.feed("Pod", NAMESPACE)
        assert feed.objects()
        server.rule("status", code=503, watch=True, times=1000)
        kube.create(pod("b"))
        deadline = time.monotonic() + 5
        with pytest.raises(ApiProblem, match="out of sight"):  # noqa: PT012
            while time.monotonic() < deadline:
                feed.objects()
                feed.wait(feed.sequence(), 0.05)


def test_a_feed_that_is_refused_says_so(server: Server, kube: Kube) -> None:
    server.rule("status", code=403, message="not yours", times=100)
    with Watcher(kube) as watcher, pytest.raises(ApiProblem, match="not yours"):
        watcher.feed("Pod", NAMESPACE).objects()


def test_closing_a_watcher_ends_a_blocked_read_at_once(kube: Kube, tls_kube: Kube) -> None:
    for client in (kube, tls_kube):
        watcher = Watcher(client)
        feed = watcher.feed("Pod", NAMESPACE)
        assert feed.objects() == []
        began = time.monotonic()
        watcher.close()
        assert time.monotonic() - began < 10
        assert not feed._thread.is_alive()
