"""Leader election over a Lease, so that two operator pods never reconcile at once."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.objects import LEASE, Obj

DURATION_S = 15
_RENEW_S = 5.0
_LOOK_S = 1.0


class LostLease(Exception):
    """Somebody else leads, or the API was away for longer than the lease lasts."""


class Lease:
    """The operator's lease. Another's age is judged by when *we* saw it change, not by its clock."""

    def __init__(self, client: ApiClient, namespace: str, name: str, identity: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seen: Obj | None = None
        self._seen_at = 0.0

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        while True:
            if await self._try():
                return
            await asyncio.sleep(_LOOK_S)

    async def keep(self) -> None:
        """Renew the lease until cancelled.

        :raises LostLease: it is no longer ours.
        """
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(_RENEW_S)
            if await self._try():
                renewed = time.monotonic()
            elif time.monotonic() - renewed > DURATION_S - _RENEW_S:
                raise LostLease(f"lease {self._name} is not ours any more")

    async def release(self) -> None:
        """Let the next operator take over at once."""
        try:
            found = await self._client.find(LEASE, self._name, self._namespace)
            if found and found["spec"].get("holderIdentity") == self._identity:
                found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(LEASE, found)
        except ApiError:
            return

    async def _try(self) -> bool:
        try:
            found = await self._client.find(LEASE, self._name, self._namespace)
            if found is None:
                await self._client.create(LEASE, self._fresh(), self._namespace)
                return True
            spec = found["spec"]
            if spec.get("holderIdentity") not in ("", None, self._identity):
                if spec != self._seen:
                    self._seen, self._seen_at = spec, time.monotonic()
                if time.monotonic() - self._seen_at < spec.get("leaseDurationSeconds", DURATION_S):
                    return False
            if spec.get("holderIdentity") != self._identity:
                spec |= {
                    "acquireTime": _now(),
                    "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1,
                }
            spec |= {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": DURATION_S,
                "renewTime": _now(),
            }
            await self._client.replace(LEASE, found)
        except ApiError:
            return False
        return True

    def _fresh(self) -> Obj:
        now = _now()
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": DURATION_S,
                "leaseTransitions": 0,
                "acquireTime": now,
                "renewTime": now,
            },
        }


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
