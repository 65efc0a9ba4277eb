"""Merge patches, conditions, hashes, Events: the small parts everything else stands on."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.controllers.hashes import content_hash
from pytest_pgo_eks.local.controllers.merging import merge_diff, set_condition, without_empty
from pytest_pgo_eks.local.controllers.recorder import Recorder
from pytest_pgo_eks.local.objects import Kind, Obj

_values = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.text("abc", min_size=1, max_size=2), _values, max_size=4)


def merged(target: Any, patch: Any) -> Any:
    """Apply a merge patch word for word as RFC 7386 section 2 has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


# A busy machine is no failure.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_objects, _objects)
def test_a_difference_leads_from_one_to_the_other(old: Obj, new: Obj) -> None:
    patch = merge_diff(old, new)
    assert merged(old, patch) == new
    assert merge_diff(new, new) == {}


def test_what_the_api_leaves_out() -> None:
    assert without_empty({"a": 0, "b": [], "c": None, "d": False, "e": 1, "f": ""}) == {
        "d": False,
        "e": 1,
    }


def test_the_transition_time_moves_with_the_status_only() -> None:
    known = [{"type": "A", "status": "True", "reason": "x", "lastTransitionTime": "then"}]
    same = set_condition(known, {"type": "A", "status": "True", "reason": "y"}, "now")
    assert same == [{"type": "A", "status": "True", "reason": "y", "lastTransitionTime": "then"}]
    other = set_condition(known, {"type": "A", "status": "False"}, "now")
    assert other[0]["lastTransitionTime"] == "now"
    added = set_condition(known, {"type": "B", "status": "True"}, "now")
    assert [c["type"] for c in added] == ["A", "B"]


def test_hashes_look_like_kubernetes_ones_and_depend_on_content_only() -> None:
    one = content_hash({"a": 1, "b": [2]})
    assert re.fullmatch(r"[bcdf4-9]{1,10}", one)
    assert one == content_hash({"b": [2], "a": 1})
    assert one != content_hash({"a": 1, "b": [3]})
    assert one != content_hash({"a": 1, "b": [2]}, 1)
    # By hand: FNV-1a of "{}" is 0x5465b825 = 1415952421, its digits re-coded one by one.
    assert content_hash({}) == "".join("456789bcdf"[int(d)] for d in "1415952421")


class Book(ApiClient):
    """Takes Events only, and loses the first write."""

    def __init__(self) -> None:
        self.events: dict[str, Obj] = {}
        self.writes = 0

    async def create(
        self, kind: Kind, obj: Obj, namespace: str | None = None, sub: str = ""
    ) -> Obj:
        assert kind.kind == "Event"
        self.writes += 1
        if self.writes == 1:
            raise ApiError(500, "InternalError", "lost")
        self.events[obj["metadata"]["name"]] = obj
        return obj

    async def patch(
        self, kind: Kind, name: str, namespace: str | None, patch: Any, **_: Any
    ) -> Obj:
        if name not in self.events:
            raise ApiError(404, "NotFound", name)
        self.events[name] |= patch
        return self.events[name]


def test_repeated_events_are_counted() -> None:
    async def story() -> None:
        book = Book()
        recorder = Recorder(book)
        runner = asyncio.create_task(recorder.run())
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        }
        for _ in range(3):
            recorder.event(about, "Why", "because", source="me")
        recorder.event(about, "Why", "otherwise", source="me", warning=True)
        await asyncio.wait_for(recorder.written(), 5)
        first, second = book.events.values()
        assert (first["count"], first["type"], first["message"]) == (3, "Normal", "because")
        assert (second["count"], second["type"]) == (1, "Warning")
        assert first["source"] == {"component": "me"}
        assert first["involvedObject"]["uid"] == "u"
        # Events live an hour: one that is gone is written anew.
        book.events.clear()
        recorder.event(about, "Why", "because", source="me")
        await asyncio.wait_for(recorder.written(), 5)
        assert len(book.events) == 1
        runner.cancel()

    asyncio.run(story())
