"""What the operator knows of the API: caches of everything it makes, and writes through them."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError, Cache
from pytest_pgo_eks.local.objects import (
    CLAIM,
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    ENDPOINTS,
    JOB,
    POD,
    POSTGRES_CLUSTER,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
    Obj,
    annotations_of,
    labels_of,
)
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.desired import cluster_of

# In the order in which garbage of a removed part is collected.
OWNED = (
    CONFIG_MAP,
    SECRET,
    STATEFUL_SET,
    DEPLOYMENT,
    JOB,
    CRON_JOB,
    CLAIM,
    SERVICE,
    ENDPOINTS,
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    DISRUPTION_BUDGET,
    POD,
)
# Patroni renews these every few seconds; none of them asks for a reconcile.
_RENEWED = frozenset(
    {"renewTime", "acquireTime", "optime", "slots", "retain_slots", "transitions", "ttl"}
)
# What of a status can change a reconcile's result; half of the updates are about something else.
_STATUS_FIELDS = {
    STATEFUL_SET.plural: ("readyReplicas", "updateRevision", "observedGeneration"),
    DEPLOYMENT.plural: ("replicas", "readyReplicas"),
    JOB.plural: ("active", "succeeded", "failed", "startTime", "completionTime"),
    CLAIM.plural: ("phase",),
}
_STATUS_KEPT = ("role", "state", "pending_restart", "timeline")

Key = tuple[str, str]


class Store:
    """Caches of every kind the operator makes, and ``changed(namespace, cluster)`` on news.

    News are changes that could alter a reconcile's result: a renewed lease or a moved LSN is none.
    """

    def __init__(self, client: ApiClient, changed: Callable[[str, str], None]) -> None:
        self._client = client
        self._changed = changed
        self._seen: dict[tuple[str, Key], Any] = {}
        self._applied: dict[tuple[str, Key], Obj] = {}
        self._gone: deque[str] = deque(maxlen=2000)
        self._caches: dict[str, Cache] = {
            kind.plural: Cache(client, kind, labels=names.CLUSTER, changed=self._on(kind))
            for kind in OWNED
        }
        self.clusters = Cache(client, POSTGRES_CLUSTER, changed=self._on(POSTGRES_CLUSTER))
        self._roots = Cache(
            client,
            SECRET,
            fields=f"metadata.name={names.ROOT_SECRET}",
            changed=self._root_changed,
        )

    async def run(self) -> None:
        """Keep every cache current until cancelled."""
        async with asyncio.TaskGroup() as group:
            for cache in self._all():
                group.create_task(cache.run())

    async def synced(self) -> None:
        """Wait until every cache has been listed once."""
        for cache in self._all():
            await cache.synced.wait()

    def _all(self) -> list[Cache]:
        return [self.clusters, self._roots, *self._caches.values()]

    def get(self, kind: Kind, name: str, namespace: str) -> Obj | None:
        return self._caches[kind.plural].get(name, namespace)

    def root(self, namespace: str) -> Obj | None:
        """Return the namespace's Secret with the root certificate."""
        return self._roots.get(names.ROOT_SECRET, namespace)

    def list(self, kind: Kind, key: Key, labels: Mapping[str, str] | None = None) -> list[Obj]:
        """Return the objects labelled with cluster ``key`` and with all of ``labels``."""
        wanted = {names.CLUSTER: key[1]} | dict(labels or {})
        return [
            obj
            for (namespace, _), obj in self._caches[kind.plural].items.items()
            if namespace == key[0] and wanted.items() <= labels_of(obj).items()
        ]

    async def apply(self, kind: Kind, obj: Obj) -> Obj:
        """Apply an object, or leave it where the same was applied before and nobody changed it."""
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        found = self._cache_of(kind, key).items.get(key)
        if (
            found is not None
            and self._applied.get((kind.plural, key)) == obj
            and contains(found, obj)
        ):
            return found
        result = await self._client.apply(kind, obj, field_manager=names.FIELD_MANAGER, force=True)
        self._applied[kind.plural, key] = obj
        self._remember(kind, key, result)
        return result

    async def patch(self, kind: Kind, obj: Obj, patch: Obj, *, sub: str = "") -> Obj:
        """Send a merge patch as the operator."""
        metadata = obj["metadata"]
        result = await self._client.patch(
            kind,
            metadata["name"],
            metadata["namespace"],
            patch,
            sub=sub,
            field_manager=names.FIELD_MANAGER,
        )
        self._remember(kind, (metadata["namespace"], metadata["name"]), result)
        return result

    async def delete(self, kind: Kind, obj: Obj, *, exact: bool = False) -> None:
        """Delete an object of this UID; ``exact`` refuses one that changed since it was read."""
        metadata = obj["metadata"]
        try:
            await self._client.delete(
                kind,
                metadata["name"],
                metadata["namespace"],
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"] if exact else None,
                # Jobs orphan their pods unless told otherwise.
                propagation="Background",
            )
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            if error.code == 409 and exact:
                raise

    def _cache_of(self, kind: Kind, key: Key) -> Cache:
        if kind is SECRET and key[1] == names.ROOT_SECRET:
            return self._roots
        return self.clusters if kind is POSTGRES_CLUSTER else self._caches[kind.plural]

    def _remember(self, kind: Kind, key: Key, obj: Obj) -> None:
        """Put an answer into the cache before the watch brings it, so the next pass sees it."""
        if obj["metadata"]["uid"] in self._gone:
            return
        obj.setdefault("apiVersion", kind.api_version)
        obj.setdefault("kind", kind.kind)
        items = self._cache_of(kind, key).items
        known = items.get(key)
        if known is None or _newer(obj, known):
            items[key] = obj
            self._seen[kind.plural, key] = digest(kind, obj)

    def _on(self, kind: Kind) -> Callable[[str, Obj], None]:
        def changed(event: str, obj: Obj) -> None:
            metadata = obj["metadata"]
            key = (metadata.get("namespace", ""), metadata["name"])
            if event == "DELETED":
                self._gone.append(metadata["uid"])
                self._seen.pop((kind.plural, key), None)
                self._applied.pop((kind.plural, key), None)
            else:
                now = digest(kind, obj)
                if self._seen.get((kind.plural, key)) == now:
                    return
                self._seen[kind.plural, key] = now
            owner = key if kind is POSTGRES_CLUSTER else cluster_of(obj)
            if owner and not _foreign(kind, obj):
                self._changed(*owner)

        return changed

    def _root_changed(self, event: str, obj: Obj) -> None:
        if event == "DELETED":
            self._applied.pop((SECRET.plural, _key(obj)), None)
        for namespace, name in self.clusters.items:
            if namespace == obj["metadata"]["namespace"]:
                self._changed(namespace, name)


