"""From a request's body to a clean object, and back to the version that a request speaks."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.local.apiserver import events, structural
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.decode import Decoder
from pytest_pgo_eks.local.apiserver.defaults import DEFAULTS
from pytest_pgo_eks.local.apiserver.problems import bad_request
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.objects import Obj


def decode(call: Call, body: Any, known: Obj | None = None) -> Obj:
    """Return the clean object of a request's body: known fields only, defaulted.

    ``known`` is the object that a patch changed, in the version that the request speaks.

    :raises Problem: 400 for a body of another kind or with values of a wrong type.
    """
    resource = call.resource
    if not isinstance(body, dict):
        raise bad_request("the object provided is unrecognized (must be of type object)")
    version = body.get("apiVersion") or resource.api_version
    kind = body.get("kind") or resource.kind
    if (version, kind) != (resource.api_version, resource.kind):
        what, found, wanted = "API version", version, resource.api_version
        if kind != resource.kind:
            what, found, wanted = "kind", kind, resource.kind
        raise bad_request(
            f"the {what} in the data ({found}) does not match the expected {what} ({wanted})"
        )
    decoder = Decoder(kind, resource.version)
    if resource.custom:
        obj = structural.take(body, resource, decoder)
    else:
        obj = decoder.object(body, resource.type, known)
    stored_as = resource.stored_as or resource.api_version
    obj = {"apiVersion": stored_as, "kind": resource.kind, **_rest(obj)}
    obj.setdefault("metadata", {})
    _report(call, decoder, kind, resource.version)
    if resource.group == "events.k8s.io":
        obj = events.to_core(obj)
    default = DEFAULTS.get(resource.storage)
    if default is not None:
        default(obj)
    return obj


def _report(call: Call, decoder: Decoder, kind: str, version: str) -> None:
    if not decoder.unknown or call.silent:
        return
    if call.strict:
        said = ", ".join(f'unknown field "{name}"' for name in decoder.unknown)
        raise bad_request(
            f'{kind} in version "{version}" cannot be handled as a {kind}: '
            f"strict decoding error: {said}"
        )
    call.warnings += [f'unknown field "{name}"' for name in decoder.unknown]


def configuration(call: Call, config: Obj) -> Obj:
    """Check an applied configuration's types, and report fields that are not known."""
    resource = call.resource
    decoder = Decoder(resource.kind, resource.version)
    if resource.custom:
        obj = structural.take(config, resource, decoder, fill=False)
    else:
        obj = decoder.object(config, resource.type)
    _report(call, decoder, resource.kind, resource.version)
    metadata = {"name": call.name, **(obj.get("metadata") or {})}
    if resource.namespaced:
        metadata["namespace"] = call.namespace
    return {
        **obj,
        "apiVersion": config["apiVersion"],
        "kind": config["kind"],
        "metadata": metadata,
    }


def _rest(obj: Obj) -> Obj:
    return {name: value for name, value in obj.items() if name not in {"apiVersion", "kind"}}


def shown_as(resource: Resource, obj: Obj) -> Obj:
    """Return a stored object in the resource's own version."""
    if resource.group == "events.k8s.io":
        return events.from_core(obj)
    if obj["apiVersion"] == resource.api_version:
        return obj
    return {**obj, "apiVersion": resource.api_version}
