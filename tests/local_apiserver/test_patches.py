"""The three patch languages, as functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pgo_eks.local.apiserver.patches import json_patch, merge, strategic
from pytest_pgo_eks.local.apiserver.problems import Problem
from pytest_pgo_eks.local.apiserver.schema import builtin

_POD = builtin("Pod")
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b", "c": 1}, {"a": None}, {"c": 1}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": 1}]}, {"a": [1]}, {"a": [1]}),
        (["a"], {"a": 1}, {"a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": 1}, ["x"], ["x"]),
    ],
)
def test_merge_patches_follow_the_rfc(target: Any, patch: Any, expected: Any) -> None:
    assert merge(target, patch) == expected


@given(_JSON, _JSON)
def test_a_merge_patch_applied_twice_is_applied_once(target: Any, patch: Any) -> None:
    once = merge(target, patch)
    assert merge(once, patch) == once


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/b", "value": 1}], {"a": [1, 2], "b": 1}),
        ([{"op": "add", "path": "/a/0", "value": 0}], {"a": [0, 1, 2]}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "replace", "path": "/a/1", "value": 9}], {"a": [1, 9]}),
        ([{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1, 2], "b": [1, 2]}),
        ([{"op": "move", "from": "/a", "path": "/x~1y"}], {"x/y": [1, 2]}),
        ([{"op": "test", "path": "/a/0", "value": 1}, {"op": "remove", "path": "/a"}], {}),
    ],
)
def test_json_patches_follow_the_rfc(operations: Any, expected: Any) -> None:
    target = {"a": [1, 2]}
    assert json_patch(target, operations) == expected
    assert target == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("operations", "code", "said"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], 422, "testing value /a failed"),
        ([{"op": "remove", "path": "/none"}], 422, "missing key: /none"),
        ([{"op": "replace", "path": "/x/y", "value": 1}], 422, "missing path"),
        ([{"op": "bend", "path": "/a"}], 422, "Unexpected kind: bend"),
        ([{"path": "/a"}], 400, "op and path"),
        ({"a": 1}, 400, "cannot unmarshal object"),
    ],
)
def test_json_patches_that_do_not_fit_are_refused(operations: Any, code: int, said: str) -> None:
    with pytest.raises(Problem) as caught:
        json_patch({"a": 1}, operations)
    assert caught.value.code == code
    assert said in caught.value.message


def _containers(*found: Any) -> Any:
    return {"spec": {"containers": list(found)}}


def test_lists_with_a_merge_key_merge_by_it() -> None:
    old = _containers(
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}
    )
    patch = _containers(
        {"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "3"}]},
        {"name": "c", "image": "3"},
    )
    assert strategic(old, patch, _POD) == _containers(
        {
            "name": "a",
            "image": "1",
            "env": [{"name": "X", "value": "3"}, {"name": "Y", "value": "2"}],
        },
        {"name": "b"},
        {"name": "c", "image": "3"},
    )


def test_other_lists_are_replaced() -> None:
    old = {
        "spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}
    }
    patch = {"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}}
    assert strategic(old, patch, _POD) == patch


def test_directives_delete_replace_and_order() -> None:
    old = _containers({"name": "a"}, {"name": "b"}, {"name": "c"})
    deleted = _containers({"name": "b", "$patch": "delete"})
    assert strategic(old, deleted, _POD) == _containers({"name": "a"}, {"name": "c"})
    replaced = _containers({"$patch": "replace"}, {"name": "z"})
    assert strategic(old, replaced, _POD) == _containers({"name": "z"})
    ordered = {
        "spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
            "containers": [{"name": "b", "image": "2"}],
        }
    }
    found = strategic(old, ordered, _POD)["spec"]["containers"]
    assert [one["name"] for one in found] == ["c", "a", "b"]
    assert found[2]["image"] == "2"
    whole = {"metadata": {"labels": {"$patch": "replace", "a": "1"}}}
    assert strategic({"metadata": {"labels": {"b": "2"}}}, whole, _POD) == {
        "metadata": {"labels": {"a": "1"}}
    }


def test_volumes_keep_only_the_retained_source() -> None:
    old = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    patch = {
        "spec": {
            "volumes": [
                {"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}
            ]
        }
    }
    assert strategic(old, patch, _POD)["spec"]["volumes"] == [
        {"name": "v", "configMap": {"name": "c"}}
    ]


def test_finalizers_and_owners_merge_as_sets() -> None:
    old = {
        "metadata": {"finalizers": ["a/x", "b/x"], "ownerReferences": [{"uid": "1", "name": "n"}]}
    }
    patch = {
        "metadata": {
            "finalizers": ["c/x"],
            "$deleteFromPrimitiveList/finalizers": ["a/x"],
            "ownerReferences": [{"uid": "2", "name": "m"}],
        }
    }
    found = strategic(old, patch, _POD)["metadata"]
    assert sorted(found["finalizers"]) == ["b/x", "c/x"]
    assert [one["uid"] for one in found["ownerReferences"]] == ["1", "2"]


def test_a_keyed_list_item_without_its_key_is_refused() -> None:
    with pytest.raises(Problem, match="does not contain declared merge key: name"):
        strategic(_containers({"name": "a"}), _containers({"image": "x"}), _POD)
