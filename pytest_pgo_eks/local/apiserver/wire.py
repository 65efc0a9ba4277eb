"""Bodies in, answers out: content types, JSON, YAML and Status objects over HTTP."""

from __future__ import annotations

import json
from typing import Any

import yaml
from aiohttp import web

from pytest_pgo_eks.local.apiserver import problems, protobuf
from pytest_pgo_eks.local.apiserver.authorization import Attributes
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.front import Target
from pytest_pgo_eks.local.apiserver.problems import Problem
from pytest_pgo_eks.local.apiserver.store import encode
from pytest_pgo_eks.local.objects import Obj

JSON = "application/json"
BODY_LIMIT = 8 * 1024 * 1024
_TYPES = ("application/json", "application/yaml", protobuf.CONTENT_TYPE)


def asked_for(request: web.BaseRequest, target: Target) -> Attributes:
    method = request.method
    if method in {"GET", "HEAD"}:
        watching = request.query.get("watch", "").lower() in {"true", "1"}
        verb = "get" if target.name else "watch" if watching else "list"
    elif method == "DELETE":
        verb = "delete" if target.name else "deletecollection"
    else:
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())
    return Attributes(
        verb, target.group, target.resource, target.subresource, target.namespace, target.name
    )


def deleted(call: Call, obj: Obj) -> Obj:
    details: Obj = {"name": obj["metadata"]["name"], "kind": call.resource.plural}
    if call.resource.group:
        details["group"] = call.resource.group
    details["uid"] = obj["metadata"]["uid"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }


def reply(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type=JSON)


def refusal(problem: Problem) -> web.Response:
    answer = reply(encode(problem.status()), problem.code)
    answer.headers.update(problem.headers)
    return answer


async def read_body(request: web.BaseRequest) -> tuple[Any, str]:
    """Return the decoded body and its content type.

    :raises Problem: 400 for what is no JSON or YAML, 413 and 415 for what is not taken.
    """
    content_type = request.headers.get("Content-Type", JSON).partition(";")[0].strip().lower()
    try:
        data = await request.read()
    except web.HTTPRequestEntityTooLarge:
        what = f"Request entity too large: limit is {BODY_LIMIT}"
        raise Problem(413, "RequestEntityTooLarge", what) from None
    if not data:
        return None, content_type
    if content_type == protobuf.CONTENT_TYPE:
        return protobuf.decode(data), content_type
    if "cbor" in content_type:
        raise problems.unsupported_media_type(content_type, _TYPES)
    if "yaml" in content_type and data.lstrip()[:1] != b"{":
        try:
            return yaml.load(data, Loader=_Loader), content_type  # noqa: S506 - a safe loader
        except yaml.YAMLError as error:
            raise problems.bad_request(f"error decoding YAML: {error}") from None
    try:
        return json.loads(data), content_type
    except ValueError as error:
        raise problems.bad_request(
            f"the object provided is unrecognized (must be of type object): {error}"
        ) from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Leaves timestamps as the strings they are."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
