"""What one reconcile works with."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_pgo_eks.local.apiclient import ApiClient
from pytest_pgo_eks.local.objects import POD, STATEFUL_SET, Kind, Obj
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.certificates import KeyPair
from pytest_pgo_eks.local.operator.control import Control
from pytest_pgo_eks.local.operator.desired import Cluster, Images
from pytest_pgo_eks.local.operator.observe import Observed
from pytest_pgo_eks.local.operator.parameters import pgaudit_installed
from pytest_pgo_eks.local.operator.recorder import Recorder
from pytest_pgo_eks.local.operator.releases import Release
from pytest_pgo_eks.local.operator.store import Store

REPLICAS_FIRST_S = 12.0


class Blocked(Exception):
    """The reconcile cannot go on until somebody changes something; it is tried again, later."""


@dataclass(frozen=True)
class Tools:
    """What all reconciles share."""

    client: ApiClient
    store: Store
    recorder: Recorder
    images: Images
    release: Release
    pgaudit: Callable[[int], bool] = pgaudit_installed
    pending_since: dict[tuple[str, str], float] = field(default_factory=dict)
    """Since when (monotonic) some member of a cluster waits for a restart, by its key."""


@dataclass
class Pass:
    """One reconcile of one cluster. ``again_in_s`` asks for another without an event."""

    tools: Tools
    cluster: Cluster
    root: KeyPair = field(default_factory=lambda: KeyPair("", ""))
    again_in_s: float | None = None
    planned: dict[str, list[str]] = field(default_factory=dict)
    """Instance names per set, as this pass shall leave them before anything is scaled down."""

    resize_refused: bool = False
    unfinished: bool = False

    @property
    def store(self) -> Store:
        return self.tools.store

    @property
    def images(self) -> Images:
        return self.tools.images

    @property
    def observed(self) -> Observed:
        """The instances as the caches have them now: a step sees what the one before it did."""
        key = self.cluster.key
        label = {names.DATA: "postgres"}
        return Observed(self.store.list(STATEFUL_SET, key, label), self.store.list(POD, key, label))

    @property
    def control(self) -> Control:
        cluster = self.cluster
        return Control(self.tools.client, cluster.namespace, cluster.patroni_scope)

    async def apply(self, rendered: tuple[Kind, Obj]) -> Obj:
        return await self.store.apply(*rendered)

    def existing(self, kind: Kind, name: str) -> Obj | None:
        return self.store.get(kind, name, self.cluster.namespace)

    async def remove(self, kind: Kind, name: str) -> None:
        """Delete an object of this name if this cluster made it."""
        found = self.existing(kind, name)
        if found is not None and owned(self.cluster, found):
            await self.store.delete(kind, found)

    @property
    def replicas_first(self) -> bool:
        """Whether SQL shall wait for the first replicas, which a new cluster is building now.

        On two cores what the operator runs in the primary costs the replicas half a second, and
        with it one of Patroni's sync periods until the first of them is synchronous. A cluster
        that takes longer than `REPLICAS_FIRST_S` from its creation on is not waited for. Asking
        marks the pass as ``unfinished``: it has not observed the generation.
        """
        cluster = self.cluster
        wanted = sum(int(each["replicas"]) for each in cluster.instance_sets)
        ready = sum(1 for each in self.observed.instances if each.ready)
        done = bool(cluster.status.get("databaseRevision")) or ready >= wanted
        if done or wanted == 1 or cluster.shutdown:
            return False
        created = dt.datetime.fromisoformat(cluster.obj["metadata"]["creationTimestamp"])
        left = REPLICAS_FIRST_S - (dt.datetime.now(dt.UTC) - created).total_seconds()
        if left <= 0:
            return False
        self.unfinished = True
        self.look_again(left)
        return True

    def look_again(self, seconds: float) -> None:
        self.again_in_s = min(seconds, self.again_in_s or seconds)

    async def warn(self, reason: str, message: str) -> None:
        await self.tools.recorder.warn(self.cluster, reason, message)

    async def warn_once(self, reason: str, message: str) -> None:
        await self.tools.recorder.warn_once(self.cluster, reason, message)

    async def note(self, reason: str, message: str) -> None:
        await self.tools.recorder.record(self.cluster, reason, message)


def owned(cluster: Cluster, obj: Obj) -> bool:
    """Say whether this cluster is an object's controller."""
    return any(
        ref.get("controller") and ref["uid"] == cluster.uid
        for ref in obj["metadata"].get("ownerReferences") or []
    )
