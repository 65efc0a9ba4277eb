"""Events as a kubelet writes them: counted rather than repeated, and never in anybody's way."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.kubelet.status import moment
from pytest_pgo_eks.local.objects import EVENT, Obj

# client-go's spam filter: a burst of 25 per object, then one in five minutes. Ours counts per
# reason: with probes every 2 s the Event that explains a restart would be the one to be dropped.
_BURST = 25.0
_REFILL_PER_S = 1 / 300
_REMEMBERED = 4096
_QUEUED = 1000


@dataclass(frozen=True)
class _Entry:
    about: Obj
    kind: str
    reason: str
    message: str
    path: str
    at: float


@dataclass
class _Seen:
    name: str
    first: float
    count: int


@dataclass
class _Budget:
    left: float
    at: float


class Recorder:
    """Writes Events about the objects of one node, in the order of their recording."""

    def __init__(self, client: ApiClient, node: str) -> None:
        self._client = client
        self._node = node
        self._queue: asyncio.Queue[_Entry] = asyncio.Queue(_QUEUED)
        self._seen: OrderedDict[tuple[str, ...], _Seen] = OrderedDict()
        self._budgets: dict[str, dict[str, _Budget]] = {}

    def record(
        self, about: Obj, reason: str, message: str, *, container: str = "", warning: bool = False
    ) -> None:
        """Queue an Event. One that finds the queue full is dropped, as the kubelet's are."""
        if self._affordable(about["metadata"]["uid"], reason):
            kind = "Warning" if warning else "Normal"
            path = f"spec.{container}" if container else ""
            entry = _Entry(about, kind, reason, message, path, time.time())
            if not self._queue.full():
                self._queue.put_nowait(entry)

    def forget(self, uid: str) -> None:
        """Drop the spam filter's memory of an object that is gone."""
        self._budgets.pop(uid, None)

    async def run(self) -> None:
        """Write until cancelled. An Event that the API server refuses is lost, nothing more."""
        while True:
            entry = await self._queue.get()
            try:
                await self._write(entry)
            except ApiError:
                continue

    def _affordable(self, uid: str, reason: str) -> bool:
        now = time.monotonic()
        budget = self._budgets.setdefault(uid, {}).setdefault(reason, _Budget(_BURST, now))
        budget.left = min(_BURST, budget.left + (now - budget.at) * _REFILL_PER_S)
        budget.at = now
        if budget.left < 1:
            return False
        budget.left -= 1
        return True

    async def _write(self, entry: _Entry) -> None:
        about, at = entry.about, entry.at
        metadata = about["metadata"]
        namespace = metadata.get("namespace") or "default"
        key = (metadata["uid"], entry.kind, entry.reason, entry.message, entry.path)
        seen = self._seen.get(key)
        if seen:
            seen.count += 1
            patch = {"count": seen.count, "lastTimestamp": moment(at)}
            try:
                await self._client.patch(EVENT, seen.name, namespace, patch)
            except ApiError as error:
                if error.code != 404:
                    raise
            else:
                return
        name = f"{metadata['name']}.{int(at * 1e9):016x}"
        involved = {
            "apiVersion": about.get("apiVersion", "v1"),
            "kind": about["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace"),
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion"),
            "fieldPath": entry.path,
        }
        count = seen.count if seen else 1
        first = seen.first if seen else at
        event: Obj = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {k: v for k, v in involved.items() if v},
            "reason": entry.reason,
            "message": entry.message,
            "type": entry.kind,
            "count": count,
            "firstTimestamp": moment(first),
            "lastTimestamp": moment(at),
            "eventTime": None,
            "source": {"component": "kubelet", "host": self._node},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
        }
        await self._client.create(EVENT, event)
        self._seen[key] = _Seen(name, first, count)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
