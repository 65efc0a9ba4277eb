"""Label and field selectors, from their text form to predicates over objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pytest_pgo_eks.local.apiserver.problems import Problem, bad_request
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.objects import Obj

Predicate = Callable[[Obj], bool]
_SET = re.compile(r"^\s*([^\s=!,()]+)\s+(in|notin)\s*\(([^)]*)\)\s*$")
_EQUAL = re.compile(r"^\s*([^\s=!,()<>]+)\s*(==|=|!=)\s*([^\s=!,()]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([^\s=!,()]+)\s*$")
_ORDER = re.compile(r"^\s*([^\s=!,()<>]+)\s*([<>])\s*(-?\d+)\s*$")
Term = tuple[str, str, tuple[str, ...]]


def _split(text: str) -> list[str]:
    return [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]


@lru_cache(maxsize=512)
def _label_terms(text: str) -> tuple[Term, ...]:
    found: list[Term] = []
    for part in _split(text):
        if match := _SET.match(part):
            values = tuple(one.strip() for one in match[3].split(","))
            found.append((match[1], match[2], values))
        elif match := _EQUAL.match(part):
            found.append((match[1], "!=" if match[2] == "!=" else "=", (match[3],)))
        elif match := _ORDER.match(part):
            found.append((match[1], match[2], (match[3],)))
        elif match := _EXISTS.match(part):
            found.append((match[2], "!" if match[1] else "exists", ()))
        else:
            raise bad_request(f'unable to parse requirement: found "{part.strip()}"')
    return tuple(found)


def _holds(term: Term, labels: Mapping[str, str]) -> bool:
    name, operator, values = term
    value = labels.get(name)
    if operator in {"=", "in"}:
        return value in values
    if operator in {"!=", "notin"}:
        return value is None or value not in values
    if operator == "exists":
        return value is not None
    if operator == "!":
        return value is None
    try:
        number = int(value or "")
    except ValueError:
        return False
    return number > int(values[0]) if operator == ">" else number < int(values[0])


def labels_predicate(text: str) -> Predicate | None:
    """Return a predicate for a ``labelSelector``; None selects everything.

    :raises Problem: 400 when it cannot be parsed.
    """
    terms = _label_terms(text) if text else ()
    if not terms:
        return None

    def holds(obj: Obj) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(_holds(term, labels) for term in terms)

    return holds


# What real servers support, by resource; metadata.name and metadata.namespace always.
_FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    ("", "nodes"): ("spec.unschedulable",),
    ("", "namespaces"): ("status.phase",),
    ("", "secrets"): ("type",),
    ("", "services"): ("spec.clusterIP", "spec.type"),
    ("", "events"): (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    ("apps", "replicasets"): ("status.replicas",),
    ("batch", "jobs"): ("status.successful",),
}
_BOOLEANS = {"spec.unschedulable", "spec.hostNetwork"}


def field_value(obj: Obj, path: str) -> str:
    """Return what a field selector compares: absent is the empty string, or "false"."""
    value: Any = obj
    if path == "source" and isinstance(obj.get("source"), dict):
        return str(obj["source"].get("component") or obj.get("reportingComponent") or "")
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return "false" if path in _BOOLEANS else ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def fields_predicate(text: str, resource: Resource) -> Predicate | None:
    """Return a predicate for a ``fieldSelector``; None selects everything.

    :raises Problem: 400 for a field that this resource cannot be selected by.
    """
    if not text:
        return None
    known = {"metadata.name", "metadata.namespace", *_FIELDS.get(resource.storage, ())}
    known.update(path.lstrip(".") for path in resource.selectable)
    terms: list[tuple[str, bool, str]] = []
    for part in _split(text):
        match = re.match(r"^\s*([^=!]+?)\s*(==|=|!=)(.*)$", part)
        if match is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if match[1] not in known:
            raise Problem(400, "BadRequest", f"field label not supported: {match[1]}")
        terms.append((match[1], match[2] != "!=", match[3].strip()))

    def holds(obj: Obj) -> bool:
        return all((field_value(obj, path) == wanted) is equal for path, equal, wanted in terms)

    return holds


def single_name(text: str) -> str | None:
    """Return the name when the selector is exactly ``metadata.name=NAME``."""
    match = re.match(r"^metadata\.name==?([^,=!]+)$", text)
    return match[1] if match else None


def both(one: Predicate | None, other: Predicate | None) -> Predicate | None:
    """Join two predicates."""
    if one is None or other is None:
        return one or other
    return lambda obj: one(obj) and other(obj)
