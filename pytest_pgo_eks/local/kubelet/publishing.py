"""Telling the API how a pod is: at every change, the newest state only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.objects import POD, Obj, key

RETRY_S = 0.2


class StatusWriter:
    """Writes one pod's status. ``compute`` returns what is to be written."""

    def __init__(self, client: ApiClient, pod: Obj, compute: Callable[[], Obj]) -> None:
        self._client = client
        self._namespace, self._name = key(pod)
        self._uid: str = pod["metadata"]["uid"]
        self._compute = compute
        self._dirty = asyncio.Event()
        self._sent: Obj | None = None

    def changed(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Write after every change until cancelled; what comes meanwhile is one write."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if not await self.write():
                await asyncio.sleep(RETRY_S)
                self._dirty.set()

    async def write(self) -> bool:
        """Write the status if it changed; say whether there is nothing left to write."""
        status = self._compute()
        if status == self._sent:
            return True
        # The UID makes it a conflict to write on a successor of the same name.
        patch = {"metadata": {"uid": self._uid}, "status": status}
        try:
            await self._client.patch(
                POD, self._name, self._namespace, patch, type="strategic", sub="status"
            )
        except ApiError as error:
            return error.code == 404 or (error.code == 409 and await self._replaced())
        self._sent = status
        return True

    async def _replaced(self) -> bool:
        """Say whether the API knows another pod by this name, or none."""
        try:
            found = await self._client.find(POD, self._name, self._namespace)
        except ApiError:
            return False
        return found is None or found["metadata"]["uid"] != self._uid
