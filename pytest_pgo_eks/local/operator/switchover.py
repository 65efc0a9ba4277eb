"""The switchover a user asks for: a new annotation value, two passes, the timeline between them."""

from __future__ import annotations

from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.context import Blocked, Pass
from pytest_pgo_eks.local.operator.observe import Instance


async def reconcile_switchover(work: Pass) -> None:
    """Hand over once per value of the annotation.

    The first pass stores the timeline, the second asks Patroni. A timeline that has moved in
    between means that it happened. A refusal stops the whole reconcile until it succeeds or the
    request is withdrawn: PGO does the same.

    :raises Blocked: the request cannot be met.
    """
    cluster = work.cluster
    given = cluster.patroni.get("switchover") or {}
    status = cluster.status.setdefault("patroni", {})
    if not given.get("enabled"):
        status.pop("switchover", None)
        status.pop("switchoverTimeline", None)
        return
    wanted = cluster.annotations.get(names.TRIGGER_SWITCHOVER)
    if not wanted or status.get("switchover") == wanted:
        status.pop("switchoverTimeline", None)
        return
    target = _target(work, given)
    runner = work.observed.running
    if runner is None:
        raise Blocked("no running instance to switch over from")
    timeline = await work.control.timeline(runner)
    if not timeline:
        raise Blocked("error getting and parsing current timeline")
    before = status.get("switchoverTimeline")
    if before is None:
        status["switchoverTimeline"] = timeline
        work.look_again(0.01)
        return
    if before == timeline:
        candidate = target.pod_name if target else ""
        if given.get("type") == "Failover":
            done = await work.control.failover(runner, candidate)
        else:
            done = await work.control.switchover(runner, candidate)
        if not done:
            raise Blocked("unable to switchover")
    status["switchover"] = wanted
    status.pop("switchoverTimeline", None)


def _target(work: Pass, given: dict[str, str]) -> Instance | None:
    instances = work.observed.instances
    if len(instances) <= 1:
        raise Blocked("need more than one instance to switch over")
    name = given.get("targetInstance")
    if not name:
        if given.get("type") == "Failover":
            raise Blocked("TargetInstance required when running failover")
        return None
    found = next((each for each in instances if each.name == name), None)
    if found is None:
        raise Blocked(f"TargetInstance was specified but not found in the cluster: {name}")
    if found.pod is None:
        raise Blocked(f"TargetInstance should have one pod: {name}")
    return found
