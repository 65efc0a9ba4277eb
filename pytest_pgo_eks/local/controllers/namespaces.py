"""Namespaces: what each new one gets, and how one that is deleted is emptied."""

from __future__ import annotations

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.clock import stamp
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.kinds import AllKinds
from pytest_pgo_eks.local.controllers.merging import set_condition
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import CONFIG_MAP, NAMESPACE, POD, SERVICE_ACCOUNT, Kind, Obj, key

_ROOT_CA = "kube-root-ca.crt"


class NamespaceDefaults:
    """Gives every namespace its default ServiceAccount and the cluster's CA certificate."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._namespaces = context.of(NAMESPACE)
        self._accounts = context.of(SERVICE_ACCOUNT)
        self._maps = context.of(CONFIG_MAP)
        self._queue: WorkQueue[str] = WorkQueue("namespace-defaults", self._sync)
        self._namespaces.listen(lambda change: self._queue.add(change.obj["metadata"]["name"]))
        self._accounts.listen(self._content_changed)
        self._maps.listen(self._content_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _content_changed(self, change: Change) -> None:
        namespace, name = key(change.obj)
        if change.old is not None and name in ("default", _ROOT_CA):
            self._queue.add(namespace)

    async def _sync(self, namespace: str) -> None:
        found = self._namespaces.get(namespace)
        if found is None or found["metadata"].get("deletionTimestamp"):
            return
        if self._accounts.get("default", namespace) is None:
            metadata: Obj = {"name": "default", "namespace": namespace}
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
            await self._ensure(SERVICE_ACCOUNT, account)
        known = self._maps.get(_ROOT_CA, namespace)
        data = {"ca.crt": self._context.config.cluster_ca}
        if known is None:
            metadata = {
                "name": _ROOT_CA,
                "namespace": namespace,
                "annotations": {
                    "kubernetes.io/description": "The CA that clients in pods verify the API server with."
                },
            }
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            await self._ensure(CONFIG_MAP, made)
        elif known.get("data") != data:
            await self._context.patch(CONFIG_MAP, known, {"data": data})

    async def _ensure(self, kind: Kind, obj: Obj) -> None:
        try:
            await self._context.create(kind, obj)
        except ApiError as error:
            # The API server may have made it, or the namespace is being deleted already.
            if error.reason != "AlreadyExists" and error.code not in (403, 404):
                raise


class NamespaceLifecycle:
    """Deletes everything in a namespace that is deleted, then lets it go."""

    def __init__(self, context: Context, kinds: AllKinds) -> None:
        self._context = context
        self._kinds = kinds
        self._namespaces = context.of(NAMESPACE)
        self._queue: WorkQueue[str] = WorkQueue("namespace", self._sync)
        self._ending: set[str] = set()
        self._namespaces.listen(self._namespace_changed)
        kinds.listen(self._content_changed)

    async def run(self) -> None:
        await self._kinds.ready.wait()
        await self._queue.run()

    def _namespace_changed(self, change: Change) -> None:
        name = change.obj["metadata"]["name"]
        if change.new and change.new["metadata"].get("deletionTimestamp"):
            self._ending.add(name)
            self._queue.add(name)
        else:
            self._ending.discard(name)

    def _content_changed(self, _kind: Kind, change: Change) -> None:
        namespace = key(change.obj)[0]
        if namespace in self._ending and (change.new is None or change.old is None):
            self._queue.add(namespace)

    async def _sync(self, name: str) -> float | None:
        namespace = self._namespaces.get(name)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return None
        left: dict[Kind, list[Obj]] = {}
        for kind, informer in self._kinds.watched().items():
            if not kind.namespaced:
                continue
            inside = informer.within(name)
            if inside:
                left[kind] = inside
        # Pods first and alone, as since Kubernetes 1.33: nothing they rely on goes before them.
        first = {POD: left[POD]} if POD in left else left
        for kind, inside in first.items():
            for obj in inside:
                if not obj["metadata"].get("deletionTimestamp"):
                    await self._context.delete(kind, obj, propagation="Background")
        watched = self._kinds.watched()
        left = {k: still for k in left if k in watched and (still := watched[k].within(name))}
        if left:
            await self._tell(namespace, left)
            return None  # each removal brings us back
        if await self._sweep(name):
            return 0.1
        await self._finalize(namespace)
        return None

    async def _sweep(self, name: str) -> bool:
        """Look once more, past our caches; True when something was still there."""
        found = False
        for kind in self._kinds.watched():
            if not kind.namespaced:
                continue
            for obj in (await self._context.client.list(kind, name)).items:
                found = True
                self._context.of(kind).learn(obj)
                if not obj["metadata"].get("deletionTimestamp"):
                    await self._context.delete(kind, obj, propagation="Background")
        events = Kind("v1", "Event", "events")
        try:
            await self._context.client.delete_collection(events, name)
        except ApiError as error:
            if error.code not in (403, 404, 405):
                raise
        return found

    async def _finalize(self, namespace: Obj) -> None:
        spec = namespace.get("spec") or {}
        kept = [f for f in spec.get("finalizers") or [] if f != "kubernetes"]
        body = namespace | {"spec": spec | {"finalizers": kept}}
        try:
            await self._context.client.replace(NAMESPACE, body, sub="finalize")
        except ApiError as error:
            if error.code != 404:
                raise

    async def _tell(self, namespace: Obj, left: dict[Kind, list[Obj]]) -> None:
        """Say in the conditions what the namespace still waits for."""
        counts = [f"{k.plural}. has {len(found)} resource instances" for k, found in left.items()]
        finalizers = sorted(
            {
                f
                for found in left.values()
                for o in found
                for f in o["metadata"].get("finalizers") or []
            }
        )
        status = dict(namespace.get("status") or {})
        conditions = status.get("conditions") or []
        now = stamp()
        remaining = {
            "type": "NamespaceContentRemaining",
            "status": "True",
            "reason": "SomeResourcesRemain",
            "message": f"Some resources are remaining: {', '.join(counts)}",
        }
        conditions = set_condition(conditions, remaining, now)
        blocked = {
            "type": "NamespaceFinalizersRemaining",
            "status": "True" if finalizers else "False",
            "reason": "SomeFinalizersRemain" if finalizers else "ContentHasNoFinalizers",
            "message": f"Some content in the namespace has finalizers remaining: {', '.join(finalizers)}"
            if finalizers
            else "All content-preserving finalizers finished",
        }
        status["conditions"] = set_condition(conditions, blocked, now)
        try:
            await self._context.set_status(NAMESPACE, namespace, status)
        except ApiError as error:
            if error.code != 404:
                raise
