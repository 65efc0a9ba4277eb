"""An assembly for the tests of the supervisor's life: no cluster, one child that would live on."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local.supervisor import Cluster


async def start(cluster: Cluster, _parts: contextlib.AsyncExitStack) -> None:
    child = await asyncio.create_subprocess_exec(
        "sh", "-c", "echo ready; read _", stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    assert child.stdout
    # Before, it may still have a library open.
    await child.stdout.readline()
    cluster.ready(_look(cluster, child.pid))


def _look(cluster: Cluster, child: int) -> dict[str, Any]:
    volumes = cluster.state.path / "volumes"
    files = [str(fd.readlink()).partition(":")[0] for fd in Path(f"/proc/{child}/fd").iterdir()]
    (volumes / "closed").mkdir(parents=True)
    (volumes / "closed" / "file").write_text("data")
    (volumes / "closed").chmod(0)
    mounts = Path("/proc/self/mountinfo").read_text()
    return {
        "name": cluster.order.name,
        "state_dir": str(cluster.state.path),
        "kubeconfig": str(cluster.state.kubeconfig),
        "kubernetes_version": "none",
        "pid_namespace": str(Path("/proc/self/ns/pid").readlink()),
        "door": cluster.door.getsockname()[1],
        "child_files": sorted(files),
        "shared_mounts": mounts.count(" shared:"),
        "run": sorted(p.name for p in Path("/run").iterdir()),
        "secret": os.environ.get("A_SECRET_OF_THE_HOST"),
    }
