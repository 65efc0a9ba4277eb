"""What the API refuses, as ``metav1.Status`` objects with the words a real API server uses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.local.objects import Obj


class Problem(Exception):
    """A request that ends with a Status of ``Failure``. ``code`` is the HTTP status."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Obj | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})

    def status(self) -> Obj:
        """Return the Status object that goes over the wire."""
        found: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            found["details"] = self.details
        return found


_REASONS = {
    "Required value": "FieldValueRequired",
    "Invalid value": "FieldValueInvalid",
    "Unsupported value": "FieldValueNotSupported",
    "Forbidden": "FieldValueForbidden",
    "Duplicate value": "FieldValueDuplicate",
    "Too long": "FieldValueTooLong",
    "Too many": "FieldValueTooMany",
    "Not found": "FieldValueNotFound",
}


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field, as ``field.Error`` says it."""

    what: str
    field: str
    detail: str = ""
    value: Any = None

    def body(self) -> str:
        """Return the message without the field's name."""
        text = self.what
        if self.what in {"Invalid value", "Unsupported value", "Duplicate value", "Not found"}:
            text += f": {_shown(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def cause(self) -> Obj:
        reason = _REASONS.get(self.what, "FieldValueInvalid")
        return {"reason": reason, "message": self.body(), "field": self.field}

    def __str__(self) -> str:
        return f"{self.field}: {self.body()}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def required(field: str, detail: str = "") -> FieldError:
    return FieldError("Required value", field, detail)


def wrong(field: str, value: Any, detail: str) -> FieldError:
    return FieldError("Invalid value", field, detail, value)


def unsupported(field: str, value: Any, allowed: Sequence[str]) -> FieldError:
    listed = ", ".join(f'"{one}"' for one in sorted(allowed))
    return FieldError("Unsupported value", field, f"supported values: {listed}", value)


def denied(field: str, detail: str) -> FieldError:
    return FieldError("Forbidden", field, detail)


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError("Duplicate value", field, "", value)


def qualified(group: str, plural: str) -> str:
    """Return ``deployments.apps`` or, in the core group, ``pods``."""
    return f"{plural}.{group}" if group else plural


def _details(group: str, kind: str, name: str) -> Obj:
    found: Obj = {"name": name, "kind": kind}
    if group:
        found["group"] = group
    return {key: value for key, value in found.items() if value}


def not_found(group: str, plural: str, name: str) -> Problem:
    message = f'{qualified(group, plural)} "{name}" not found'
    return Problem(404, "NotFound", message, details=_details(group, plural, name))


def no_such_resource() -> Problem:
    return Problem(404, "NotFound", "the server could not find the requested resource", details={})


def already_exists(group: str, plural: str, name: str) -> Problem:
    message = f'{qualified(group, plural)} "{name}" already exists'
    return Problem(409, "AlreadyExists", message, details=_details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str = "") -> Problem:
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return Problem(409, "Conflict", message, details=_details(group, plural, name))


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> Problem:
    """422: what is wrong with which fields."""
    which = kind if not group else f"{kind}.{group}"
    said = [str(error) for error in errors]
    text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    details = _details(group, kind, name) | {"causes": [error.cause() for error in errors]}
    return Problem(422, "Invalid", f'{which} "{name}" is invalid: {text}', details=details)


def bad_request(message: str) -> Problem:
    return Problem(400, "BadRequest", message)


def forbidden(group: str, plural: str, name: str, why: str) -> Problem:
    which = qualified(group, plural) + (f' "{name}"' if name else "")
    return Problem(
        403, "Forbidden", f"{which} is forbidden: {why}", details=_details(group, plural, name)
    )


def unauthorized() -> Problem:
    return Problem(401, "Unauthorized", "Unauthorized")


def expired(why: str = "The resourceVersion for the provided watch is too old.") -> Problem:
    return Problem(410, "Expired", why)


def method_not_allowed() -> Problem:
    return Problem(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def unsupported_media_type(found: str, allowed: Sequence[str]) -> Problem:
    return Problem(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format ({found}) - accepted media types "
        f"include: {', '.join(allowed)}",
    )
