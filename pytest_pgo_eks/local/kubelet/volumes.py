"""A pod's volumes as directories of the host: made before it starts, kept current while it runs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.kubelet import atomic
from pytest_pgo_eks.local.kubelet.environment import expand
from pytest_pgo_eks.local.kubelet.namespaces import mount_tmpfs, unmount
from pytest_pgo_eks.local.kubelet.payload import RENDERED, Content, Needs, NotYet, render
from pytest_pgo_eks.local.kubelet.references import Unresolvable, quantity
from pytest_pgo_eks.local.kubelet.rootfs import Mount
from pytest_pgo_eks.local.objects import CLAIM, LIMITED_CLASS, PERSISTENT_VOLUME, Obj

_ANY_NODE = {"ReadWriteMany", "ReadOnlyMany"}


class Attachments:
    """Which node a persistent volume is attached to.

    As with EBS: a ReadWriteOnce volume goes to another node only after the last pod that uses it
    on the first is gone. Without this a partitioned primary and its replacement would run two
    PostgreSQL servers on one data directory.
    """

    def __init__(self) -> None:
        self._users: dict[str, dict[str, str]] = {}

    def attach(self, volume: str, node: str, pod_uid: str, *, anywhere: bool) -> None:
        """Take the volume.

        :raises NotYet: a pod on another node still has it.
        """
        users = self._users.setdefault(volume, {})
        if not anywhere and any(where != node for where in users.values()):
            raise NotYet(
                f'Multi-Attach error for volume "{volume}" Volume is already used by pod(s) on '
                "another node"
            )
        users[pod_uid] = node

    def release(self, pod_uid: str) -> None:
        for users in self._users.values():
            users.pop(pod_uid, None)


@dataclass
class Volumes:
    """The volumes of one pod below ``root``."""

    client: ApiClient
    attachments: Attachments
    node: str
    root: Path
    _sources: dict[str, Path] = field(default_factory=dict)
    _read_only: set[str] = field(default_factory=set)
    _mounted: list[Path] = field(default_factory=list)
    # What each volume shows, so that a change of a label (Patroni makes one every few seconds)
    # does not read every file again.
    _shown: dict[str, dict[str, Content]] = field(default_factory=dict)

    async def prepare(self, pod: Obj, needs: Needs) -> dict[str, str]:
        """Make every volume that can be made; return what is missing, by volume.

        Call it again until nothing is missing.
        """
        missing: dict[str, str] = {}
        for volume in pod["spec"].get("volumes") or []:
            name = volume["name"]
            if name in self._sources:
                continue
            try:
                self._sources[name] = await self._make(pod, volume, needs)
            except (NotYet, Unresolvable, OSError, ApiError) as problem:
                missing[name] = str(problem)
        return missing

    def refresh(self, pod: Obj, needs: Needs) -> dict[str, str]:
        """Write rendered volumes again where their sources changed; return what failed."""
        failed: dict[str, str] = {}
        for volume in pod["spec"].get("volumes") or []:
            name = volume["name"]
            if name in self._sources and _rendered(volume):
                try:
                    files = render(pod, volume, needs)
                    if files != self._shown.get(name):
                        atomic.write(self._sources[name], files)
                        self._shown[name] = files
                except (NotYet, Unresolvable, OSError) as problem:
                    # Like the kubelet: the files stay as they were when their source goes away.
                    failed[name] = str(problem)
        return failed

    def mounts(self, container: Obj, env: Mapping[str, str]) -> tuple[Mount, ...]:
        """Return the container's mounts; a missing subPath is made as a directory.

        :raises NotYet: a mount names a volume that the pod does not have.
        """
        found = []
        for mount in container.get("volumeMounts") or []:
            source = self._sources.get(mount["name"])
            if source is None:
                raise NotYet(f'volume "{mount["name"]}" is not mounted')
            sub = mount.get("subPath") or _expanded(mount.get("subPathExpr"), env)
            if sub:
                inside = source / sub
                if ".." in Path(sub).parts:
                    raise NotYet(f'subPath "{sub}" must not contain ".."')
                if not inside.exists():
                    inside.mkdir(parents=True)
                # The target of the ..data link now: like the kubelet's, such a mount stays old.
                source = inside.resolve()
            read_only = bool(mount.get("readOnly")) or mount["name"] in self._read_only
            found.append(Mount(source, mount["mountPath"], read_only))
        return tuple(found)

    def close(self, pod_uid: str) -> None:
        """Give volumes back, and remove what only this pod had."""
        for path in self._mounted:
            with contextlib.suppress(OSError):
                unmount(path)
        self._mounted.clear()
        self._sources.clear()
        self.attachments.release(pod_uid)
        shutil.rmtree(self.root, ignore_errors=True)

    async def _make(self, pod: Obj, volume: Mapping[str, Any], needs: Needs) -> Path:
        if volume.get("persistentVolumeClaim"):
            return await self._claim(pod, volume["name"], volume["persistentVolumeClaim"])
        if volume.get("hostPath"):
            return _host_path(volume["hostPath"])
        path = self.root / str(volume["name"])
        if _rendered(volume):
            files = render(pod, volume, needs)
            _directory(path, 0o755)
            atomic.write(path, files)
            self._shown[volume["name"]] = files
            self._read_only.add(volume["name"])
            return path
        if volume.get("emptyDir") is None:
            raise NotYet(f'volume "{volume["name"]}" is of a kind that the stand-in does not have')
        _directory(path, 0o777)
        if volume["emptyDir"].get("medium") == "Memory":
            limit = volume["emptyDir"].get("sizeLimit")
            mount_tmpfs(path, size_bytes=int(quantity(limit)) if limit else None)
            self._mounted.append(path)
        return path

    async def _claim(self, pod: Obj, name: str, source: Mapping[str, Any]) -> Path:
        namespace = pod["metadata"]["namespace"]
        claim = await self.client.find(CLAIM, source["claimName"], namespace)
        if claim is None:
            raise NotYet(f'persistentvolumeclaim "{source["claimName"]}" not found')
        bound = (claim.get("status") or {}).get("phase") == "Bound"
        volume_name = claim["spec"].get("volumeName")
        if not bound or not volume_name:
            raise NotYet(f'PVC "{source["claimName"]}" is not bound')
        found = await self.client.find(PERSISTENT_VOLUME, volume_name)
        if found is None:
            raise NotYet(f'persistentvolume "{volume_name}" not found')
        spec = found["spec"]
        where = (spec.get("hostPath") or spec.get("local") or {}).get("path")
        if not where:
            raise NotYet(f'persistentvolume "{volume_name}" has no path on this host')
        anywhere = bool(_ANY_NODE & set(spec.get("accessModes") or []))
        self.attachments.attach(volume_name, self.node, pod["metadata"]["uid"], anywhere=anywhere)
        if source.get("readOnly"):
            self._read_only.add(name)
        path = _existing(Path(str(where)))
        if spec.get("storageClassName") == LIMITED_CLASS and not path.is_mount():
            # It stays mounted until the volume is removed: its files outlive every pod.
            mount_tmpfs(path, size_bytes=int(quantity(spec["capacity"]["storage"])))
        return path


def _rendered(volume: Mapping[str, Any]) -> bool:
    return any(volume.get(kind) is not None for kind in RENDERED)


def _expanded(expression: str | None, env: Mapping[str, str]) -> str:
    return expand(expression, env) if expression else ""


def _directory(path: Path, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)


def _existing(path: Path) -> Path:
    """Return a volume's directory, made if nobody did."""
    if not path.exists():
        _directory(path, 0o777)
    return path


def _host_path(source: Mapping[str, Any]) -> Path:
    path, kind = Path(source["path"]), str(source.get("type") or "")
    if kind == "DirectoryOrCreate" or (kind == "" and not path.exists()):
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch(exist_ok=True)
    checks = {
        "Directory": path.is_dir,
        "File": path.is_file,
        "Socket": path.is_socket,
        "": path.exists,
    }
    if not checks.get(kind, path.exists)():
        raise NotYet(f"hostPath type check failed: {path} is not a {kind.lower() or 'path'}")
    return path
