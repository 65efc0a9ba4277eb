"""User namespaces that map our one real user to the number a container wants to be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from pytest_pgo_eks.local.kubelet.environment import ConfigProblem
from pytest_pgo_eks.local.kubelet.images import Image
from pytest_pgo_eks.local.kubelet.processes import settle, spawn
from pytest_pgo_eks.local.objects import Obj

_MAKE_S = 10.0
_PATH: Mapping[str, str] = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}


def wanted_user(pod: Obj, container: Obj, image: Image) -> tuple[int, int]:
    """Return the container's (uid, gid) by both security contexts and the image.

    :raises ConfigProblem: runAsNonRoot, and the user would be root.
    """
    context: dict[str, Any] = dict(pod["spec"].get("securityContext") or {})
    context |= container.get("securityContext") or {}
    uid = context.get("runAsUser")
    # With a user of its own but no group, a container runs in the root group on Kubernetes, too.
    default_gid = image.user.gid if uid in {None, image.user.uid} else 0
    gid = context.get("runAsGroup")
    chosen = image.user.uid if uid is None else int(uid)
    if context.get("runAsNonRoot") and chosen == 0:
        name = f'pod: "{pod["metadata"]["name"]}_{pod["metadata"]["namespace"]}'
        where = f'{name}({pod["metadata"]["uid"]})", container: {container["name"]}'
        if uid == 0:
            said = f"container's runAsUser breaks non-root policy ({where})"
        else:
            said = f"container has runAsNonRoot and image will run as root ({where})"
        raise ConfigProblem(said)
    return chosen, default_gid if gid is None else int(gid)


class Users:
    """One user namespace for each (uid, gid), shared by all pods of this kubelet.

    It owns nothing: a pod's other namespaces belong to the supervisor's. So it only renames us,
    and no container can do anything to its mounts or its network with it.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], asyncio.Task[int]] = {}

    async def namespace(self, uid: int, gid: int) -> int:
        """Return the namespace's descriptor, which stays ours."""
        wanted = (uid, gid)
        if wanted not in self._made:
            self._made[wanted] = asyncio.create_task(_make(uid, gid), name=f"user {uid}:{gid}")
        try:
            return await asyncio.shield(self._made[wanted])
        except OSError:
            self._made.pop(wanted, None)
            raise

    async def close(self) -> None:
        for task in self._made.values():
            for fd in await asyncio.gather(task, return_exceptions=True):
                if isinstance(fd, int):
                    os.close(fd)
        self._made.clear()


async def _make(uid: int, gid: int) -> int:
    hold, release = os.pipe()
    seen, say = os.pipe()
    # A namespace lives as long as a descriptor of it: the process only has to show it to us.
    hint = ("sh", "-c", "echo here; read -r _")
    command = ("unshare", "--user", f"--map-user={uid}", f"--map-group={gid}", *hint)
    try:
        process = spawn(command, stdin=hold, stdout=say, env=_PATH)
    finally:
        os.close(hold)
        os.close(say)
    try:
        async with asyncio.timeout(_MAKE_S):
            await _first_bytes(seen)
        return os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(release)
        await process.ended


async def _first_bytes(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
        said = os.read(fd, 16) if ready.done() else b""
        os.close(fd)
    if not said:
        raise OSError("unshare --user made no user namespace")
