"""What makes a node end a pod: an emptyDir beyond its limit, or a deadline of the pod's own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_pgo_eks.local.kubelet.references import quantity
from pytest_pgo_eks.local.objects import Obj


@dataclass(frozen=True)
class Exceeded:
    """Why a pod must end, as its status and its Event say it."""

    reason: str
    message: str


async def exceeded(pod: Obj, volumes: Path, *, look_s: float) -> Exceeded:
    """Return when the pod has to end; a pod without limits waits for ever."""
    limits = dict(_size_limits(pod))
    active_s = pod["spec"].get("activeDeadlineSeconds")
    ends = None if active_s is None else time.monotonic() + float(active_s)
    while True:
        if ends is None and not limits:
            await asyncio.Event().wait()
        left_s = look_s if ends is None else ends - time.monotonic()
        await asyncio.sleep(max(0.0, min(left_s, look_s if limits else left_s)))
        if ends is not None and time.monotonic() >= ends:
            said = "Pod was active on the node longer than the specified deadline"
            return Exceeded("DeadlineExceeded", said)
        for name, limit in limits.items():
            if usage_bytes(volumes / name) > quantity(limit):
                said = f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
                return Exceeded("Evicted", said)


def _size_limits(pod: Obj) -> Iterator[tuple[str, str]]:
    """Yield the emptyDirs with a limit; one in memory is bounded by its file system."""
    for volume in pod["spec"].get("volumes") or []:
        source = volume.get("emptyDir") or {}
        if source.get("sizeLimit") and source.get("medium") != "Memory":
            yield volume["name"], str(source["sizeLimit"])


def usage_bytes(directory: Path) -> int:
    """Return the disk space that a tree takes; what vanishes meanwhile counts nothing."""
    total = 0
    for root, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(f"{root}/{name}").st_blocks * 512
            except OSError:
                continue
    return total
