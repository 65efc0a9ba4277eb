"""The Deployment controller."""

from __future__ import annotations

import copy

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.adoption import controller_of, owned
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.deployment_plan import (
    DESIRED,
    HASH_LABEL,
    MAXIMUM,
    REVISION,
    Limits,
    counted,
    revision_number,
    rolling_sizes,
    size_of,
    status_of,
    wanted_replicas,
)
from pytest_pgo_eks.local.controllers.hashes import content_hash
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.merging import condition_of
from pytest_pgo_eks.local.controllers.pods import is_terminal, is_terminating, owner_reference
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import (
    DEPLOYMENT,
    POD,
    REPLICA_SET,
    Obj,
    annotations_of,
    key,
    labels_of,
)

_SOURCE = "deployment-controller"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    DESIRED,
    MAXIMUM,
}


class Deployments:
    """Rolls every Deployment's pods from one template to the next."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deployments = context.of(DEPLOYMENT)
        self._sets = context.of(REPLICA_SET)
        self._pods = context.of(POD)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("deployment", self._sync)
        self._deployments.listen(lambda change: self._queue.add(key(change.obj)))
        self._sets.listen(self._set_changed)
        self._pods.listen(self._pod_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _set_changed(self, change: Change) -> None:
        name = controller_of(change.obj, "Deployment")
        if name:
            self._queue.add((key(change.obj)[0], name))

    def _pod_changed(self, change: Change) -> None:
        """With Recreate the new pods wait until the last old one is really gone."""
        if change.new is None:
            namespace = key(change.obj)[0]
            owner = controller_of(change.obj, "ReplicaSet")
            found = self._sets.get(owner, namespace) if owner else None
            name = controller_of(found, "Deployment") if found else None
            if name:
                self._queue.add((namespace, name))

    async def _sync(self, where: tuple[str, str]) -> float | None:
        deployment = self._deployments.get(where[1], where[0])
        if deployment is None:
            return None
        sets = await owned(self._context, REPLICA_SET, deployment)
        new = self._find_new(deployment, sets)
        if is_terminating(deployment):
            await self._write_status(deployment, new, sets)
            return None
        if not deployment["spec"].get("paused"):
            new = await self._roll(deployment, new, sets)
        elif new is not None and len(sets) == 1:
            await self._resize(deployment, new, wanted_replicas(deployment))
        sets = self._sets.controlled_by(deployment["metadata"]["uid"])
        if new is not None:
            new = self._sets.get(new["metadata"]["name"], where[0]) or new
        wait_s = await self._write_status(deployment, new, sets)
        await self._clean_history(deployment, new, sets)
        return wait_s

    def _find_new(self, deployment: Obj, sets: list[Obj]) -> Obj | None:
        template = _without_hash(deployment["spec"]["template"])
        same = [r for r in sets if _without_hash(r["spec"]["template"]) == template]
        return min(same, key=lambda r: r["metadata"].get("creationTimestamp", ""), default=None)

    async def _roll(self, deployment: Obj, new: Obj | None, sets: list[Obj]) -> Obj | None:
        old = [r for r in sets if new is None or r["metadata"]["uid"] != new["metadata"]["uid"]]
        if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            for replica_set in old:
                await self._resize(deployment, replica_set, 0)
            if any(self._lives(replica_set) for replica_set in old):
                return new
            new = await self._ensure_new(deployment, new, sets, wanted_replicas(deployment))
            await self._resize(deployment, new, wanted_replicas(deployment))
            return new
        limits = Limits.of(deployment)
        total = sum(size_of(r) for r in old)
        first = max(
            0, min(wanted_replicas(deployment) + limits.surge - total, wanted_replicas(deployment))
        )
        new = await self._ensure_new(deployment, new, sets, first)
        by_name = {r["metadata"]["name"]: r for r in [new, *old]}
        for name, size in rolling_sizes(deployment, new, old).items():
            await self._resize(deployment, by_name[name], size)
        await self._resize(deployment, new, None)
        return new

    def _lives(self, replica_set: Obj) -> bool:
        pods = self._pods.controlled_by(replica_set["metadata"]["uid"])
        return any(not is_terminal(pod) for pod in pods)

    async def _ensure_new(
        self, deployment: Obj, new: Obj | None, sets: list[Obj], size: int
    ) -> Obj:
        number = max((revision_number(r) for r in sets if r is not new), default=0) + 1
        if new is None:
            new = await self._make(deployment, number, size)
            self._say_scaled(deployment, new, 0, size)
        else:
            kept = max(number, revision_number(new))
            await self._annotate(REPLICA_SET, new, {REVISION: str(kept)})
            number = kept
        await self._annotate(DEPLOYMENT, deployment, {REVISION: str(number)})
        return new

    async def _annotate(self, kind: object, obj: Obj, wanted: dict[str, str]) -> None:
        which = REPLICA_SET if kind is REPLICA_SET else DEPLOYMENT
        known = annotations_of(obj)
        changed = {name: value for name, value in wanted.items() if known.get(name) != value}
        if changed:
            await self._context.patch(which, obj, {"metadata": {"annotations": changed}})

    async def _make(self, deployment: Obj, number: int, size: int) -> Obj:
        collisions = (deployment.get("status") or {}).get("collisionCount") or 0
        while True:
            made = _new_set(deployment, number, size, collisions)
            try:
                return await self._context.create(REPLICA_SET, made)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    what = f'Failed to create new replica set "{made["metadata"]["name"]}": {error.message}'
                    self._context.recorder.event(
                        deployment, "ReplicaSetCreateError", what, source=_SOURCE, warning=True
                    )
                    raise
            namespace, name = made["metadata"]["namespace"], made["metadata"]["name"]
            found = await self._context.client.get(REPLICA_SET, name, namespace)
            uids = {r["uid"] for r in found["metadata"].get("ownerReferences") or []}
            if deployment["metadata"]["uid"] in uids:
                return found
            collisions += 1
            await self._context.patch(
                DEPLOYMENT, deployment, {"status": {"collisionCount": collisions}}, sub="status"
            )

    async def _resize(self, deployment: Obj, replica_set: Obj, size: int | None) -> None:
        """Set the size (None: keep it) and the annotations that go with it."""
        wanted, limits = wanted_replicas(deployment), Limits.of(deployment)
        replica_set = self._sets.get(*reversed(key(replica_set))) or replica_set
        before = size_of(replica_set)
        patch: Obj = {}
        if size is not None and size != before:
            patch["spec"] = {"replicas": size}
        annotations = {DESIRED: str(wanted), MAXIMUM: str(wanted + limits.surge)}
        known = annotations_of(replica_set)
        if (size or before) and any(known.get(n) != v for n, v in annotations.items()):
            patch["metadata"] = {"annotations": annotations}
        if patch:
            await self._context.patch(REPLICA_SET, replica_set, patch)
        if size is not None and size != before:
            self._say_scaled(deployment, replica_set, before, size)

    def _say_scaled(self, deployment: Obj, replica_set: Obj, before: int, size: int) -> None:
        if before == size:
            return
        how = "up" if size > before else "down"
        what = f"Scaled {how} replica set {replica_set['metadata']['name']} from {before} to {size}"
        self._context.recorder.event(deployment, "ScalingReplicaSet", what, source=_SOURCE)

    async def _write_status(
        self, deployment: Obj, new: Obj | None, sets: list[Obj]
    ) -> float | None:
        failed = [c for r in sets if (c := condition_of(r, "ReplicaFailure"))]
        failure = failed[0].get("message", "") if failed else ""
        status, wait_s = status_of(deployment, new, sets, failure=failure)
        await self._context.set_status(DEPLOYMENT, deployment, status)
        return wait_s

    async def _clean_history(self, deployment: Obj, new: Obj | None, sets: list[Obj]) -> None:
        limit = deployment["spec"].get("revisionHistoryLimit")
        status = (new or {}).get("status") or {}
        if new is None or (status.get("availableReplicas") or 0) < wanted_replicas(deployment):
            return
        old = [
            r
            for r in sets
            if r["metadata"]["uid"] != new["metadata"]["uid"]
            and not size_of(r)
            and not counted([r], "replicas")
            and not is_terminating(r)
            and (r.get("status") or {}).get("observedGeneration", 0)
            >= r["metadata"].get("generation", 1)
        ]
        surplus = len(old) - (10 if limit is None else limit)
        for replica_set in sorted(old, key=revision_number)[: max(0, surplus)]:
            await self._context.delete(REPLICA_SET, replica_set, propagation="Background")


def _without_hash(template: Obj) -> Obj:
    labels = {k: v for k, v in _labels(template).items() if k != HASH_LABEL}
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if v is not None}
    metadata.pop("creationTimestamp", None)
    return template | {"metadata": metadata | {"labels": labels}}


def _labels(template: Obj) -> dict[str, str]:
    return (template.get("metadata") or {}).get("labels") or {}


def _new_set(deployment: Obj, number: int, size: int, collisions: int) -> Obj:
    template = copy.deepcopy(deployment["spec"]["template"])
    digest = content_hash(template, collisions)
    template["metadata"] = (template.get("metadata") or {}) | {
        "labels": {**_labels(template), HASH_LABEL: digest}
    }
    wanted = wanted_replicas(deployment)
    annotations = {k: v for k, v in annotations_of(deployment).items() if k not in _NOT_COPIED}
    annotations |= {
        REVISION: str(number),
        DESIRED: str(wanted),
        MAXIMUM: str(wanted + Limits.of(deployment).surge),
    }
    selector = copy.deepcopy(deployment["spec"]["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
    spec: Obj = {"replicas": size, "selector": selector, "template": template}
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment['metadata']['name']}-{digest}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": labels_of({"metadata": template["metadata"]}),
            "annotations": annotations,
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": spec,
    }
