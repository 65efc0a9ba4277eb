"""The StatefulSet controller."""

from __future__ import annotations

import copy

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.adoption import controller_of, orphan_owners, owned
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.pods import (
    is_terminating,
    owner_reference,
    pod_from_template,
)
from pytest_pgo_eks.local.controllers.revisions import (
    new_revision,
    next_number,
    obsolete,
    revision_data,
    template_of,
)
from pytest_pgo_eks.local.controllers.statefulset_plan import (
    INDEX_LABEL,
    NAME_LABEL,
    REVISION_LABEL,
    Plan,
    ordinal_of,
    plan,
    revision_of,
    status_of,
    wanted_ordinals,
)
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import CLAIM, CONTROLLER_REVISION, POD, STATEFUL_SET, Obj, key

_SOURCE = "statefulset-controller"


class StatefulSets:
    """Keeps every StatefulSet's pods, claims, revisions and status."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sets = context.of(STATEFUL_SET)
        self._pods = context.of(POD)
        self._revisions = context.of(CONTROLLER_REVISION)
        self._claims = context.of(CLAIM)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("statefulset", self._sync)
        self._sets.listen(lambda change: self._queue.add(key(change.obj)))
        self._pods.listen(self._pod_changed)
        self._claims.listen(self._claim_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _pod_changed(self, change: Change) -> None:
        pod = change.obj
        name = controller_of(pod, "StatefulSet")
        if name:
            self._queue.add((key(pod)[0], name))
        else:
            for owner in orphan_owners(self._context, STATEFUL_SET, pod):
                self._queue.add(key(owner))

    def _claim_changed(self, change: Change) -> None:
        """A claim that is gone may be one that a pod of a set waits for."""
        if change.new is None:
            namespace, name = key(change.obj)
            for owner in self._sets.within(namespace):
                if any(
                    f"-{owner['metadata']['name']}-" in name
                    for _ in owner["spec"].get("volumeClaimTemplates") or []
                ):
                    self._queue.add(key(owner))

    async def _sync(self, where: tuple[str, str]) -> float | None:
        owner = self._sets.get(where[1], where[0])
        if owner is None:
            return None
        name = owner["metadata"]["name"]
        pods = await owned(
            self._context,
            POD,
            owner,
            also=lambda pod: ordinal_of(pod["metadata"]["name"], name) is not None,
        )
        revisions = await owned(self._context, CONTROLLER_REVISION, owner)
        status = owner.get("status") or {}
        update, collisions = await self._update_revision(owner, revisions)
        current = status.get("currentRevision") or update
        if current != update and not any(r["metadata"]["name"] == current for r in revisions):
            current = update
        wait_s = None
        if not is_terminating(owner):
            steps = plan(owner, pods, current, update)
            wait_s = steps.look_again_s
            await self._do(owner, steps)
            await self._keep_claims(owner, pods)
            # What was made just now is in the cache already, and counts.
            pods = self._pods.controlled_by(owner["metadata"]["uid"])
        new_status, status_wait_s = status_of(owner, pods, current, update, collisions)
        await self._context.set_status(STATEFUL_SET, owner, new_status)
        await self._truncate(owner, pods, {new_status["currentRevision"], update})
        waits = [w for w in (wait_s, status_wait_s) if w]
        return min(waits, default=None)

    async def _update_revision(self, owner: Obj, revisions: list[Obj]) -> tuple[str, int]:
        """Return the name of the present template's revision, made when it is new."""
        data = revision_data(owner)
        collisions = (owner.get("status") or {}).get("collisionCount") or 0
        same = [r for r in revisions if r["data"] == data]
        if same:
            newest = max(same, key=lambda r: r["revision"])
            if newest["revision"] != max(r["revision"] for r in revisions):
                patch = {"revision": next_number(revisions)}  # rolled back: it is the newest again
                await self._context.patch(CONTROLLER_REVISION, newest, patch)
            return newest["metadata"]["name"], collisions
        while True:
            made = new_revision(owner, next_number(revisions), collisions)
            try:
                answer = await self._context.create(CONTROLLER_REVISION, made)
            except ApiError as error:
                if error.code != 409 or error.reason != "AlreadyExists":
                    raise
                found = await self._context.client.get(
                    CONTROLLER_REVISION, made["metadata"]["name"], made["metadata"]["namespace"]
                )
                if found["data"] == data:
                    return found["metadata"]["name"], collisions
                collisions += 1
            else:
                return answer["metadata"]["name"], collisions

    async def _do(self, owner: Obj, steps: Plan) -> None:
        recorder = self._context.recorder
        name = owner["metadata"]["name"]
        for pod in steps.recreate:
            pod_name = pod["metadata"]["name"]
            recorder.event(
                owner,
                "RecreatingFailedPod",
                f"StatefulSet {owner['metadata']['namespace']}/{name} is recreating failed Pod {pod_name}",
                source=_SOURCE,
                warning=True,
            )
            await self._remove(owner, pod)
        for ordinal, revision in steps.create.items():
            await self._make(owner, ordinal, revision)
        for pod in steps.delete:
            await self._remove(owner, pod)

    async def _remove(self, owner: Obj, pod: Obj) -> None:
        if await self._context.delete(POD, pod):
            what = f"delete Pod {pod['metadata']['name']} in StatefulSet {owner['metadata']['name']} successful"
            self._context.recorder.event(owner, "SuccessfulDelete", what, source=_SOURCE)

    async def _make(self, owner: Obj, ordinal: int, revision: str) -> None:
        template = owner["spec"]["template"]
        kept = self._revisions.get(revision, owner["metadata"]["namespace"])
        if kept:
            template = template_of(kept)
        pod = new_pod(owner, template, ordinal, revision)
        set_name, pod_name = owner["metadata"]["name"], pod["metadata"]["name"]
        for claim in new_claims(owner, ordinal):
            if self._claims.get(claim["metadata"]["name"], claim["metadata"]["namespace"]):
                continue
            try:
                await self._context.create(CLAIM, claim)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
            else:
                what = (
                    f"create Claim {claim['metadata']['name']} Pod {pod_name} "
                    f"in StatefulSet {set_name} success"
                )
                self._context.recorder.event(owner, "SuccessfulCreate", what, source=_SOURCE)
        try:
            await self._context.create(POD, pod)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                raise  # the old pod of that name is still there; its end brings us back
            what = f"create Pod {pod_name} in StatefulSet {set_name} failed error: {error.message}"
            self._context.recorder.event(owner, "FailedCreate", what, source=_SOURCE, warning=True)
            raise
        what = f"create Pod {pod_name} in StatefulSet {set_name} successful"
        self._context.recorder.event(owner, "SuccessfulCreate", what, source=_SOURCE)

    async def _keep_claims(self, owner: Obj, pods: list[Obj]) -> None:
        """Make the claims' owner references say what the retention policy wants."""
        policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        if "Delete" not in policy.values():
            return
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        name, namespace = owner["metadata"]["name"], owner["metadata"]["namespace"]
        for pod_name, pod in by_name.items():
            ordinal = ordinal_of(pod_name, name)
            if ordinal is None:
                continue
            wanted: list[Obj] = []
            if policy.get("whenDeleted") == "Delete":
                wanted.append(owner_reference(owner))
            if policy.get("whenScaled") == "Delete" and ordinal not in wanted_ordinals(owner):
                wanted = [owner_reference(pod)]
            uids = {owner["metadata"]["uid"], pod["metadata"]["uid"]}
            for made in new_claims(owner, ordinal):
                claim = self._claims.get(made["metadata"]["name"], namespace)
                if claim is None:
                    continue
                known = claim["metadata"].get("ownerReferences") or []
                references = [r for r in known if r["uid"] not in uids] + wanted
                if {r["uid"] for r in references} != {r["uid"] for r in known}:
                    patch = {"metadata": {"ownerReferences": references}}
                    await self._context.patch(CLAIM, claim, patch)

    async def _truncate(self, owner: Obj, pods: list[Obj], live: set[str]) -> None:
        limit = owner["spec"].get("revisionHistoryLimit")
        revisions = self._revisions.controlled_by(owner["metadata"]["uid"])
        live |= {revision_of(pod) for pod in pods}
        for old in obsolete(revisions, live, 10 if limit is None else limit):
            await self._context.delete(CONTROLLER_REVISION, old)