def contains(found: Any, wanted: Any) -> bool:
    """Say whether everything in ``wanted`` is in ``found``; the server may have added defaults.

    Lists are compared item by item: what the operator applies has no list that others extend,
    except owner references.
    """
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return False
        return all(
            (name in found and contains(found[name], value)) or (name not in found and not value)
            for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) < len(wanted):
            return False
        return all(contains(a, b) for a, b in zip(found, wanted, strict=False))
    return bool(found == wanted)


def digest(kind: Kind, obj: Obj) -> Any:
    """Return what of an object matters to a reconcile; equal digests mean no news."""
    if kind is POD:
        return _pod_digest(obj)
    if kind is ENDPOINTS:
        notes = {k: v for k, v in annotations_of(obj).items() if k not in _RENEWED}
        subsets = obj.get("subsets") if labels_of(obj).get(names.ROLE) == "primary" else None
        return json.dumps([notes, subsets], sort_keys=True)
    if kind is POSTGRES_CLUSTER:
        return _meta_digest(obj)
    if kind.plural in _STATUS_FIELDS:
        status = obj.get("status") or {}
        kept = [status.get(name) for name in _STATUS_FIELDS[kind.plural]]
        conditions = [(c["type"], c["status"]) for c in status.get("conditions") or []]
        return _meta_digest(obj), json.dumps([kept, conditions], sort_keys=True)
    return obj["metadata"]["resourceVersion"]


def _meta_digest(obj: Obj) -> Any:
    """Cover everything but the status; a kind without generations brings its spec instead."""
    metadata = obj["metadata"]
    rest: list[Any] = [annotations_of(obj), labels_of(obj)]
    rest += [metadata.get(name) for name in ("finalizers", "ownerReferences")]
    rest.append(metadata.get("generation") or obj.get("spec"))
    return metadata["uid"], metadata.get("deletionTimestamp"), json.dumps(rest, sort_keys=True)


def _pod_digest(pod: Obj) -> Any:
    status = pod.get("status") or {}
    metadata = pod["metadata"]
    return (
        metadata["uid"],
        metadata.get("deletionTimestamp"),
        labels_of(pod).get(names.ROLE),
        tuple(c.get("status") for c in status.get("conditions") or [] if c["type"] == "Ready"),
        tuple(
            "running" in (c.get("state") or {})
            for c in status.get("containerStatuses") or []
            if c["name"] == names.DATABASE
        ),
        tuple(str(patroni_status(pod).get(name)) for name in _STATUS_KEPT),
    )


def patroni_status(pod: Obj) -> Obj:
    """Return what Patroni wrote of itself on its pod, empty where it wrote nothing (yet)."""
    try:
        found = json.loads(annotations_of(pod).get("status") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _foreign(kind: Kind, obj: Obj) -> bool:
    """Say whether Endpoints are the endpoint controller's: nothing follows from them."""
    labels = labels_of(obj)
    return kind is ENDPOINTS and names.PATRONI not in labels and labels.get(names.ROLE) != "primary"


def _newer(one: Obj, other: Obj) -> bool:
    """Compare resourceVersions: numbers, as Kubernetes promises since 1.35 and always was."""
    return int(one["metadata"]["resourceVersion"]) > int(other["metadata"]["resourceVersion"])


def _key(obj: Obj) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
