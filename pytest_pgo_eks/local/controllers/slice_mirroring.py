"""The EndpointSlice mirroring controller: slices for Endpoints that others write.

Patroni keeps its leader record in such Endpoints and renews it every loop; the slice follows each
renewal, in place.
"""

from __future__ import annotations

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.endpoint_rules import (
    MANAGED_BY,
    MIRROR,
    SERVICE_NAME,
    mirrored_slices,
)
from pytest_pgo_eks.local.controllers.endpointslices import ours
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.slice_writing import write_slices
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import (
    ENDPOINT_SLICE,
    ENDPOINTS,
    SERVICE,
    Obj,
    annotations_of,
    key,
    labels_of,
)


class SliceMirroring:
    """Mirrors the Endpoints of Services without selector."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._endpoints = context.of(ENDPOINTS)
        self._services = context.of(SERVICE)
        self._slices = context.of(ENDPOINT_SLICE)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("slicemirroring", self._sync)
        self._endpoints.listen(lambda change: self._queue.add(key(change.obj)))
        self._services.listen(lambda change: self._queue.add(key(change.obj)))
        self._slices.listen(self._slice_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _slice_changed(self, change: Change) -> None:
        labels = labels_of(change.obj)
        if labels.get(MANAGED_BY) == MIRROR and labels.get(SERVICE_NAME):
            self._queue.add((key(change.obj)[0], labels[SERVICE_NAME]))

    async def _sync(self, where: tuple[str, str]) -> None:
        namespace, name = where
        endpoints = self._endpoints.get(name, namespace)
        service = self._services.get(name, namespace)
        wanted = []
        if endpoints and service and _mirrored(endpoints, service):
            wanted = mirrored_slices(endpoints)
        known = ours(self._slices.within(namespace), name, MIRROR)
        try:
            await write_slices(self._context, known, wanted)
        except ApiError as error:
            if error.code != 403 or "terminated" not in error.message:
                raise


def _mirrored(endpoints: Obj, service: Obj) -> bool:
    return (
        not service["spec"].get("selector")
        and not endpoints["metadata"].get("deletionTimestamp")
        and labels_of(endpoints).get("endpointslice.kubernetes.io/skip-mirror") != "true"
        and "control-plane.alpha.kubernetes.io/leader" not in annotations_of(endpoints)
    )
