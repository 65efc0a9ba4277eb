"""Tables: what ``kubectl get`` shows of every kind."""

from __future__ import annotations

import time
from typing import Any

import pytest

from local_apiserver.api_bench import (
    WIDGET,
    Bench,
    config_map,
    definition,
    deployment,
    pod,
    served,
    service,
    widget,
)
from pytest_pgo_eks.local.apiserver import jsonpath, printers, tables, times
from pytest_pgo_eks.local.apiserver.pod_printer import cells
from pytest_pgo_eks.local.apiserver.resources import Registry
from pytest_pgo_eks.local.objects import (
    CONFIG_MAP,
    DEPLOYMENT,
    POD,
    SERVICE,
    Kind,
    Obj,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (660, "11m"),
        (10800, "3h"),
        (11460, "3h11m"),
        (36000, "10h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (864000, "10d"),
        (63072000, "2y"),
        (-1, "0s"),
    ],
)
def test_durations_read_as_kubectl_writes_them(seconds: float, text: str) -> None:
    assert times.human(seconds) == text


def _pod(phase: str = "Running", *states: Obj, **more: Any) -> Obj:
    statuses = [{"name": f"c{at}", "restartCount": 0, **one} for at, one in enumerate(states)]
    names = [{"name": one["name"]} for one in statuses]
    metadata = {"name": "p", **more.pop("metadata", {})}
    status = {"phase": phase, "containerStatuses": statuses, **more.pop("status", {})}
    return {"metadata": metadata, "spec": {"containers": names, **more}, "status": status}


_UP: Obj = {"ready": True, "state": {"running": {}}}
_DONE: Obj = {"ready": False, "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}


def _waits(reason: str) -> Obj:
    return {"ready": False, "state": {"waiting": {"reason": reason}}}


@pytest.mark.parametrize(
    ("obj", "ready", "word"),
    [
        (_pod("Pending"), "0/0", "Pending"),
        (_pod("Running", _UP, _UP), "2/2", "Running"),
        (_pod("Running", _UP, _waits("CrashLoopBackOff")), "1/2", "CrashLoopBackOff"),
        (_pod("Pending", _waits("ContainerCreating")), "0/1", "ContainerCreating"),
        (_pod("Succeeded", _DONE), "0/1", "Completed"),
        (_pod("Running", _UP, _DONE), "1/2", "NotReady"),
        (
            _pod(
                "Running", _UP, _DONE, status={"conditions": [{"type": "Ready", "status": "True"}]}
            ),
            "1/2",
            "Running",
        ),
        (_pod("Failed", {"state": {"terminated": {"exitCode": 3}}}), "0/1", "ExitCode:3"),
        (_pod("Failed", {"state": {"terminated": {"signal": 9}}}), "0/1", "Signal:9"),
        (_pod("Running", _UP, metadata={"deletionTimestamp": "x"}), "1/1", "Terminating"),
        (_pod("Failed", status={"reason": "Evicted"}), "0/0", "Evicted"),
        (
            _pod(
                "Pending",
                _waits("PodInitializing"),
                initContainers=[{"name": "i"}, {"name": "j"}],
                status={"initContainerStatuses": [_DONE | {"name": "i"}, _UP | {"name": "j"}]},
            ),
            "0/1",
            "Init:1/2",
        ),
        (
            _pod(
                "Pending",
                initContainers=[{"name": "i"}],
                status={"initContainerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]},
            ),
            "0/0",
            "Init:ExitCode:1",
        ),
    ],
)
def test_one_word_says_how_a_pod_is(obj: Obj, ready: str, word: str) -> None:
    assert cells(obj)[1:3] == [ready, word]


def test_restarts_say_when_the_last_one_was() -> None:
    ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 300))
    again = _UP | {"restartCount": 2, "lastState": {"terminated": {"finishedAt": ended}}}
    assert cells(_pod("Running", again))[3] in {"2 (5m ago)", "2 (5m1s ago)"}


