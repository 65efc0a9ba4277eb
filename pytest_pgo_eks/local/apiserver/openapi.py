"""OpenAPI documents, made from the types: enough for kubectl to validate, patch and explain."""

from __future__ import annotations

import hashlib
from typing import Any

from pytest_pgo_eks.local.apiserver.resources import Registry, Resource
from pytest_pgo_eks.local.apiserver.schema import Type
from pytest_pgo_eks.local.objects import Obj

_SCALARS: dict[str, Obj] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "num": {"type": "number"},
    "bool": {"type": "boolean"},
    "bytes": {"type": "string", "format": "byte"},
    "time": {"type": "string", "format": "date-time"},
    "microtime": {"type": "string", "format": "date-time"},
    "qty": {"type": "string"},
    "intstr": {"type": "string", "format": "int-or-string"},
    # Not empty: "kubectl explain --recursive" refuses a schema that says nothing.
    "any": {"description": "Any JSON value."},
}
_QUERY = ("pretty", "dryRun", "fieldManager", "fieldValidation", "force")
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)


PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def _proto(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


# kubectl reads version 2 as protobuf only, and only for a kind that version 3 does not know: an
# empty document (swagger, info with title and version) says that nobody knows it.
_INFO = _proto(1, b"Kubernetes stand-in") + _proto(2, b"v1.34.0+stand-in")
V2_PROTOBUF = _proto(1, b"2.0") + _proto(2, _INFO)


def document(registry: Registry, path: list[str]) -> Obj | None:
    """Return ``/openapi/v2``, ``/openapi/v3`` or one version's ``/openapi/v3/apis/GROUP/VERSION``."""
    if path == ["v2"]:
        return _v2(registry)
    if path == ["v3"]:
        return {"paths": {where: {"serverRelativeURL": url} for where, url in _index(registry)}}
    if path[:2] == ["v3", "api"] and len(path) == 3:
        return _v3(registry, "", path[2])
    if path[:2] == ["v3", "apis"] and len(path) == 4:
        return _v3(registry, path[2], path[3])
    return None


def _index(registry: Registry) -> list[tuple[str, str]]:
    found = []
    for group, versions in registry.groups().items():
        for version in versions:
            where = f"apis/{group}/{version}" if group else f"api/{version}"
            known = ",".join(sorted(_stamp(one) for one in registry if one.group == group))
            digest = hashlib.sha256(known.encode()).hexdigest().upper()
            found.append((where, f"/openapi/v3/{where}?hash={digest}"))
    return found


def _stamp(resource: Resource) -> str:
    return f"{resource.kind}/{resource.version}/{hash(str(resource.type.rules))}"


class _Components:
    """The schemas that a document needs, collected while they are referred to."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.found: dict[str, Obj] = {}

    def of_resource(self, resource: Resource) -> str:
        """Add a resource's kind; return its name."""
        name = _name(resource)
        if name not in self.found:
            self.found[name] = {}
            schema = self._struct(resource.type)
            if resource.custom and resource.type.rules:
                schema = {**resource.type.rules, "properties": schema["properties"]}
            kinds = [_gvk(resource)]
            self.found[name] = {**schema, "x-kubernetes-group-version-kind": kinds}
        return name

    def _value(self, kind: Type) -> Obj:
        if kind.rules is not None:
            return dict(kind.rules)
        if kind.form == "struct" and kind.name:
            name = f"io.k8s.api.v1.{kind.name}"
            if name not in self.found:
                self.found[name] = {}
                self.found[name] = self._struct(kind)
            # A bare $ref: kubectl takes a oneOf or an allOf around it for another type.
            return {"$ref": self.root + name}
        if kind.form == "struct":
            return self._struct(kind)
        if kind.form == "list":
            return {"type": "array", "items": self._value(kind.item)}
        if kind.form == "map":
            return {"type": "object", "additionalProperties": self._value(kind.item)}
        return dict(_SCALARS[kind.name])

    def _struct(self, kind: Type) -> Obj:
        properties = {
            name: self._value(inner) | _merging(inner)
            for name, inner in sorted(kind.fields.items())
        }
        found: Obj = {"type": "object", "properties": properties}
        if kind.required:
            found["required"] = sorted(kind.required)
        return found


def _merging(kind: Type) -> Obj:
    """Say how kubectl computes a strategic-merge patch of a list, and what server-side apply does."""
    if kind.rules is not None or kind.form != "list":
        return {}
    if kind.is_set:
        return {"x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"}
    if not kind.keys:
        return {"x-kubernetes-list-type": "atomic"}
    return {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(kind.keys),
        "x-kubernetes-patch-merge-key": kind.keys[0],
        "x-kubernetes-patch-strategy": "merge,retainKeys" if kind.item.retain_keys else "merge",
    }


def _gvk(resource: Resource) -> Obj:
    return {"group": resource.group, "kind": resource.kind, "version": resource.version}


def _name(resource: Resource) -> str:
    if not resource.custom:
        group = (resource.group or "core").split(".")[0]
        return f"io.k8s.api.{group}.{resource.version}.{resource.kind}"
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _paths(resource: Resource, schema: Obj, *, v3: bool) -> Obj:
    root = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    where = f"{root}/namespaces/{{namespace}}" if resource.namespaced else root
    collection = f"{where}/{resource.plural}"
    found: Obj = {}
    single: Obj = {"parameters": _in_path(resource, name=True, v3=v3)}
    for verb, method, action in (
        ("get", "get", "get"),
        ("update", "put", "put"),
        ("patch", "patch", "patch"),
        ("delete", "delete", "delete"),
    ):
        if verb in resource.verbs:
            single[method] = _operation(resource, action, schema, v3=v3)
    if len(single) > 1:
        found[f"{collection}/{{name}}"] = single
    many: Obj = {"parameters": _in_path(resource, name=False, v3=v3)}
    if "list" in resource.verbs:
        many["get"] = _operation(resource, "list", {}, v3=v3)
    if "create" in resource.verbs:
        many["post"] = _operation(resource, "post", schema, v3=v3)
    found[collection] = many
    return found


def _in_path(resource: Resource, *, name: bool, v3: bool) -> list[Obj]:
    names = (["namespace"] if resource.namespaced else []) + (["name"] if name else [])
    text: Obj = {"schema": {"type": "string"}} if v3 else {"type": "string"}
    return [{"name": one, "in": "path", "required": True, **text} for one in names]


def _operation(resource: Resource, action: str, schema: Obj, *, v3: bool) -> Obj:
    text: Any = {"schema": {"type": "string"}} if v3 else {"type": "string"}
    query = _QUERY if action in {"put", "post", "patch"} else ("pretty",)
    found: Obj = {
        "operationId": f"{action}{resource.kind}{resource.version}{resource.plural}",
        "parameters": [{"name": one, "in": "query", **text} for one in query],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource),
    }
    good: Obj = {"description": "OK"}
    if v3 and schema:
        good["content"] = {"application/json": {"schema": schema}}
    elif schema:
        good["schema"] = schema
    found["responses"] = {"200": good}
    if v3 and action in {"put", "post"}:
        found["requestBody"] = {"content": {"*/*": {"schema": schema}}}
    elif v3 and action == "patch":
        kinds = [one for one in _PATCHES if not (resource.custom and "strategic" in one)]
        found["requestBody"] = {"content": {one: {"schema": {"type": "object"}} for one in kinds}}
    if not v3:
        found["consumes"] = list(_PATCHES) if action == "patch" else ["*/*"]
        found["produces"] = ["application/json"]
    return found


def _v3(registry: Registry, group: str, version: str) -> Obj | None:
    mine = [one for one in registry if one.group == group and one.version == version]
    if not mine:
        return None
    components = _Components("#/components/schemas/")
    paths: Obj = {}
    for one in mine:
        name = components.of_resource(one)
        paths |= _paths(one, {"$ref": components.root + name}, v3=True)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes stand-in", "version": "v1.34.0+stand-in"},
        "paths": paths,
        "components": {"schemas": components.found},
    }


def _v2(registry: Registry) -> Obj:
    components = _Components("#/definitions/")
    paths: Obj = {}
    for one in registry:
        name = components.of_resource(one)
        paths |= _paths(one, {"$ref": components.root + name}, v3=False)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes stand-in", "version": "v1.34.0+stand-in"},
        "paths": paths,
        "definitions": components.found,
    }
