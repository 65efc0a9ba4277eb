"""What a client puts on everything it creates, and where it must not write."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pytest_pgo_eks.errors import NotPermitted


def labelled(manifest: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return a manifest with ``labels`` on the object itself, not on what it makes."""
    if not labels:
        return dict(manifest)
    meta = dict(manifest.get("metadata") or {})
    meta["labels"] = {**(meta.get("labels") or {}), **labels}
    return {**manifest, "metadata": meta}


def permit(method: str, path: str, read_only: Collection[str]) -> None:
    """Refuse to change an object in a namespace that is only looked at.

    :raises NotPermitted: the scenario is then skipped with these words.
    """
    plain = path.partition("?")[0]
    place = plain.partition("/namespaces/")[2].split("/")[0]
    if method != "GET" and place in read_only:
        raise NotPermitted(
            f"{method} {plain}: namespace {place} is only looked at in this run; "
            "--pgo-allow-disruption lets scenarios change it"
        )
