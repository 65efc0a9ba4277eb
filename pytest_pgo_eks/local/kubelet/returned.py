"""Pods that ran before their node was lost: what a kubelet that comes back makes of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pytest_pgo_eks.local.kubelet.status import Record, Terminated
from pytest_pgo_eks.local.objects import Obj


def begun_before(pod: Obj) -> dict[str, int]:
    """Return the restart counts of the containers that have run before this kubelet saw the pod."""
    found = (pod.get("status") or {}).get("containerStatuses") or []
    return {one["name"]: one["restartCount"] for one in found if one.get("containerID")}


def count_runs(records: Sequence[Record], pod: Obj) -> None:
    """Count on from what a lost node had reached, as after a machine's restart."""
    before, now = begun_before(pod), time.time()
    for record in records:
        if record.name in before:
            record.restarts = before[record.name] + 1
            # What containerd says of a container that it finds dead after a restart.
            record.last = Terminated(255, "Unknown", "", now, now, "")


def fail_lost(records: Sequence[Record], pod: Obj) -> bool:
    """End a pod that ran before and must not run twice; say whether it is one."""
    if pod["spec"].get("restartPolicy") != "Never" or not begun_before(pod):
        return False
    now = time.time()
    said = "The container could not be located when its node came back"
    for record in records:
        record.state = Terminated(137, "ContainerStatusUnknown", said, now, now, "")
    return True
