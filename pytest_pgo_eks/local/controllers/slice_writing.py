"""Turning the slices there are into the slices there should be, with the fewest writes."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.endpoint_rules import same_slice
from pytest_pgo_eks.local.objects import ENDPOINT_SLICE, Obj


async def write_slices(context: Context, known: Sequence[Obj], wanted: Sequence[Obj]) -> None:
    """Keep what is right, change in place what can be, then create and delete the rest."""
    left = list(known)
    missing = []
    for slice_ in wanted:
        same = next((k for k in left if same_slice(k, slice_)), None)
        if same is None:
            missing.append(slice_)
        else:
            left.remove(same)
    for slice_ in missing:
        old = next((k for k in left if (k.get("ports") or []) == slice_["ports"]), None)
        old = old or next(iter(left), None)
        if old is None:
            await context.create(ENDPOINT_SLICE, slice_)
            continue
        left.remove(old)
        metadata = slice_["metadata"] | {
            "name": old["metadata"]["name"],
            "resourceVersion": old["metadata"]["resourceVersion"],
        }
        await context.replace(ENDPOINT_SLICE, slice_ | {"metadata": metadata})
    for old in left:
        await context.delete(ENDPOINT_SLICE, old)
