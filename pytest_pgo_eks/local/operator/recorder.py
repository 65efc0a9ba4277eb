"""Events of the operator, counted up instead of repeated."""

from __future__ import annotations

import datetime as dt
import secrets

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.objects import EVENT, Obj
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.desired import Cluster


class Recorder:
    """Writes Events about clusters; the same reason and message only raises the count."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._known: dict[tuple[str, str, str], tuple[str, int]] = {}
        self._said: set[tuple[str, int, str, str]] = set()

    async def warn(self, cluster: Cluster, reason: str, message: str) -> None:
        await self.record(cluster, reason, message, kind="Warning")

    async def warn_once(self, cluster: Cluster, reason: str, message: str) -> None:
        """Warn about what is wrong with a spec: once until it is changed."""
        key = (cluster.uid, cluster.generation, reason, message)
        if key not in self._said:
            self._said.add(key)
            await self.warn(cluster, reason, message)

    async def record(
        self, cluster: Cluster, reason: str, message: str, *, kind: str = "Normal"
    ) -> None:
        """Write an Event. That it could not be written never stops a reconcile."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = (cluster.uid, reason, message)
        name, count = self._known.get(key, ("", 0))
        try:
            if name:
                patch = {"count": count + 1, "lastTimestamp": now}
                await self._client.patch(EVENT, name, cluster.namespace, patch)
            else:
                name = f"{cluster.name}.{secrets.token_hex(8)}"
                await self._client.create(
                    EVENT, _event(cluster, name, (reason, message, kind), now)
                )
        except ApiError as error:
            if error.code == 404:
                self._known.pop(key, None)
            return
        self._known[key] = (name, count + 1)


def _event(cluster: Cluster, name: str, what: tuple[str, str, str], now: str) -> Obj:
    reason, message, kind = what
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": cluster.namespace},
        "involvedObject": names.plain_reference(cluster.obj)
        | {
            "namespace": cluster.namespace,
            "resourceVersion": cluster.obj["metadata"]["resourceVersion"],
        },
        "reason": reason,
        "message": message[:1024],
        "type": kind,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "reportingInstance": "",
    }