def test_every_kind_that_kubectl_lists_has_columns_and_cells() -> None:
    for resource in Registry():
        if "list" not in resource.verbs:
            continue
        obj: Obj = {"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}}
        obj |= {"spec": {}, "status": {}}
        table = tables.table(resource, [obj], "v1", "Metadata")
        columns = table["columnDefinitions"]
        assert len(columns) == len(table["rows"][0]["cells"]), resource.plural
        narrow = [one["name"] for one in columns if not one["priority"]]
        assert ("Name" in narrow) is (resource.plural != "events")
    assert set(printers.PRINTERS) <= {one.storage for one in Registry()}


async def _table(bench: Bench, kind: Kind, **query: str) -> tuple[list[str], list[list[Any]]]:
    admin = bench.admin
    headers = admin._headers() | {
        "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    }
    url = admin.url + kind.path("default")
    async with admin._open().get(url, headers=headers, params=query) as answer:
        found = await answer.json()
    assert (found["kind"], found["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    columns = [one["name"] for one in found["columnDefinitions"] if not one["priority"]]
    return columns, [row["cells"] for row in found["rows"]]


@served()
async def test_tables_of_what_is_there(bench: Bench) -> None:
    admin = bench.admin
    await admin.create(POD, pod(), "default")
    columns, rows = await _table(bench, POD)
    assert columns == ["Name", "Ready", "Status", "Restarts", "Age"]
    assert rows[0][:4] == ["web", "0/1", "Pending", "0"]
    await admin.create(DEPLOYMENT, deployment(), "default")
    columns, rows = await _table(bench, DEPLOYMENT)
    assert columns == ["Name", "Ready", "Up-to-date", "Available", "Age"]
    assert rows[0][:4] == ["web", "0/2", 0, 0]
    assert rows[0][5:] == ["main", "example/app:1", "app=web"]
    await admin.create(SERVICE, service(clusterIP="10.96.1.1"), "default")
    columns, rows = await _table(bench, SERVICE, fieldSelector="metadata.name=web")
    assert columns == ["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age"]
    assert rows[0][:5] == ["web", "ClusterIP", "10.96.1.1", "<none>", "80/TCP"]
    await admin.create(CONFIG_MAP, config_map(a="1", b="2"), "default")
    columns, rows = await _table(bench, CONFIG_MAP)
    assert (columns, rows[0][:2]) == (["Name", "Data", "Age"], ["settings", 2])


@served()
async def test_custom_resources_bring_their_columns(bench: Bench) -> None:
    columns = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {
            "name": "Ready",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
        },
        {"name": "Born", "type": "date", "jsonPath": ".metadata.creationTimestamp", "priority": 1},
    ]
    schema = {"type": "object", "properties": {"size": {"type": "integer"}}}
    made = definition(schema, additionalPrinterColumns=columns)
    await bench.define(made)
    await bench.admin.create(WIDGET, widget(size=3), "default")
    shown, rows = await _table(bench, WIDGET)
    assert shown == ["Name", "Size", "Ready"]
    assert rows == [["one", 3, None, rows[0][3]]]
    assert rows[0][3].endswith("s")
    conditions = [{"type": "Old", "status": "x"}, {"type": "Ready", "status": "True"}]
    status = {"status": {"conditions": conditions}}
    await bench.admin.patch(WIDGET, "one", "default", status, sub="status")
    _, rows = await _table(bench, WIDGET)
    assert rows[0][:3] == ["one", 3, "True"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", 1),
        ("{.a.b}", 1),
        (".list[1].n", "y"),
        (".list[?(@.k=='2')].n", "y"),
        (".list[*].n", "x"),
        (r".a.x\.io/y", "dotted"),
        (".a['x.io/y']", "dotted"),
        (".none.b", None),
        (".list[7]", None),
        (".a.b.c", None),
    ],
)
def test_json_paths_of_columns(path: str, found: Any) -> None:
    obj = {"a": {"b": 1, "x.io/y": "dotted"}, "list": [{"k": 1, "n": "x"}, {"k": 2, "n": "y"}]}
    assert jsonpath.look(obj, path) == found
