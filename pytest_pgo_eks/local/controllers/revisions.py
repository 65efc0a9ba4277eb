"""ControllerRevisions: the history of a StatefulSet's template."""

from __future__ import annotations

import copy

from pytest_pgo_eks.local.controllers.hashes import content_hash
from pytest_pgo_eks.local.controllers.pods import owner_reference
from pytest_pgo_eks.local.objects import Obj, annotations_of


def revision_data(owner: Obj) -> Obj:
    """Return what a ControllerRevision keeps: the patch that restores the template."""
    return {"spec": {"template": copy.deepcopy(owner["spec"]["template"]) | {"$patch": "replace"}}}


def new_revision(owner: Obj, number: int, collisions: int) -> Obj:
    """Return the ControllerRevision of the owner's present template."""
    data = revision_data(owner)
    digest = content_hash(data, collisions)
    template = owner["spec"]["template"].get("metadata") or {}
    metadata: Obj = {
        "name": f"{owner['metadata']['name']}-{digest}",
        "namespace": owner["metadata"]["namespace"],
        "labels": {**(template.get("labels") or {}), "controller.kubernetes.io/hash": digest},
        "ownerReferences": [owner_reference(owner)],
    }
    if annotations_of(owner):
        metadata["annotations"] = dict(annotations_of(owner))
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "data": data,
        "revision": number,
    }


def template_of(revision: Obj) -> Obj:
    """Return the pod template that a revision keeps."""
    template: Obj = copy.deepcopy(revision["data"]["spec"]["template"])
    template.pop("$patch", None)
    return template


def next_number(revisions: list[Obj]) -> int:
    return max((r["revision"] for r in revisions), default=0) + 1


def obsolete(revisions: list[Obj], live: set[str], limit: int) -> list[Obj]:
    """Return the revisions beyond the history limit, oldest first; live ones never count."""
    history = sorted(
        (r for r in revisions if r["metadata"]["name"] not in live), key=lambda r: r["revision"]
    )
    return history[: max(0, len(history) - limit)]
