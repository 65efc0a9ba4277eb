"""Events: what controllers say about the objects they work on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.controllers.clock import stamp
from pytest_pgo_eks.local.objects import EVENT, Obj

log = logging.getLogger(__name__)
_REMEMBERED = 2048
# What is talked about comes first: six Events on the way of a pod to its node cost it 12 ms.
_AFTERWARDS_S = 0.03


@dataclass
class _Written:
    """An Event in the API that a repetition adds to."""

    name: str
    namespace: str
    count: int


class Recorder:
    """Writes Events in the background, in order; a repeated one raises ``count``.

    Losing an Event is never a reason to stop: a failed write is tried twice more and then logged.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._queue: asyncio.Queue[tuple[tuple[str, ...], Obj]] = asyncio.Queue()
        self._written: OrderedDict[tuple[str, ...], _Written] = OrderedDict()

    def event(
        self, about: Obj, reason: str, message: str, *, source: str, warning: bool = False
    ) -> None:
        """Record an Event about an object; ``source`` is the component that speaks."""
        metadata = about["metadata"]
        now = stamp()
        namespace = metadata.get("namespace", "default")
        involved = {
            "apiVersion": about.get("apiVersion"),
            "kind": about.get("kind"),
            "name": metadata["name"],
            "namespace": metadata.get("namespace"),
            "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
        }
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                # The real recorder's form: the object's name and the time in nanoseconds.
                "name": f"{metadata['name']}.{time.time_ns():x}",
                "namespace": namespace,
            },
            "involvedObject": {k: v for k, v in involved.items() if v},
            "reason": reason,
            "message": message,
            "source": {"component": source},
            "reportingComponent": source,
            "reportingInstance": "",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": "Warning" if warning else "Normal",
        }
        same = (str(metadata.get("uid")), reason, message, source, str(warning))
        self._queue.put_nowait((same, event))

    async def run(self) -> None:
        """Write what was recorded, until cancelled."""
        while True:
            if self._queue.empty():
                same, event = await self._queue.get()
                await asyncio.sleep(_AFTERWARDS_S)
            else:
                same, event = self._queue.get_nowait()
            for pause_s in (0.05, 0.5, None):
                try:
                    await self._write(same, event)
                    break
                except ApiError as error:
                    # A namespace that is going away takes no Events; that is no fault.
                    if error.code in (403, 404) or pause_s is None:
                        log.debug("event %s not written: %s", event["reason"], error)
                        break
                await asyncio.sleep(pause_s)
            self._queue.task_done()

    async def written(self) -> None:
        """Wait until everything recorded so far is in the API, or given up."""
        await self._queue.join()

    async def _write(self, same: tuple[str, ...], event: Obj) -> None:
        known = self._written.get(same)
        if known:
            change = {"count": known.count + 1, "lastTimestamp": event["lastTimestamp"]}
            try:
                await self._client.patch(EVENT, known.name, known.namespace, change)
            except ApiError as error:
                if error.code != 404:
                    raise
                self._written.pop(same)
            else:
                known.count += 1
                self._written.move_to_end(same)
                return
        metadata = event["metadata"]
        await self._client.create(EVENT, event)
        self._written[same] = _Written(metadata["name"], metadata["namespace"], 1)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)
