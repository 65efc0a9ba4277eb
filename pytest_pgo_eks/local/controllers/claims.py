"""PersistentVolumeClaims: binding, making volumes, expansion, protection."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.pods import claims_of, node_of
from pytest_pgo_eks.local.controllers.quantities import quantity
from pytest_pgo_eks.local.controllers.scheduling_volumes import SELECTED_NODE
from pytest_pgo_eks.local.controllers.volume_rules import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    CLAIM_FINALIZER,
    DEFAULT_CLASS,
    STORAGE_PROVISIONER,
    STORAGE_PROVISIONER_BETA,
    belongs_to,
    best_volume,
    claim_reference,
    default_class,
    new_volume,
    requested,
)
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import (
    CLAIM,
    LIMITED_CLASS,
    NODE,
    PERSISTENT_VOLUME,
    POD,
    STORAGE_CLASS,
    Obj,
    annotations_of,
    key,
)

_SOURCE = "persistentvolume-controller"


class Claims:
    """Binds claims to volumes and makes the volumes of the stand-in's own StorageClass."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config = context.config
        self._claims = context.of(CLAIM)
        self._volumes = context.of(PERSISTENT_VOLUME)
        self._classes = context.of(STORAGE_CLASS)
        self._pods = context.of(POD)
        self._nodes = context.of(NODE)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("claim", self._sync)
        self._claims.listen(lambda change: self._queue.add(key(change.obj)))
        self._volumes.listen(self._volume_changed)
        self._classes.listen(lambda _: self._all_unbound())
        self._pods.listen(self._pod_changed)

    async def run(self) -> None:
        await self._ensure_class(self._config.storage_class, default=True)
        # A file system in memory does not grow with its claim.
        await self._ensure_class(LIMITED_CLASS, expandable=False)
        await self._queue.run()

    def _volume_changed(self, change: Change) -> None:
        reference = change.obj["spec"].get("claimRef")
        if reference:
            self._queue.add((reference.get("namespace", ""), reference["name"]))
        else:
            self._all_unbound()

    def _all_unbound(self) -> None:
        for claim in self._claims:
            if not claim["spec"].get("volumeName"):
                self._queue.add(key(claim))

    def _pod_changed(self, change: Change) -> None:
        """A pod that is gone may be the last that held a deleted claim."""
        if change.new is None:
            for name in claims_of(change.obj):
                self._queue.add((key(change.obj)[0], name))

    async def _ensure_class(
        self, name: str, *, default: bool = False, expandable: bool = True
    ) -> None:
        made = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": name,
                "annotations": {DEFAULT_CLASS: "true"} if default else {},
            },
            "provisioner": self._config.provisioner,
            "reclaimPolicy": "Delete",
            # As on EKS: the node is chosen first, and the volume then belongs to its zone.
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": expandable,
        }
        while self._classes.get(name) is None:
            try:
                await self._context.create(STORAGE_CLASS, made)
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    return
                await asyncio.sleep(0.2)

    async def _sync(self, where: tuple[str, str]) -> None:
        claim = self._claims.get(where[1], where[0])
        if claim is None:
            return
        if claim["metadata"].get("deletionTimestamp"):
            await self._release(claim)
            return
        if annotations_of(claim).get(BIND_COMPLETED):
            await self._keep_bound(claim)
            return
        if claim["spec"].get("storageClassName") is None:
            default = default_class(self._classes)
            if default:
                patch = {"spec": {"storageClassName": default["metadata"]["name"]}}
                await self._context.patch(CLAIM, claim, patch)
                return  # its change brings us back
        await self._bind_or_make(claim)

    async def _bind_or_make(self, claim: Obj) -> None:
        storage_class = self._classes.get(claim["spec"].get("storageClassName") or "")
        late = (
            storage_class is not None
            and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
        )
        node_name = annotations_of(claim).get(SELECTED_NODE)
        node = self._nodes.get(node_name) if node_name else None
        if node_name and node is None:
            # The chosen node is gone: the scheduler has to choose again.
            patch = {"metadata": {"annotations": {SELECTED_NODE: None}}}
            await self._context.patch(CLAIM, claim, patch)
            return
        prebound = claim["spec"].get("volumeName")
        volume = None
        if not late or node is not None or prebound:
            volume = best_volume(claim, self._volumes, node)
        if volume is None and prebound:
            await self._pending(claim)
            return
        if volume is None:
            if late and node is None:
                await self._pending(claim)
                self._say_waiting(claim)
                return
            if storage_class is None or storage_class["provisioner"] != self._config.provisioner:
                await self._pending(claim)
                self._say_unprovisioned(claim, storage_class)
                return
            volume = await self._make(claim, storage_class, node)
        await self._bind(claim, volume)

    async def _make(self, claim: Obj, storage_class: Obj, node: Obj | None) -> Obj:
        provisioner = self._config.provisioner
        if STORAGE_PROVISIONER not in annotations_of(claim):
            self._say(
                claim,
                "ExternalProvisioning",
                "Waiting for a volume to be created either by the external provisioner "
                f"'{provisioner}' or manually by the system administrator. If volume creation is "
                "delayed, please verify that the provisioner is running and correctly registered.",
            )
        where = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
        volume = new_volume(claim, storage_class, node, self._config.storage_root)
        what = f'External provisioner is provisioning volume for claim "{where}"'
        self._say(claim, "Provisioning", what, source=provisioner)
        path = Path(volume["spec"]["hostPath"]["path"])
        try:
            _make_directory(path)
        except OSError as error:
            what = f'failed to provision volume with StorageClass "{claim["spec"]["storageClassName"]}": {error}'
            self._say(claim, "ProvisioningFailed", what, source=provisioner, warning=True)
            raise
        try:
            made = await self._context.create(PERSISTENT_VOLUME, volume)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            made = await self._context.client.get(PERSISTENT_VOLUME, volume["metadata"]["name"])
        what = f"Successfully provisioned volume {made['metadata']['name']}"
        self._say(claim, "ProvisioningSucceeded", what, source=provisioner)
        return made

    async def _bind(self, claim: Obj, volume: Obj) -> None:
        if (volume["spec"].get("claimRef") or {}).get("uid") != claim["metadata"]["uid"]:
            patch: Obj = {
                "metadata": {"resourceVersion": volume["metadata"]["resourceVersion"]},
                "spec": {"claimRef": claim_reference(claim)},
            }
            volume = await self._context.patch(PERSISTENT_VOLUME, volume, patch)
        annotations = {BIND_COMPLETED: "yes"}
        if not claim["spec"].get("volumeName"):
            annotations[BOUND_BY_CONTROLLER] = "yes"
        provisioner = annotations_of(volume).get("pv.kubernetes.io/provisioned-by")
        if provisioner:
            annotations |= {
                STORAGE_PROVISIONER: provisioner,
                STORAGE_PROVISIONER_BETA: provisioner,
            }
        patch = {
            "metadata": {"annotations": annotations},
            "spec": {"volumeName": volume["metadata"]["name"]},
        }
        if CLAIM_FINALIZER not in (claim["metadata"].get("finalizers") or []):
            finalizers = [*(claim["metadata"].get("finalizers") or []), CLAIM_FINALIZER]
            patch["metadata"]["finalizers"] = finalizers
        claim = await self._context.patch(CLAIM, claim, patch)
        await self._mark_bound(claim, volume)

    async def _mark_bound(self, claim: Obj, volume: Obj) -> None:
        status = dict(claim.get("status") or {})
        status |= {
            "phase": "Bound",
            "accessModes": volume["spec"].get("accessModes"),
            "capacity": {"storage": volume["spec"]["capacity"]["storage"]},
        }
        await self._context.set_status(CLAIM, claim, status)

    async def _keep_bound(self, claim: Obj) -> None:
        volume = self._volumes.get(claim["spec"].get("volumeName") or "")
        status = claim.get("status") or {}
        if volume is None or not belongs_to(volume, claim):
            if status.get("phase") == "Bound":
                await self._context.set_status(CLAIM, claim, status | {"phase": "Lost"})
                what = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
                self._say(claim, "ClaimLost", what, warning=True)
            return
        size = (volume["spec"].get("capacity") or {}).get("storage", "0")
        if quantity(requested(claim)) > quantity(size):
            await self._expand(claim, volume)
            return
        if status.get("phase") != "Bound" or (status.get("capacity") or {}).get("storage") != size:
            await self._mark_bound(claim, volume)

    async def _expand(self, claim: Obj, volume: Obj) -> None:
        storage_class = self._classes.get(claim["spec"].get("storageClassName") or "")
        source = f"external-resizer {self._config.provisioner}"
        if not (storage_class or {}).get("allowVolumeExpansion"):
            return
        name = volume["metadata"]["name"]
        self._say(claim, "Resizing", f"External resizer is resizing volume {name}", source=source)
        patch = {"spec": {"capacity": {"storage": requested(claim)}}}
        volume = await self._context.patch(PERSISTENT_VOLUME, volume, patch)
        await self._mark_bound(claim, volume)
        self._say(claim, "VolumeResizeSuccessful", "Resize volume succeeded", source=source)

    async def _release(self, claim: Obj) -> None:
        """Let a deleted claim go once no pod on a node uses it."""
        namespace, name = key(claim)
        finalizers = claim["metadata"].get("finalizers") or []
        if CLAIM_FINALIZER not in finalizers:
            return
        if any(node_of(p) and name in claims_of(p) for p in self._pods.within(namespace)):
            return
        patch = {"metadata": {"finalizers": [f for f in finalizers if f != CLAIM_FINALIZER]}}
        await self._context.patch(CLAIM, claim, patch)

    async def _pending(self, claim: Obj) -> None:
        if not (claim.get("status") or {}).get("phase"):
            await self._context.set_status(CLAIM, claim, {"phase": "Pending"})

    def _say_waiting(self, claim: Obj) -> None:
        namespace, name = key(claim)
        users = [p for p in self._pods.within(namespace) if name in claims_of(p) and not node_of(p)]
        if users:
            what = f"waiting for pod {users[0]['metadata']['name']} to be scheduled"
            self._say(claim, "WaitForPodScheduled", what)
        else:
            what = "waiting for first consumer to be created before binding"
            self._say(claim, "WaitForFirstConsumer", what)

    def _say_unprovisioned(self, claim: Obj, storage_class: Obj | None) -> None:
        if storage_class is not None:
            return  # another provisioner's work
        wanted = claim["spec"].get("storageClassName")
        if wanted:
            what = f'storageclass.storage.k8s.io "{wanted}" not found'
            self._say(claim, "ProvisioningFailed", what, warning=True)
        else:
            what = "no persistent volumes available for this claim and no storage class is set"
            self._say(claim, "FailedBinding", what)

    def _say(
        self, claim: Obj, reason: str, message: str, *, source: str = _SOURCE, warning: bool = False
    ) -> None:
        self._context.recorder.event(claim, reason, message, source=source, warning=warning)


def _make_directory(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)  # the pod's user is not ours; its data directory guards itself
