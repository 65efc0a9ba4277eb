"""A bare kube-apiserver for the tests of ours: what they expect, the real one has to do as well."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_pgo_eks.local.apiclient import ApiClient
from tools.real_kubernetes.binaries import Binaries
from tools.real_kubernetes.control_plane import ControlPlane, running
from tools.real_kubernetes.etcd_keys import Keys

_NOTICED_S = 20.0


@dataclass
class RealApi:
    """One server for all tests; each of them finds it as it was at the beginning."""

    plane: ControlPlane
    keys: Keys

    @property
    def ca(self) -> Path:
        return self.plane.directory / "pki" / "ca.crt"

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[ApiClient]:
        """Yield an administrator's client; afterwards everything it made is forgotten."""
        pki = self.plane.directory / "pki"
        admin = ApiClient(
            self.plane.url,
            ca_file=self.ca,
            certificate=(pki / "admin.crt", pki / "admin.key"),
        )
        known = await _groups(admin)
        try:
            yield admin
        finally:
            self.keys.forget_new()
            # A definition is served until the server has noticed that it is gone.
            async with asyncio.timeout(_NOTICED_S):
                while await _groups(admin) != known:  # noqa: ASYNC110 - nobody announces it
                    await asyncio.sleep(0.05)
            await admin.close()


async def _groups(admin: ApiClient) -> set[str]:
    found = await admin.request("GET", "/apis")
    return {one["name"] for one in found["groups"]}


@contextlib.contextmanager
def serving(binaries: Binaries) -> Iterator[RealApi]:
    """Run the server until the block ends."""
    with (
        tempfile.TemporaryDirectory(prefix="real-api-") as place,
        running(Path(place) / "plane", binaries, None) as plane,
    ):
        yield RealApi(plane, Keys(plane.etcd))
