"""Lists, page by page, with their selectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.kube.kinds import Resource
from pytest_pgo_eks.kube.transport import Transport

Object = dict[str, Any]
# A selector as the API takes it (``app in (a,b)``), or equalities by name.
Labels = Mapping[str, str] | str | None

PAGE = 500


def pages(
    transport: Transport,
    resource: Resource,
    namespace: str | None,
    selectors: Sequence[tuple[str, str]],
    deadline_s: float,
) -> tuple[list[Object], str]:
    """List all pages of a kind; return the items and the version they stand at."""
    items: list[Object] = []
    more, restarts = "", 0
    while True:
        query = [*selectors, ("limit", str(PAGE))]
        if more:
            query.append(("continue", more))
        try:
            page = transport.request(
                "GET", resource.path(namespace), query=query, deadline_s=deadline_s
            )
            found, meta = page.get("items") or [], page.get("metadata") or {}
        except ApiProblem as problem:
            if problem.status == 410 and more and restarts < 3:
                items, more, restarts = [], "", restarts + 1
                continue
            raise
        except AttributeError as error:
            raise ApiProblem(f"list of {resource.plural}: the answer is no list") from error
        for one in found:
            one.setdefault("apiVersion", resource.api_version)
            one.setdefault("kind", resource.kind)
        items += found
        more = meta.get("continue") or ""
        if not more:
            return items, str(meta.get("resourceVersion") or "")


def selectors_of(labels: Labels, fields: Labels) -> list[tuple[str, str]]:
    query = []
    for name, given in (("labelSelector", labels), ("fieldSelector", fields)):
        if isinstance(given, Mapping):
            given = ",".join(f"{key}={value}" for key, value in given.items())  # noqa: PLW2901
        if given:
            query.append((name, given))
    return query


def event_time(event: Object) -> str:
    """Return when an event was last seen, as text that sorts."""
    meta = event.get("metadata") or {}
    return str(
        event.get("lastTimestamp") or event.get("eventTime") or meta.get("creationTimestamp") or ""
    )
