"""What every controller is given, and how it is configured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.controllers.informers import Informer, Informers
from pytest_pgo_eks.local.controllers.merging import merge_diff
from pytest_pgo_eks.local.controllers.recorder import Recorder
from pytest_pgo_eks.local.objects import Kind, Obj, key


@dataclass(frozen=True)
class ControllerConfig:
    """Settings of the controllers. Durations are seconds.

    ``storage_root`` is where provisioned volumes get their directories, ``cluster_ca`` the PEM
    that every namespace's ``kube-root-ca.crt`` shows. ``only`` names the controllers to run
    (None: all), for API servers that bring controllers of their own.
    """

    storage_root: Path
    cluster_ca: str = ""
    node_grace_s: float = 40.0
    eviction_s: float = 300.0
    storage_class: str = "standin-local"
    provisioner: str = "pytest-pgo-eks.local/directory"
    # A failed Job pod is replaced after this long, then twice as long and so on.
    job_backoff_s: float = 10.0
    job_backoff_max_s: float = 600.0
    # Pods of a Node object that is gone are removed after this long.
    orphan_grace_s: float = 40.0
    only: frozenset[str] | None = None


class Controller(Protocol):
    """One control loop: made first, so that it can say what it watches, run afterwards."""

    async def run(self) -> None: ...


@dataclass(frozen=True)
class Context:
    """The API, the shared caches, the Events and the settings."""

    client: ApiClient
    informers: Informers
    recorder: Recorder
    config: ControllerConfig

    def of(self, kind: Kind) -> Informer:
        """Return the shared informer of a kind."""
        return self.informers.of(kind)

    async def create(self, kind: Kind, obj: Obj, namespace: str | None = None) -> Obj:
        """Create an object and learn it, so that the next decision already counts it."""
        return self.of(kind).learn(await self.client.create(kind, obj, namespace))

    async def patch(self, kind: Kind, obj: Obj, patch: Obj, *, sub: str = "") -> Obj:
        """Merge-patch an object and learn the answer."""
        namespace, name = key(obj)
        return self.of(kind).learn(
            await self.client.patch(kind, name, namespace or None, patch, sub=sub)
        )

    async def replace(self, kind: Kind, obj: Obj, sub: str = "") -> Obj:
        return self.of(kind).learn(await self.client.replace(kind, obj, sub))

    async def set_status(self, kind: Kind, obj: Obj, status: Obj, *, strict: bool = False) -> bool:
        """Write the status where it differs; ``strict`` refuses when somebody wrote meanwhile."""
        difference = merge_diff(obj.get("status") or {}, status)
        if not difference:
            return False
        patch: Obj = {"status": difference}
        if strict:
            patch["metadata"] = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        await self.patch(kind, obj, patch, sub="status")
        return True

    async def delete(
        self,
        kind: Kind,
        obj: Obj,
        *,
        grace_s: int | None = None,
        propagation: str | None = None,
    ) -> bool:
        """Delete exactly this object; False when it, or this incarnation of it, was gone."""
        namespace, name = key(obj)
        try:
            answer = await self.client.delete(
                kind,
                name,
                namespace or None,
                uid=obj["metadata"]["uid"],
                grace_s=grace_s,
                propagation=propagation,
            )
        except ApiError as error:
            if error.code == 404 or (error.code == 409 and "uid" in error.message.lower()):
                return False
            raise
        if answer.get("kind") == kind.kind and answer["metadata"].get("deletionTimestamp"):
            self.of(kind).learn(answer)
        return True