def new_pod(owner: Obj, template: Obj, ordinal: int, revision: str) -> Obj:
    """Return the set's pod of an ordinal: stable name, host name and claims."""
    name = f"{owner['metadata']['name']}-{ordinal}"
    labels = {REVISION_LABEL: revision, NAME_LABEL: name, INDEX_LABEL: str(ordinal)}
    pod = pod_from_template(owner, template, labels=labels, name=name)
    spec = pod["spec"]
    spec["hostname"] = name
    if owner["spec"].get("serviceName"):
        spec["subdomain"] = owner["spec"]["serviceName"]
    claims = {
        t["metadata"]["name"]: f"{t['metadata']['name']}-{name}"
        for t in owner["spec"].get("volumeClaimTemplates") or []
    }
    volumes = [v for v in spec.get("volumes") or [] if v["name"] not in claims]
    volumes += [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": False}}
        for volume, claim in claims.items()
    ]
    if volumes:
        spec["volumes"] = volumes
    return pod


def new_claims(owner: Obj, ordinal: int) -> list[Obj]:
    """Return the claims of one ordinal, from the set's templates."""
    made = []
    for template in owner["spec"].get("volumeClaimTemplates") or []:
        metadata = copy.deepcopy(template["metadata"])
        metadata = {k: metadata[k] for k in ("labels", "annotations") if metadata.get(k)}
        selected = (owner["spec"].get("selector") or {}).get("matchLabels") or {}
        labels = {**(metadata.get("labels") or {}), **selected}
        metadata |= {
            "name": f"{template['metadata']['name']}-{owner['metadata']['name']}-{ordinal}",
            "namespace": owner["metadata"]["namespace"],
            "labels": labels,
        }
        made.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": metadata,
                "spec": copy.deepcopy(template["spec"]),
            }
        )
    return made
