"""The EndpointSlice controller: the slices of every Service with a selector."""

from __future__ import annotations

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.endpoint_rules import (
    MANAGED_BY,
    SERVICE_NAME,
    SLICES,
    slices_for,
    zones_of,
)
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.service_pods import ServicePods
from pytest_pgo_eks.local.controllers.slice_writing import write_slices
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import ENDPOINT_SLICE, NODE, Obj, key, labels_of


class EndpointSlices:
    """Writes who is behind a Service, with readiness, node and zone of each."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._slices = context.of(ENDPOINT_SLICE)
        self._nodes = context.of(NODE)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("endpointslice", self._sync)
        self._behind = ServicePods(context, self._queue.add)
        self._slices.listen(self._slice_changed)
        self._nodes.listen(self._node_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _slice_changed(self, change: Change) -> None:
        labels = labels_of(change.obj)
        if labels.get(MANAGED_BY) == SLICES and labels.get(SERVICE_NAME):
            self._queue.add((key(change.obj)[0], labels[SERVICE_NAME]))

    def _node_changed(self, change: Change) -> None:
        zones = [zones_of([node]) for node in (change.old, change.new) if node is not None]
        if len(zones) < 2 or zones[0] != zones[1]:
            for service in self._behind.services:
                self._queue.add(key(service))

    async def _sync(self, where: tuple[str, str]) -> None:
        namespace, name = where
        service = self._behind.services.get(name, namespace)
        known = ours(self._slices.within(namespace), name, SLICES)
        wanted: list[Obj] = []
        if service and service["metadata"].get("deletionTimestamp"):
            return
        if (
            service
            and service["spec"].get("selector")
            and service["spec"].get("type") != "ExternalName"
        ):
            wanted = slices_for(service, self._behind.of(service), zones_of(self._nodes))
        try:
            await write_slices(self._context, known, wanted)
        except ApiError as error:
            if error.code != 403 or "terminated" not in error.message:
                raise


def ours(slices: list[Obj], service: str, manager: str) -> list[Obj]:
    """Return the slices of a Service that this manager keeps."""
    return [
        found
        for found in slices
        if labels_of(found).get(SERVICE_NAME) == service
        and labels_of(found).get(MANAGED_BY) == manager
        and not found["metadata"].get("deletionTimestamp")
    ]
