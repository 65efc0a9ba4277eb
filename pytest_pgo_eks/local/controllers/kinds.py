"""Every kind the API server serves, watched: what garbage and namespaces need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change, Informer, served_kinds
from pytest_pgo_eks.local.objects import CUSTOM_RESOURCE_DEFINITION, Kind

log = logging.getLogger(__name__)
_PATIENCE_S = 10.0


class AllKinds:
    """Follows discovery: a custom resource is watched from the moment its definition is served."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._watched: dict[Kind, Informer] = {}
        self._ours: set[Kind] = set()  # watched for no controller but for us
        self._listeners: list[Callable[[Kind, Change], None]] = []
        self._stale = asyncio.Event()
        self._stale.set()
        self.ready = asyncio.Event()
        context.of(CUSTOM_RESOURCE_DEFINITION).listen(lambda _: self._stale.set())

    def listen(self, listener: Callable[[Kind, Change], None]) -> None:
        self._listeners.append(listener)
        for kind, informer in self._watched.items():
            for obj in informer:
                listener(kind, Change(None, obj))

    def watched(self) -> dict[Kind, Informer]:
        """Return the informers there are now, by kind."""
        return dict(self._watched)

    def kind_of(self, api_version: str, kind: str) -> Kind | None:
        """Return the kind an owner reference means; other versions of a group will do."""
        group = api_version.rpartition("/")[0]
        for known in self._watched:
            if known.kind == kind and known.api_version.rpartition("/")[0] == group:
                return known
        return None

    async def run(self) -> None:
        """Keep up with discovery until cancelled."""
        failures = 0
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                kinds = await served_kinds(self._context.client)
            except ApiError as error:
                failures += 1
                log.debug("discovery: %s", error)
                await asyncio.sleep(min(5.0, 0.1 * 2 ** min(failures, 8)))
                self._stale.set()
                continue
            failures = 0
            await self._follow(kinds)
            if not await self._established(kinds):
                # A definition that is there but not served yet: nothing will tell us when it is.
                await asyncio.sleep(0.2)
                self._stale.set()

    async def _follow(self, kinds: list[Kind]) -> None:
        for gone in self._watched.keys() - set(kinds):
            informer = self._watched.pop(gone)
            for obj in informer:
                self._tell(gone, Change(obj, None))
            if gone in self._ours:
                self._ours.discard(gone)
                self._context.informers.drop(gone)
        fresh = [kind for kind in kinds if kind not in self._watched]
        known = {informer.kind for informer in self._context.informers.known()}
        self._ours |= set(fresh) - known
        for kind in fresh:
            informer = self._context.of(kind)
            self._watched[kind] = informer
            informer.listen(lambda change, kind=kind: self._tell(kind, change))  # type: ignore[misc]
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for kind in fresh:
                    await self._watched[kind].synced.wait()
        except TimeoutError:
            log.warning("not every kind could be listed: garbage may be kept")
        else:
            self.ready.set()

    async def _established(self, kinds: list[Kind]) -> bool:
        served = {(k.api_version.rpartition("/")[0], k.kind) for k in kinds}
        return all(
            (d["spec"]["group"], d["spec"]["names"]["kind"]) in served
            or d["metadata"].get("deletionTimestamp")
            for d in self._context.of(CUSTOM_RESOURCE_DEFINITION)
        )

    def _tell(self, kind: Kind, change: Change) -> None:
        if self._watched.get(kind) is None and change.new is not None:
            return
        for listener in self._listeners:
            listener(kind, change)
