"""An upgrade of the operator under writes: what it rolled, who led meanwhile, what clients saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.errors import Inconclusive, WaitTimeout
from pytest_pgo_eks.faults.upgrade import OperatorUpgraded
from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.kube import eventually
from pytest_pgo_eks.pgo import Observation, Operator, manifest, names
from pytest_pgo_eks.pgo.operator import current
from pytest_pgo_eks.pgo.readiness import missing
from pytest_pgo_eks.scenario.stage import Stage

# A new operator looks at every cluster once when it starts, and rolls one pod after the other: a
# moment in which all are as declared proves an end only if it lasts.
_SETTLED_S = 8.0
_REVISION = "controller-revision-hash"


@dataclass(frozen=True)
class Upgrade:
    """What was so before: the operator's release, every pod's UID, who led how often."""

    before: Operator
    after: Operator
    began: float
    pods: Mapping[str, str]
    transitions: int


def perform(stage: Stage, before: Operator, put: Callable[[], None]) -> Upgrade:
    """Put another release in the operator's place and prove it.

    :raises Inconclusive: it is in place already: there is nothing to upgrade from.
    """
    seen = stage.remember()
    now = current(stage.kube, before.namespace)
    pods = _pods(stage)
    fault = OperatorUpgraded(stage.kube, now, put, within_s=stage.timeouts["operator-ready"])
    began = time.monotonic()
    stage.bench.inject(fault)
    if fault.after is None:
        raise Inconclusive("the operator was not upgraded")
    return Upgrade(now, fault.after, began, pods, _transitions(seen))


def leads(stage: Stage, upgrade: Upgrade) -> Finding:
    """Judge whether the new release is the one that runs and leads now, and restarted no more."""
    now = current(stage.kube, upgrade.before.namespace)
    numbers: dict[str, Number] = {"version": now.version, "restarts": now.restarts}
    good = now.version == upgrade.after.version and not now.restarts
    return Finding(
        "new-operator-leads",
        "holds" if good else "violated",
        f"{now.pod} leads with release {now.version} after {now.restarts} restarts; "
        f"{upgrade.after.version} was installed over {upgrade.before.version}",
        numbers,
    )


def rolled_out(stage: Stage, upgrade: Upgrade, within_s: float) -> Finding:
    """Wait until every pod is what the new release declares, and stays so."""
    expected = manifest.declared(stage.postgres.object())
    calm_since: list[float] = []

    def look() -> list[str]:
        lacking = [*_outdated(stage), *missing(stage.postgres.observe(), expected)]
        if lacking:
            calm_since.clear()
        elif not calm_since:
            calm_since.append(time.monotonic())
        return lacking

    left_s = max(within_s - (time.monotonic() - upgrade.began), 1.0)
    try:
        eventually(
            look,
            accept=lambda lacking: not lacking and time.monotonic() - calm_since[0] >= _SETTLED_S,
            within_s=left_s + _SETTLED_S,
            what="every pod to be what the new operator declares",
            show="; ".join,
            successes=1,
        )
    except WaitTimeout as late:
        return Finding("rolled-out", "violated", str(late), {"within_s": within_s})
    took_s = calm_since[0] - upgrade.began
    return Finding(
        "rolled-out",
        "holds" if took_s <= within_s else "violated",
        f"every pod was what {upgrade.after.version} declares after {took_s:.1f} s",
        {"took_s": round(took_s, 1), "within_s": within_s},
    )


def switchovers(stage: Stage, upgrade: Upgrade, most: int) -> Finding:
    """Judge how often the leader's lock changed hands since the upgrade began."""
    count = _transitions(stage.postgres.observe()) - upgrade.transitions
    return Finding(
        "switchovers",
        "holds" if count <= most else "violated",
        f"the leader changed {count} times during the upgrade; at most {most} were promised",
        {"switchovers": count, "most": most},
    )


def restarted(stage: Stage, upgrade: Upgrade) -> Finding:
    """Tell which pods the upgrade replaced.

    :raises Inconclusive: nobody knows which pods there were.
    """
    if not upgrade.pods:
        raise Inconclusive("no pod of the cluster was seen before the upgrade")
    now = _pods(stage)
    replaced = sorted(
        name for name, uid in upgrade.pods.items() if now.get(name) not in (uid, None)
    )
    gone = sorted(name for name in upgrade.pods if name not in now)
    told = [f"recreated: {', '.join(replaced) or 'none'}"]
    if gone:
        told.append(f"replaced by others: {', '.join(gone)}")
    return Finding(
        "pods-restarted",
        "holds",
        f"the upgrade from {upgrade.before.version} to {upgrade.after.version} touched "
        f"{len(replaced) + len(gone)} of {len(upgrade.pods)} pods; {'; '.join(told)}",
        {"pods": len(upgrade.pods), "recreated": len(replaced), "replaced": len(gone)},
    )


def _outdated(stage: Stage) -> list[str]:
    """Return the pods of StatefulSets that are not of the newest revision."""
    mine = {names.CLUSTER: stage.postgres.name}
    sets = {
        one["metadata"]["name"]: one
        for one in stage.kube.list("apps/v1/StatefulSet", stage.namespace, labels=mine)
    }
    found = []
    for pod in stage.kube.list("Pod", stage.namespace, labels=mine):
        owner: dict[str, Any] = next(iter(pod["metadata"].get("ownerReferences") or []), {})
        declared = sets.get(owner.get("name", "")) if owner.get("kind") == "StatefulSet" else None
        if declared is None:
            continue
        newest = (declared.get("status") or {}).get("updateRevision")
        observed = (declared.get("status") or {}).get("observedGeneration")
        if names.labels(pod).get(_REVISION) != newest:
            found.append(f"{pod['metadata']['name']} is of an older revision")
        elif observed != declared["metadata"]["generation"]:
            found.append(f"{declared['metadata']['name']} was changed a moment ago")
    return found


def _pods(stage: Stage) -> dict[str, str]:
    """Return the UIDs of the cluster's lasting pods; Jobs come and go by themselves."""
    found = stage.kube.list("Pod", stage.namespace, labels={names.CLUSTER: stage.postgres.name})
    return {
        one["metadata"]["name"]: one["metadata"]["uid"]
        for one in found
        if (one.get("status") or {}).get("phase") == "Running"
        and not any(o["kind"] == "Job" for o in one["metadata"].get("ownerReferences") or [])
    }


def _transitions(seen: Observation) -> int:
    if seen.leader is None:
        raise Inconclusive("nobody holds the leader's record")
    return seen.leader.transitions
