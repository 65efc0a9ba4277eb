"""managedFields: who owns what after updates and applies, and when they conflict."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_apiserver.api_bench import (
    WIDGET,
    Bench,
    config_map,
    definition,
    deployment,
    served,
    widget,
)
from pytest_pgo_eks.local.apiserver import fields
from pytest_pgo_eks.local.objects import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINTS,
    SERVICE,
    Obj,
)

_PATHS = st.lists(
    st.lists(st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', "v:1"]), min_size=1, max_size=4),
    max_size=6,
)


def _tree(paths: list[list[str]]) -> fields.Tree:
    tree: fields.Tree = {}
    for path in paths:
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node["."] = True
    return tree


def _set(tree: fields.Tree) -> set[tuple[str, ...]]:
    return set(fields.paths(tree))


@given(_PATHS, _PATHS)
def test_field_sets_behave_as_sets(one: list[list[str]], other: list[list[str]]) -> None:
    a, b = _tree(one), _tree(other)
    assert _set(fields.union(a, b)) == _set(a) | _set(b)
    assert _set(fields.difference(a, b)) == _set(a) - _set(b)
    assert _set(fields.intersection(a, b)) == _set(a) & _set(b)
    assert fields.load(fields.dump(a)) == a
    if a:
        assert fields.overlaps(fields.dump(a), b) is bool(_set(a) & _set(b))
        assert fields.contains(fields.dump(a), b) is (_set(b) <= _set(a))


def _owned(obj: Obj, manager: str, subresource: str = "") -> Any:
    for entry in obj["metadata"].get("managedFields") or []:
        if entry["manager"] == manager and entry.get("subresource", "") == subresource:
            return entry["fieldsV1"]
    return None


@served()
async def test_an_apply_owns_what_it_names(bench: Bench) -> None:
    found = await bench.admin.apply(DEPLOYMENT, deployment(), field_manager="alice")
    entry = found["metadata"]["managedFields"][0]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == (
        "alice",
        "Apply",
        "apps/v1",
    )
    assert entry["fieldsType"] == "FieldsV1"
    assert entry["fieldsV1"] == {
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:containers": {'k:{"name":"main"}': {".": {}, "f:image": {}, "f:name": {}}}
                },
            },
        }
    }


@served()
async def test_a_create_owns_its_fields_and_defaults_but_not_what_admission_adds(
    bench: Bench,
) -> None:
    made = {
        "metadata": {"name": "s", "labels": {"a": "b"}},
        "spec": {"ports": [{"port": 80}], "selector": {"x": "y"}},
    }
    found = await bench.admin.request(
        "POST", SERVICE.path("default"), body=made, query={"fieldManager": "bob"}
    )
    assert _owned(found, "bob") == {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {
            "f:internalTrafficPolicy": {},
            "f:ports": {
                ".": {},
                'k:{"port":80,"protocol":"TCP"}': {
                    ".": {},
                    "f:port": {},
                    "f:protocol": {},
                    "f:targetPort": {},
                },
            },
            "f:selector": {},
            "f:sessionAffinity": {},
            "f:type": {},
        },
    }


@served()
async def test_a_conflict_names_the_other_manager_and_force_takes_over(bench: Bench) -> None:
    admin = bench.admin
    await admin.apply(DEPLOYMENT, deployment(replicas=2), field_manager="alice")
    wanted = deployment(replicas=3)
    with bench.refused(
        409, "Conflict", 'Apply failed with 1 conflict: conflict with "alice": .spec.replicas'
    ):
        await admin.apply(DEPLOYMENT, wanted, field_manager="bob", force=False)
    assert bench.refusal is not None
    assert bench.refusal.details["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "alice"',
            "field": ".spec.replicas",
        }
    ]
    wanted["spec"]["template"]["spec"]["containers"][0]["image"] = "example/app:2"
    with bench.refused(
        409,
        "Conflict",
        'Apply failed with 2 conflicts: conflicts with "alice":\n- .spec.replicas\n'
        '- .spec.template.spec.containers[name="main"].image',
    ):
        await admin.apply(DEPLOYMENT, wanted, field_manager="bob", force=False)
    taken = await admin.apply(DEPLOYMENT, wanted, field_manager="bob", force=True)
    assert taken["spec"]["replicas"] == 3
    assert "f:replicas" not in _owned(taken, "alice")["f:spec"]
    assert "f:replicas" in _owned(taken, "bob")["f:spec"]
    with bench.refused(409, "Conflict", 'with "bob"'):
        await admin.apply(DEPLOYMENT, deployment(), field_manager="alice", force=False)


@served()
async def test_equal_values_are_shared_and_both_must_let_go(bench: Bench) -> None:
    admin = bench.admin
    for manager in ("alice", "bob"):
        await admin.apply(CONFIG_MAP, config_map(a="1", b="2"), field_manager=manager, force=False)
    left = await admin.apply(CONFIG_MAP, config_map(b="2"), field_manager="alice", force=False)
    assert left["data"] == {"a": "1", "b": "2"}
    assert _owned(left, "alice") == {"f:data": {"f:b": {}}}
    gone = await admin.apply(CONFIG_MAP, config_map(b="2"), field_manager="bob", force=False)
    assert gone["data"] == {"b": "2"}
    bare = {**config_map(), "data": {}}
    del bare["data"]
    await admin.apply(CONFIG_MAP, bare, field_manager="alice")
    empty = await admin.apply(CONFIG_MAP, bare, field_manager="bob")
    assert "data" not in empty


@served()
async def test_an_apply_gives_back_the_items_it_no_longer_names(bench: Bench) -> None:
    admin = bench.admin
    wanted = deployment()
    containers = wanted["spec"]["template"]["spec"]["containers"]
    containers.append({"name": "side", "image": "s", "ports": [{"containerPort": 1}]})
    await admin.apply(DEPLOYMENT, wanted, field_manager="alice")
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "tty": True}]}}}}
    await admin.patch(DEPLOYMENT, "web", "default", patch, type="strategic", field_manager="bob")
    containers.pop()
    found = await admin.apply(DEPLOYMENT, wanted, field_manager="alice", force=False)
    left = found["spec"]["template"]["spec"]["containers"]
    assert [one["name"] for one in left] == ["main"]
    assert left[0]["tty"] is True


@served()
async def test_an_update_takes_fields_from_an_applier(bench: Bench) -> None:
    admin = bench.admin
    await admin.apply(CONFIG_MAP, config_map(a="1", b="2"), field_manager="alice")
    found = await admin.patch(
        CONFIG_MAP, "settings", "default", {"data": {"a": "9", "b": None}}, field_manager="bob"
    )
    assert _owned(found, "alice") is None
    assert _owned(found, "bob") == {"f:data": {"f:a": {}}}
    with bench.refused(409, "Conflict", 'conflict with "bob" using v1: .data.a'):
        await admin.apply(CONFIG_MAP, config_map(a="1"), field_manager="alice", force=False)
    found = await admin.patch(
        CONFIG_MAP, "settings", "default", {"data": {"a": None}}, field_manager="carol"
    )
    assert "managedFields" not in found["metadata"]


@served()
async def test_ownership_can_be_handed_over_and_reset(bench: Bench) -> None:
    admin = bench.admin
    found = await admin.apply(CONFIG_MAP, config_map(a="1"), field_manager="alice")
    entries = found["metadata"]["managedFields"]
    entries[0]["manager"] = "bob"
    found = await admin.replace(CONFIG_MAP, found)
    assert [one["manager"] for one in found["metadata"]["managedFields"]] == ["bob"]
    metadata = {name: found["metadata"][name] for name in ("name", "namespace")}
    found = await admin.replace(CONFIG_MAP, {**found, "metadata": metadata})
    assert [one["manager"] for one in found["metadata"]["managedFields"]] == ["bob"]
    reset: Obj = {"metadata": {"managedFields": [{}]}}
    found = await admin.patch(CONFIG_MAP, "settings", "default", reset)
    assert "managedFields" not in found["metadata"]


# With its times: a real server has whoever leaves them out own them too, as null.
_AVAILABLE = {
    "status": "True",
    "lastUpdateTime": "2026-01-01T00:00:00Z",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


@served()
async def test_status_is_owned_through_its_own_door(bench: Bench) -> None:
    admin = bench.admin
    await admin.apply(DEPLOYMENT, deployment(), field_manager="alice")
    status = {
        "status": {"replicas": 2, "conditions": [{**_AVAILABLE, "type": "Available"}]},
        "spec": {"replicas": 7},
    }
    found = await admin.patch(
        DEPLOYMENT, "web", "default", status, sub="status", field_manager="controller"
    )
    assert _owned(found, "controller", "status") == {
        "f:status": {
            "f:conditions": {
                ".": {},
                'k:{"type":"Available"}': {
                    ".": {},
                    "f:lastTransitionTime": {},
                    "f:lastUpdateTime": {},
                    "f:status": {},
                    "f:type": {},
                },
            },
            "f:replicas": {},
        }
    }
    assert "f:status" not in _owned(found, "alice")
    other = {**deployment(), "status": {"replicas": 9}}
    with bench.refused(
        409,
        "Conflict",
        'with "controller" with subresource "status" using apps/v1: .status.replicas',
    ):
        await admin.apply(DEPLOYMENT, other, field_manager="alice", sub="status", force=False)


@served()
async def test_labels_of_two_appliers_live_side_by_side(bench: Bench) -> None:
    admin = bench.admin
    for manager, label in (("alice", "a"), ("bob", "b")):
        made: Obj = {"apiVersion": "v1", "kind": "Endpoints"}
        made["metadata"] = {"name": "db", "namespace": "default", "labels": {label: "1"}}
        found = await admin.apply(ENDPOINTS, made, field_manager=manager, force=False)
    assert found["metadata"]["labels"] == {"a": "1", "b": "1"}
    assert _owned(found, "bob") == {"f:metadata": {"f:labels": {"f:b": {}}}}


@served()
async def test_an_unchanged_apply_is_no_new_version(bench: Bench) -> None:
    first = await bench.admin.apply(DEPLOYMENT, deployment(), field_manager="alice")
    again = await bench.admin.apply(DEPLOYMENT, deployment(), field_manager="alice")
    assert again == first


@served()
async def test_what_an_apply_must_say(bench: Bench) -> None:
    admin, path = bench.admin, CONFIG_MAP.path("default", "settings")
    apply = "application/apply-patch+yaml"
    with bench.refused(422, "Invalid", "fieldManager: Required value: is required for apply patch"):
        await admin.request("PATCH", path, body=config_map(), content_type=apply)
    query = {"fieldManager": "x"}
    with bench.refused(400, "BadRequest", "does not match the name on the URL"):
        await admin.request(
            "PATCH", path, body=config_map("other"), content_type=apply, query=query
        )
    with bench.refused(400, "BadRequest", "managedFields must be nil"):
        made = config_map()
        made["metadata"]["managedFields"] = [{"manager": "y"}]
        await admin.request("PATCH", path, body=made, content_type=apply, query=query)
    with bench.refused(409, "Conflict"):
        made = config_map()
        made["metadata"]["uid"] = "gone"
        await admin.request("PATCH", path, body=made, content_type=apply, query=query)


@served()
async def test_custom_resources_merge_as_their_schema_says(bench: Bench) -> None:
    item = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
    }
    schema = {
        "type": "object",
        "properties": {
            "keyed": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": item,
            },
            "plain": {"type": "array", "items": {"type": "string"}},
            "tags": {
                "type": "array",
                "x-kubernetes-list-type": "set",
                "items": {"type": "string"},
            },
            "whole": {
                "type": "object",
                "x-kubernetes-map-type": "atomic",
                "additionalProperties": {"type": "string"},
            },
        },
    }
    admin = bench.admin
    await bench.define(definition(schema))
    one = widget(keyed=[{"name": "a", "n": 1}], tags=["x"], plain=["p"], whole={"k": "v"})
    await admin.apply(WIDGET, one, field_manager="alice", force=False)
    two = widget(keyed=[{"name": "b", "n": 2}], tags=["y"])
    found = await admin.apply(WIDGET, two, field_manager="bob", force=False)
    assert found["spec"]["keyed"] == [{"name": "a", "n": 1}, {"name": "b", "n": 2}]
    assert found["spec"]["tags"] == ["x", "y"]
    assert _owned(found, "bob")["f:spec"]["f:tags"] == {'v:"y"': {}}
    others: dict[str, Any] = {"plain": ["q"], "whole": {"l": "w"}}
    for name, value in others.items():
        with bench.refused(409, "Conflict", f'conflict with "alice": .spec.{name}'):
            await admin.apply(WIDGET, widget(**{name: value}), field_manager="bob", force=False)


@pytest.mark.parametrize("value", [0, False, "", None])
def test_values_that_python_takes_for_nothing_are_changes_all_the_same(value: Any) -> None:
    from pytest_pgo_eks.local.apiserver.schema import ANY, Type

    kind = Type("map", element=ANY)
    changed, removed = fields.compare({"a": 1}, {"a": value}, kind)
    assert bool(_set(changed) or _set(removed))
