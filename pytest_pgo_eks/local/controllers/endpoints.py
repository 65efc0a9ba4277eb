"""The Endpoints controller: one Endpoints object per Service with a selector."""

from __future__ import annotations

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.endpoint_rules import TRIGGER_TIME, endpoints_for
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.service_pods import ServicePods
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import ENDPOINTS, Obj, annotations_of, key, labels_of


class EndpointsController:
    """Writes who is behind a Service. Endpoints of Services without selector are others' work."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._endpoints = context.of(ENDPOINTS)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("endpoints", self._sync)
        self._behind = ServicePods(context, self._queue.add)
        self._endpoints.listen(self._endpoints_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _endpoints_changed(self, change: Change) -> None:
        """Somebody else's write to Endpoints that are ours is undone."""
        service = self._behind.services.get(*reversed(key(change.obj)))
        if service and service["spec"].get("selector"):
            self._queue.add(key(service))

    async def _sync(self, where: tuple[str, str]) -> None:
        namespace, name = where
        service = self._behind.services.get(name, namespace)
        known = self._endpoints.get(name, namespace)
        if service is None:
            # Only a Service's deletion leads here. Endpoints that never had a Service, such as
            # Patroni's -sync and -failover, are not touched.
            if known is not None:
                await self._context.delete(ENDPOINTS, known)
            return
        if not service["spec"].get("selector") or service["metadata"].get("deletionTimestamp"):
            return
        if service["spec"].get("type") == "ExternalName":
            return
        wanted = endpoints_for(service, self._behind.of(service))
        if known is None:
            try:
                await self._context.create(ENDPOINTS, wanted)
            except ApiError as error:
                if error.code != 403 or "terminated" not in error.message:
                    raise
        elif _facts(known) != _facts(wanted):
            metadata = wanted["metadata"]
            metadata["resourceVersion"] = known["metadata"]["resourceVersion"]
            metadata["annotations"] = {**annotations_of(known), **metadata["annotations"]}
            await self._context.replace(ENDPOINTS, wanted)


def _facts(endpoints: Obj) -> tuple[object, ...]:
    annotations = dict(annotations_of(endpoints))
    annotations.pop(TRIGGER_TIME, None)
    return labels_of(endpoints), endpoints.get("subsets") or []
