"""Taking over objects that match a controller's selector but have no controller."""

from __future__ import annotations

from collections.abc import Callable

from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.pods import is_terminating, owner_reference
from pytest_pgo_eks.local.objects import Kind, Obj, labels_of, matches


async def owned(
    context: Context, kind: Kind, owner: Obj, *, also: Callable[[Obj], bool] = lambda _: True
) -> list[Obj]:
    """Return the objects the owner controls, after adopting matching orphans.

    ``also`` narrows what may be adopted (a StatefulSet takes only pods of its own name). A
    deleted owner adopts nothing.
    """
    informer = context.of(kind)
    mine = informer.controlled_by(owner["metadata"]["uid"])
    if is_terminating(owner):
        return mine
    selector = owner["spec"].get("selector")
    for orphan in informer.within(owner["metadata"]["namespace"]):
        references = orphan["metadata"].get("ownerReferences") or []
        if (
            any(reference.get("controller") for reference in references)
            or is_terminating(orphan)
            or not matches(selector, labels_of(orphan))
            or not also(orphan)
        ):
            continue
        patch = {
            "metadata": {
                "ownerReferences": [*references, owner_reference(owner)],
                "resourceVersion": orphan["metadata"]["resourceVersion"],
            }
        }
        mine.append(await context.patch(kind, orphan, patch))
    return mine


def orphan_owners(context: Context, kind: Kind, orphan: Obj) -> list[Obj]:
    """Return the controllers of a kind whose selector would adopt this object."""
    if any(r.get("controller") for r in orphan["metadata"].get("ownerReferences") or []):
        return []
    return [
        owner
        for owner in context.of(kind).within(orphan["metadata"]["namespace"])
        if matches(owner["spec"].get("selector"), labels_of(orphan))
    ]


def controller_of(obj: Obj, kind: str) -> str | None:
    """Return the name of the object's controller, if it is of this kind."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller") and reference["kind"] == kind:
            name: str = reference["name"]
            return name
    return None
