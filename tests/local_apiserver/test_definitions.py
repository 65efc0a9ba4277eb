"""CustomResourceDefinitions: serving, pruning, defaulting, validating, versions, removal."""

from __future__ import annotations

from typing import Any

import pytest

from local_apiserver.api_bench import WIDGET, Bench, definition, served, watching, widget
from pytest_pgo_eks.local.apiserver import structural
from pytest_pgo_eks.local.objects import CUSTOM_RESOURCE_DEFINITION as CRD
from pytest_pgo_eks.local.objects import Kind, Obj

_SCHEMA: Obj = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "port": {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
        },
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "maybe": {"type": "string", "nullable": True},
        "options": {
            "type": "object",
            "properties": {"depth": {"type": "integer", "default": 3}},
        },
        "items": {
            "type": "array",
            "minItems": 1,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["key"],
            "items": {
                "type": "object",
                "required": ["key"],
                "properties": {
                    "key": {"type": "string"},
                    "on": {"type": "boolean", "default": True},
                },
            },
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


@served()
async def test_a_definition_is_established_and_served(bench: Bench) -> None:
    admin = bench.admin
    with bench.refused(404, "", "404 page not found"):
        await admin.list(WIDGET, "default")
    made = await bench.define(definition(_SCHEMA))
    conditions = {one["type"]: one["status"] for one in made["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["spec"]["names"]["listKind"] == "WidgetList"
    group = await admin.request("GET", "/apis/example.com/v1")
    assert [one["name"] for one in group["resources"]] == ["widgets", "widgets/status"]
    assert group["resources"][0]["shortNames"] == ["wd"]
    assert "example.com" in str(await admin.request("GET", "/apis"))
    assert "/apis/example.com/v1" in str(await admin.request("GET", "/"))
    found = await admin.create(WIDGET, widget(size=1), "default")
    assert found["metadata"]["generation"] == 1
    listed = await admin.request("GET", WIDGET.path("default"))
    assert (listed["kind"], len(listed["items"])) == ("WidgetList", 1)


@served()
async def test_unknown_fields_are_pruned_and_defaults_filled_in(bench: Bench) -> None:
    admin = bench.admin
    await bench.define(definition(_SCHEMA))
    given: Obj = widget(
        size=2,
        odd=1,
        free={"any": {"thing": [1]}},
        port="http",
        maybe=None,
        mode=None,
        options={"deep": 1},
        items=[{"key": "a", "odd": 1}],
        labels={"a": "b"},
    )
    given["odd"] = 1
    spec = (await admin.create(WIDGET, given, "default"))["spec"]
    assert spec == {
        "size": 2,
        "mode": "fast",
        "free": {"any": {"thing": [1]}},
        "port": "http",
        "maybe": None,
        "options": {"depth": 3},
        "items": [{"key": "a", "on": True}],
        "labels": {"a": "b"},
    }
    assert "odd" not in await admin.get(WIDGET, "one", "default")


@served()
async def test_what_contradicts_the_schema_is_invalid(bench: Bench) -> None:
    admin = bench.admin
    await bench.define(definition(_SCHEMA))
    cases: list[tuple[Obj, str]] = [
        ({}, "spec.size: Required value"),
        ({"size": 0}, "spec.size in body should be greater than or equal to 1"),
        ({"size": 10}, "spec.size in body should be less than or equal to 9"),
        ({"size": "x"}, 'spec.size in body must be of type integer: "string"'),
        ({"size": 1.5}, 'spec.size in body must be of type integer: "number"'),
        ({"size": True}, 'spec.size in body must be of type integer: "boolean"'),
        ({"mode": "odd"}, 'spec.mode: Unsupported value: "odd": supported values: "fast", "slow"'),
        ({"name": "A"}, "spec.name in body should match '^[a-z]+$'"),
        ({"name": "abcdef"}, "spec.name: Too long: may not be more than 5 bytes"),
        ({"port": 1.5}, "must be of type integer,string"),
        ({"items": []}, "spec.items in body should have at least 1 items"),
        ({"items": [{}]}, "spec.items[0].key: Required value"),
        ({"items": [{"key": "a"}, {"key": "a"}]}, 'spec.items[1]: Duplicate value: {"key":"a"}'),
        ({"items": {}}, 'spec.items in body must be of type array: "object"'),
        ({"labels": {"a": 1}}, 'spec.labels.a in body must be of type string: "integer"'),
        ({"size": None}, "spec.size: Required value"),
    ]
    for given, said in cases:
        spec: Obj = {"size": 1} | given if given else {}
        with bench.refused(422, "Invalid", 'Widget.example.com "one" is invalid', said):
            await admin.create(WIDGET, widget(**spec), "default")
            pytest.fail(f"{given} was accepted")
    made = await admin.create(WIDGET, widget(size=1, name=None), "default")
    assert "name" not in made["spec"]
    with bench.refused(422, "Invalid", "spec.size"):
        await admin.patch(WIDGET, "one", "default", {"spec": {"size": 0}})
    strategic = "application/strategic-merge-patch+json"
    with bench.refused(415, "UnsupportedMediaType"):
        await admin.request("PATCH", WIDGET.path("default", "one"), body={}, content_type=strategic)
    fresh = widget(size=2)
    with bench.refused(422, "Invalid", "metadata.resourceVersion: Invalid value"):
        await admin.replace(WIDGET, fresh)


def test_combinations_of_schemas() -> None:
    def wrong(value: Any, **rules: Any) -> int:
        return len(list(structural._errors(value, rules, ".x")))

    both = [{"minimum": 2}, {"maximum": 4}]
    assert [wrong(n, allOf=both) for n in (1, 3, 5)] == [1, 0, 1]
    either = [{"type": "string"}, {"type": "integer"}]
    assert [wrong(v, anyOf=either) for v in ("a", 1, True)] == [0, 0, 1]
    one = [{"minimum": 2}, {"minimum": 4}]
    assert [wrong(n, oneOf=one) for n in (1, 3, 5)] == [1, 0, 1]
    negated = {"not": {"enum": ["a"]}}
    assert [wrong(v, **negated) for v in ("a", "b")] == [1, 0]


@served()
async def test_generation_and_status_of_custom_resources(bench: Bench) -> None:
    admin = bench.admin
    await bench.define(definition(_SCHEMA))
    made = {**widget(size=1), "status": {"phase": "Given"}}
    assert "status" not in await admin.create(WIDGET, made, "default")
    both = {"spec": {"size": 5}, "status": {"phase": "Seen"}, "metadata": {"labels": {"a": "b"}}}
    found = await admin.patch(WIDGET, "one", "default", both, sub="status")
    assert found["status"] == {"phase": "Seen"}
    assert (found["spec"]["size"], found["metadata"]["generation"]) == (1, 1)
    assert "labels" not in found["metadata"]
    found = await admin.patch(WIDGET, "one", "default", both)
    assert (found["spec"]["size"], found["metadata"]["generation"]) == (5, 2)
    assert found["metadata"]["labels"] == {"a": "b"}


@served()
async def test_every_served_version_shows_the_same_objects(bench: Bench) -> None:
    admin = bench.admin
    made = definition(_SCHEMA)
    old = {**made["spec"]["versions"][0], "name": "v1beta1", "storage": False}
    made["spec"]["versions"].append(old)
    await bench.define(made)
    beta = Kind("example.com/v1beta1", "Widget", "widgets")
    async with watching(admin, WIDGET) as new, watching(admin, beta) as other:
        given = {**widget(size=1), "apiVersion": "example.com/v1beta1"}
        found = await admin.create(beta, given, "default")
        assert found["apiVersion"] == "example.com/v1beta1"
        assert (await admin.get(WIDGET, "one", "default"))["apiVersion"] == "example.com/v1"
        assert (await new.full()).object["apiVersion"] == "example.com/v1"
        assert (await other.full()).object["apiVersion"] == "example.com/v1beta1"
    listed = await admin.request("GET", beta.path("default"))
    assert listed["items"][0]["apiVersion"] == "example.com/v1beta1"
    with bench.refused(400, "BadRequest", "does not match the expected API version"):
        await admin.create(WIDGET, {**given, "metadata": {"name": "two"}}, "default")
    versions = [{**made["spec"]["versions"][0]}, {**old, "served": False}]
    await admin.patch(CRD, "widgets.example.com", None, {"spec": {"versions": versions}})
    with bench.refused(404, "", "404 page not found"):
        await admin.get(beta, "one", "default")
    assert (await admin.get(WIDGET, "one", "default"))["spec"]["size"] == 1


@served()
async def test_scale_of_a_custom_resource(bench: Bench) -> None:
    admin = bench.admin
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    subresources = {"status": {}, "scale": scale}
    await bench.define(definition(_SCHEMA, subresources=subresources))
    await admin.create(WIDGET, widget(size=1), "default")
    found = await admin.get(WIDGET, "one", "default", "scale")
    assert (found["kind"], found["spec"], found["status"]) == (
        "Scale",
        {"replicas": 1},
        {"replicas": 0},
    )
    await admin.patch(WIDGET, "one", "default", {"spec": {"replicas": 4}}, sub="scale")
    assert (await admin.get(WIDGET, "one", "default"))["spec"]["size"] == 4


@served()
async def test_a_definition_goes_after_its_objects(bench: Bench) -> None:
    admin = bench.admin
    await bench.define(definition(_SCHEMA))
    held = widget("held", size=1)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await admin.create(WIDGET, held, "default")
    await admin.create(WIDGET, widget(size=1), "default")
    async with watching(admin, WIDGET) as watched:
        marked = await admin.delete(CRD, "widgets.example.com")
        assert marked["metadata"]["deletionTimestamp"]
        seen = {await watched.next(), await watched.next()}
        assert seen == {("DELETED", "one"), ("MODIFIED", "held")}
        assert await admin.find(CRD, "widgets.example.com") is not None
        await admin.patch(WIDGET, "held", "default", {"metadata": {"finalizers": None}})
        assert await watched.next() == ("DELETED", "held")
        await watched.ended.wait()
    assert await admin.find(CRD, "widgets.example.com") is None
    with bench.refused(404, "", "404 page not found"):
        await admin.list(WIDGET, "default")
    await bench.define(definition(_SCHEMA))
    assert (await admin.list(WIDGET, "default")).items == []


@served()
async def test_definitions_that_cannot_be_served_are_refused(bench: Bench) -> None:
    admin = bench.admin

    def broken(**spec: Any) -> Obj:
        found = definition(_SCHEMA)
        found["spec"] |= spec
        return found

    version = definition(_SCHEMA)["spec"]["versions"][0]
    for spec, said in (
        ({"scope": "World"}, 'spec.scope: Unsupported value: "World"'),
        ({"group": "example.org"}, "must be spec.names.plural+"),
        ({"versions": [{**version, "storage": False}]}, "exactly one version marked as storage"),
        (
            {"versions": [{**version, "schema": None}]},
            "spec.versions[0].schema.openAPIV3Schema: Required value",
        ),
        ({"names": {"plural": "widgets"}}, "spec.names.kind: Required value"),
    ):
        with bench.refused(422, "Invalid", said):
            await admin.create(CRD, broken(**spec))
