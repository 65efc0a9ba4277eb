"""The types of built-in kinds, held against the official client's; and what is decoded by them."""

from __future__ import annotations

import struct
import typing
from typing import Any

import pytest

from pytest_pgo_eks.local.apiserver import protobuf, schema
from pytest_pgo_eks.local.apiserver.problems import Problem
from pytest_pgo_eks.local.apiserver.schema import Type, builtin

_CLIENT_FORMS = {list: "list", dict: "map"}


def _model(name: str) -> Any:
    from kubernetes.client import models

    return getattr(models, f"V1{name}", None) or getattr(models, name, None)


def _form(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Union:
        kinds = [one for one in typing.get_args(annotation) if one is not type(None)]
        return _form(kinds[0])
    if origin is typing.Annotated:
        return _form(typing.get_args(annotation)[0])
    if origin in _CLIENT_FORMS:
        return _CLIENT_FORMS[origin]
    return "one"


def test_every_field_exists_in_the_official_client_in_the_same_form() -> None:
    seen = 0
    for name in schema.names():
        model = _model(name)
        assert model is not None, name
        known = {one.serialization_alias or key: one for key, one in model.model_fields.items()}
        for field, kind in builtin(name).fields.items():
            if (name, field) in {
                ("ManagedFieldsEntry", "fieldsV1"),
                ("ControllerRevision", "data"),
            }:
                continue  # free-form there, and here
            assert field in known, (name, field)
            form = _form(known[field].annotation)
            mine = kind.form if kind.form in {"list", "map"} else "one"
            assert mine == form or kind.name == "any", (name, field)
            seen += 1
    assert seen > 1400


def test_required_fields_are_those_of_the_official_client() -> None:
    for name in schema.names():
        model = _model(name)
        known = {
            one.serialization_alias or key: one.is_required()
            for key, one in model.model_fields.items()
        }
        mine = builtin(name)
        assert mine.required == {field for field in mine.fields if known.get(field)}, name


def test_keys_of_keyed_lists_are_fields_of_their_items() -> None:
    keyed = 0
    for name in schema.names():
        for field, kind in builtin(name).fields.items():
            for key in kind.keys:
                assert kind.form == "list", (name, field)
                assert key in kind.item.fields, (name, field)
                keyed += 1
    assert keyed > 40


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = b""
    while True:
        value, low = value >> 7, value & 0x7F
        found += bytes([low | (0x80 if value else 0)])
        if not value:
            return found


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value & (1 << 64) - 1)


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _envelope(version: str, kind: str, message: bytes) -> bytes:
    what = _text(1, version) + _text(2, kind)
    return b"k8s\x00" + _bytes(1, what) + _bytes(2, message) + _text(3, "") + _text(4, "")


def test_protobuf_is_read_by_field_numbers() -> None:
    labels = _bytes(11, _text(1, "a") + _text(2, "b"))
    when = _bytes(8, _number(1, 1_700_000_000) + _number(2, 0))
    metadata = _text(1, "web") + _text(3, "") + labels + when
    port = _bytes(6, _number(3, 80) + _text(4, "TCP"))
    limits = _bytes(8, _bytes(1, _text(1, "cpu") + _bytes(2, _text(1, "500m"))))
    http = _bytes(2, _text(1, "/") + _bytes(2, _number(1, 1) + _number(2, 0) + _text(3, "web")))
    probe = _bytes(11, _bytes(1, http) + _number(2, -1))
    container = _bytes(2, _text(1, "main") + _text(2, "app") + port + limits + probe)
    volume = _bytes(1, _text(1, "v") + _bytes(2, _bytes(2, b"")))
    spec = volume + container + _number(11, 0)
    data = _envelope("v1", "Pod", _bytes(1, metadata) + _bytes(2, spec) + _bytes(3, b""))
    found = protobuf.decode(data)
    assert found == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "namespace": "",
            "labels": {"a": "b"},
            "creationTimestamp": "2023-11-14T22:13:20Z",
        },
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [
                {
                    "name": "main",
                    "image": "app",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "500m"}},
                    "readinessProbe": {
                        "httpGet": {"path": "/", "port": "web"},
                        "initialDelaySeconds": -1,
                    },
                }
            ],
            "hostNetwork": False,
        },
        "status": {},
    }


def test_protobuf_of_secrets_and_reviews() -> None:
    data = _bytes(2, _text(1, "key") + _bytes(2, b"\x00\xff"))
    assert protobuf.decode(_envelope("v1", "Secret", data))["data"] == {"key": "AP8="}
    extra = _bytes(5, _text(1, "scopes") + _bytes(2, _text(1, "a") + _text(1, "b")))
    review = _bytes(2, _text(3, "me") + extra)
    found = protobuf.decode(_envelope("authorization.k8s.io/v1", "SubjectAccessReview", review))
    assert found["spec"] == {"user": "me", "extra": {"scopes": ["a", "b"]}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"kind":"Pod"}',
        b"k8s\x00",
        _envelope("v1", "Mystery", b""),
        _envelope("v1", "Pod", _bytes(2, b"abc")[:-1]),
        _envelope("v1", "Pod", struct.pack("<I", 7)),
    ],
)
def test_what_is_no_protobuf_of_a_kind_is_refused(data: bytes) -> None:
    with pytest.raises(Problem) as caught:
        protobuf.decode(data)
    assert caught.value.code == 400


def test_a_type_says_what_it_is() -> None:
    ports: Type = builtin("ServiceSpec").fields["ports"]
    assert (ports.keys, ports.key_defaults) == (("port", "protocol"), {"protocol": "TCP"})
    assert builtin("ObjectMeta").fields["finalizers"].is_set
    assert builtin("LabelSelector").atomic
    assert builtin("PodSpec").fields["volumes"].item.retain_keys
    assert not builtin("Volume").retain_keys
    assert builtin("JSONSchemaProps").fields["properties"].item is builtin("JSONSchemaProps")
