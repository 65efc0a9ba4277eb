"""Red cases of the operator's upgrade."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.pgo.operator import current
from pytest_pgo_eks.scenario.upgrading import _REVISION, Upgrade, _pods, _transitions
from pytest_pgo_eks.steps import upgrading
from steps.spoiling import Case, simple
from steps.world import World

_NAMESPACE = "postgres-operator"


def _upgrade(world: World) -> Upgrade:
    after = current(world.kube, _NAMESPACE)
    before = dataclasses.replace(after, version="5.8.9", pod_uid="gone")
    pods = {**_pods(world.stage), "hippo-instance1-6mn7-0": "an older one"}
    # Begun long enough ago for what is calm now to count as calm.
    return Upgrade(before, after, time.monotonic(), pods, _transitions(world.seen))


def _of_6_0_3(world: World) -> Upgrade:
    found = _upgrade(world)
    return dataclasses.replace(found, after=dataclasses.replace(found.after, version="6.0.3"))


def _stateful_sets(world: World) -> None:
    """Declare what the recorded pods are."""
    found: list[dict[str, Any]] = []
    for pod in world.kube.objects["Pod"]:
        revision = names.labels(pod).get(_REVISION)
        if revision is None:
            continue
        name = pod["metadata"]["name"].rpartition("-")[0]
        pod["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": name}]
        found.append(
            {
                "metadata": {"name": name, "generation": 1, "labels": names.labels(pod)},
                "status": {"observedGeneration": 1, "updateRevision": revision},
            }
        )
    world.kube.objects["StatefulSet"] = found


def _another_release_runs(world: World) -> None:
    for one in world.kube.objects["Pod"]:
        if one["metadata"]["name"].startswith("pgo-"):
            names.labels(one)["app.kubernetes.io/version"] = "5.8.9"


def _never_rolled(world: World) -> None:
    world.kube.objects["StatefulSet"][0]["status"]["updateRevision"] = "newer"


# What a spoiled world claims to have been so before the upgrade.
_BEFORE: dict[int, dict[str, Any]] = {}


def _before_now(world: World) -> Upgrade:
    return dataclasses.replace(_upgrade(world), **_BEFORE.get(id(world), {}))


def _led_by_many(world: World) -> None:
    _BEFORE[id(world)] = {"transitions": -5}


def _nothing_seen_before(world: World) -> None:
    _BEFORE[id(world)] = {"pods": {}}


CASES: tuple[Case, ...] = (
    simple(upgrading.new_operator_leads, _another_release_runs, upgrade=_of_6_0_3),
    simple(
        upgrading.all_rolled_out,
        _never_rolled,
        prepare=_stateful_sets,
        upgrade=_upgrade,
        budget="1 second",
    ),
    simple(upgrading.leader_changes, _led_by_many, upgrade=_before_now, most=1),
)
MEASURED: tuple[Case, ...] = (
    simple(upgrading.restarts_reported, _nothing_seen_before, upgrade=_before_now),
)
