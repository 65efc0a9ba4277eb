"""What the API's refusals and the library's failures become: one error each, in the server's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, Conflict, NotFound
from pytest_pgo_eks.secrets import filtered


class Owned(Conflict):
    """An apply wants fields that others own; ``managers`` are their names."""

    def __init__(self, message: str, managers: set[str]) -> None:
        super().__init__(message, status=409, reason="Conflict")
        self.managers = managers


def problem_of(status: int, body: object, what: str) -> ApiProblem:
    """Return the error for a status the API answered, with the words it used."""
    said = _status_object(body)
    reason = str(said.get("reason", ""))
    message = filtered(str(said.get("message", ""))) or "no explanation"
    if status == 404:
        return NotFound(f"{what}: {message}", status=404, reason=reason or "NotFound")
    if status == 409:
        return _owned(what, said) or Conflict(
            f"{what}: {message}", status=409, reason=reason or "Conflict"
        )
    return ApiProblem(f"{what}: {status} {reason}: {message}", status=status, reason=reason)


def _owned(what: str, said: Mapping[str, Any]) -> Owned | None:
    """Name the managers who own the fields that an apply wanted, as the answer's causes do."""
    causes = [
        cause
        for cause in (said.get("details") or {}).get("causes") or []
        if cause.get("reason") == "FieldManagerConflict"
    ]
    if not causes:
        return None
    # conflict with "kubectl-edit" using apps/v1
    words = [str(cause.get("message", "")).removeprefix("conflict with ") for cause in causes]
    fields = ", ".join(
        f"{cause.get('field', '?')} ({text})" for cause, text in zip(causes, words, strict=True)
    )
    managers = {text.split('"')[1] if text.count('"') >= 2 else text for text in words}
    return Owned(
        f"{what}: owned by another field manager: {fields}. Leave these fields out, or take them "
        "over with force",
        managers,
    )


def _status_object(body: object) -> dict[str, Any]:
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if not isinstance(body, str) or not body.strip():
        return {}
    try:
        said = json.loads(body)
    except ValueError:
        return {"message": body.strip()[:200]}
    return said if isinstance(said, dict) else {"message": body.strip()[:200]}


def plain(error: BaseException) -> str:
    """Return the innermost reason of the library's nested errors, without object addresses."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return plain(reason)
    text = str(error) or type(error).__name__
    return filtered(text.split(">: ", 1)[-1])
