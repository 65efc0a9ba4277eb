"""Red cases of the questions that one asks of a cluster in trouble."""

from __future__ import annotations

import dataclasses
from typing import Any

from pgo.conftest import PRIMARY, REPLICA, STANDBY

from pytest_pgo_eks.postgres import HbaRule
from pytest_pgo_eks.steps import diagnosis
from steps.spoiling import Act, Case, simple
from steps.world import RULES, World, shell

_CERTIFICATE = HbaRule(
    1, "hostssl", ("replication",), ("_crunchyrepl",), None, None, "cert", (), None
)


def _container(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.pod(REPLICA)["status"]["containerStatuses"][0]
    return found


def _image_missing(world: World) -> None:
    _container(world)["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}


def _killed_for_memory(world: World) -> None:
    _container(world)["lastState"] = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}


def _logs(world: World) -> None:
    for pod in (PRIMARY, STANDBY, REPLICA):
        world.kube.texts[pod, "database", False] = "LOG:  checkpoint starting: time\n"


def _damaged(world: World) -> None:
    # In the life before: the container was restarted over it.
    world.kube.texts[REPLICA, "database", True] = "WARNING:  page verification failed, 1 but 2\n"


def _far_behind(world: World) -> None:
    lsn = world.servers[PRIMARY].lsn
    assert lsn is not None
    world.change_server(PRIMARY, current_lsn=lsn + (64 << 20))


def _waits(seconds: float) -> Act:
    def act(world: World) -> None:
        world.values |= {"pg_locks": seconds, "idle in transaction": seconds}

    return act


def _writes(seconds: float) -> Act:
    def act(world: World) -> None:
        said = f"524288 bytes (524 kB, 512 KiB) copied, {seconds} s, 1.0 MB/s\n"
        world.kube.shell = shell(said)

    return act


def _open_replication(world: World) -> None:
    world.rules = (_CERTIFICATE, *RULES)


def _closed_replication(world: World) -> None:
    rejected = dataclasses.replace(_CERTIFICATE, method="reject", users=("all",))
    world.rules = (rejected, *world.rules)


CASES: tuple[Case, ...] = (
    simple(diagnosis.nothing_amiss, _image_missing),
    simple(diagnosis.enough_memory, _killed_for_memory),
    simple(diagnosis.undamaged, _damaged, prepare=_logs),
    simple(diagnosis.replicas_keep_up, _far_behind, megabytes=16, budget="0.1 seconds"),
    simple(
        diagnosis.nobody_waits,
        _waits(31.0),
        prepare=_waits(0.0),
        what="waits for a lock",
        longest="30 seconds",
    ),
    simple(diagnosis.storage_in_time, _writes(64.0), prepare=_writes(0.064), most=250),
    simple(diagnosis.replication_rule, _closed_replication, prepare=_open_replication),
)
