"""Events: counted, in order, bounded, and lost rather than in the way."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.kubelet.events import Recorder

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
}


class Api:
    """Remembers what is written; ``broken`` refuses everything."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.patched: list[tuple[str, dict[str, Any]]] = []
        self.broken = False
        self.forgotten = False

    async def create(self, _kind: object, obj: dict[str, Any]) -> dict[str, Any]:
        if self.broken:
            raise ApiError(500, "", "broken")
        self.created.append(obj)
        return obj

    async def patch(
        self, _kind: object, name: str, _namespace: str, patch: dict[str, Any]
    ) -> dict[str, Any]:
        if self.forgotten:
            raise ApiError(404, "NotFound", name)
        self.patched.append((name, patch))
        return patch


def recording(api: Api, *batches: list[tuple[str, str]]) -> None:
    async def work() -> None:
        recorder = Recorder(cast(ApiClient, api), "node-1")
        task = asyncio.create_task(recorder.run())
        for batch in batches:
            for reason, message in batch:
                recorder.record(POD, reason, message, container="containers{c}", warning=True)
            for _ in range(300):
                await asyncio.sleep(0)
        task.cancel()

    asyncio.run(work())


def test_an_event_names_its_object_and_its_source() -> None:
    api = Api()
    recording(api, [("Unhealthy", "no")])
    (event,) = api.created
    assert event["involvedObject"]["fieldPath"] == "spec.containers{c}"
    assert event["involvedObject"]["uid"] == "u"
    assert event["source"] == {"component": "kubelet", "host": "node-1"}
    assert (event["type"], event["count"]) == ("Warning", 1)
    assert event["metadata"]["name"].startswith("p.")


def test_repeats_are_counted() -> None:
    api = Api()
    recording(api, [("Unhealthy", "no")] * 3, [("Unhealthy", "other")])
    assert [event["message"] for event in api.created] == ["no", "other"]
    assert [patch["count"] for _, patch in api.patched] == [2, 3]


def test_a_count_goes_on_when_the_event_has_expired() -> None:
    api = Api()
    api.forgotten = True
    recording(api, [("Unhealthy", "no")] * 2)
    assert [event["count"] for event in api.created] == [1, 2]
    assert api.created[0]["firstTimestamp"] == api.created[1]["firstTimestamp"]


def test_a_flood_of_one_reason_drowns_no_other() -> None:
    api = Api()
    recording(api, [("Unhealthy", str(i)) for i in range(100)], [("Killing", "c")])
    reasons = [event["reason"] for event in api.created]
    assert reasons.count("Unhealthy") == 25
    assert reasons[-1] == "Killing"


def test_a_refused_event_is_lost_and_nothing_else() -> None:
    api = Api()
    api.broken = True
    recording(api, [("Started", "a")])
    api.broken = False
    recording(api, [("Started", "b")])
    assert [event["message"] for event in api.created] == ["b"]
