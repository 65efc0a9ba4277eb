"""``/stand-in/v1/faults``: what no Kubernetes API offers, for administrators of the stand-in only.

::

    GET    /stand-in/v1/faults        {"items": [fault…], "capabilities": [name…]}
    POST   /stand-in/v1/faults        a request of ``network/faults.py``; 201 and the fault
    GET    /stand-in/v1/faults/ID     the fault, with its counters now
    DELETE /stand-in/v1/faults/ID     undo it; the fault with its last counters

A refusal is a Kubernetes Status, so that any client of the API understands it.
"""

from __future__ import annotations

import json

from aiohttp import web

from pytest_pgo_eks.local.apiserver import Identity
from pytest_pgo_eks.local.network.faults import FaultProblem, Faults
from pytest_pgo_eks.local.network.netns import NetworkCommandError
from pytest_pgo_eks.local.objects import Obj

PREFIX = "/stand-in/v1/faults"
_REASONS = {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed", 409: "Conflict"}


class FaultsApi:
    """Answers requests below :data:`PREFIX`; the API server has authorised them already."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def handle(self, request: web.BaseRequest, _who: Identity) -> web.StreamResponse:
        try:
            code, answer = await self._answer(request)
        except FaultProblem as problem:
            code, answer = problem.code, _status(problem.code, str(problem))
        except NetworkCommandError as problem:
            code, answer = 500, _status(500, f"the kernel refused: {problem}")
        return web.json_response(answer, status=code)

    async def _answer(self, request: web.BaseRequest) -> tuple[int, Obj]:
        which = request.path[len(PREFIX) :].strip("/")
        if not which and request.method == "GET":
            items = await self._faults.all()
            return 200, {"items": items, "capabilities": sorted(self._faults.capabilities)}
        if not which and request.method == "POST":
            return 201, await self._faults.inject(await _body(request))
        if which and request.method == "GET":
            return 200, await self._faults.get(which)
        if which and request.method == "DELETE":
            return 200, await self._faults.undo(which)
        raise FaultProblem(f"{request.method} is not possible here", 405)


async def _body(request: web.BaseRequest) -> Obj:
    try:
        found = json.loads(await request.read())
    except ValueError as error:
        raise FaultProblem(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise FaultProblem("the body is no JSON object")
    return found


def _status(code: int, message: str) -> Obj:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, "InternalError"),
        "code": code,
    }
