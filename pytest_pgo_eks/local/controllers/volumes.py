"""PersistentVolumes: their phase, and what becomes of them when their claim is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local.controllers.clock import stamp
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.volume_rules import (
    PROVISIONED_BY,
    VOLUME_FINALIZER,
    belongs_to,
)
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import CLAIM, PERSISTENT_VOLUME, Obj, annotations_of

log = logging.getLogger(__name__)


class Volumes:
    """Keeps every volume's phase; removes released volumes whose policy is Delete."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._volumes = context.of(PERSISTENT_VOLUME)
        self._claims = context.of(CLAIM)
        self._queue: WorkQueue[str] = WorkQueue("volume", self._sync)
        self._volumes.listen(lambda change: self._queue.add(change.obj["metadata"]["name"]))
        self._claims.listen(self._claim_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _claim_changed(self, change: Change) -> None:
        volume = change.obj["spec"].get("volumeName")
        if volume:
            self._queue.add(volume)

    async def _sync(self, name: str) -> None:
        volume = self._volumes.get(name)
        if volume is None:
            return
        phase = self._phase(volume)
        if (volume.get("status") or {}).get("phase") != phase:
            status = dict(volume.get("status") or {})
            status |= {"phase": phase, "lastPhaseTransitionTime": stamp()}
            await self._context.set_status(PERSISTENT_VOLUME, volume, status)
            volume = self._volumes.get(name) or volume
        deleting = volume["metadata"].get("deletionTimestamp")
        known = volume["metadata"].get("finalizers") or []
        if not deleting and VOLUME_FINALIZER not in known:
            patch = {"metadata": {"finalizers": [*known, VOLUME_FINALIZER]}}
            volume = await self._context.patch(PERSISTENT_VOLUME, volume, patch)
        ours = annotations_of(volume).get(PROVISIONED_BY) == self._context.config.provisioner
        policy = volume["spec"].get("persistentVolumeReclaimPolicy", "Retain")
        if phase == "Released" and policy == "Delete" and ours:
            await self._remove_directory(volume)
            if not deleting:
                await self._context.delete(PERSISTENT_VOLUME, volume)
                volume = self._volumes.get(name) or volume
            deleting = True
        if deleting and phase != "Bound":
            finalizers = volume["metadata"].get("finalizers") or []
            if VOLUME_FINALIZER in finalizers:
                kept = [f for f in finalizers if f != VOLUME_FINALIZER]
                patch = {"metadata": {"finalizers": kept}}
                await self._context.patch(PERSISTENT_VOLUME, volume, patch)

    def _phase(self, volume: Obj) -> str:
        reference = volume["spec"].get("claimRef")
        if not reference:
            return "Available"
        claim = self._claims.get(reference["name"], reference.get("namespace", ""))
        if claim is None or not belongs_to(volume, claim):
            # Reserved by name for a claim that is still to come, unless it had one before.
            return "Released" if reference.get("uid") else "Available"
        return "Bound"

    async def _remove_directory(self, volume: Obj) -> None:
        root = self._context.config.storage_root
        path = Path((volume["spec"].get("hostPath") or {}).get("path", "/"))
        await asyncio.to_thread(remove_volume, path, root)


def remove_volume(path: Path, root: Path) -> None:
    """Remove a volume's directory, if it is one directly below the storage root."""
    if path.parent.resolve() != root.resolve() or path.is_symlink():
        log.error("%s is no volume below %s: left alone", path, root)
        return
    if path.is_mount():
        # A volume that is a file system of its own: what uses it still keeps it until it ends.
        subprocess.run(["umount", "--lazy", str(path)], check=False)
    remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a directory with all it holds, whatever modes its owner gave it."""

    def retry(function: Any, name: str, _error: BaseException | object) -> None:
        with contextlib.suppress(FileNotFoundError):
            Path(name).parent.chmod(stat.S_IRWXU)
            if not Path(name).is_symlink():
                Path(name).chmod(stat.S_IRWXU)
            if function in (os.open, os.scandir, os.lstat) or function is os.rmdir:
                shutil.rmtree(name, ignore_errors=False)
            else:
                function(name)

    if path.exists():
        shutil.rmtree(path, onerror=retry)
