"""Faults by what they are aimed at: the primary, its node, a standby, PgBouncer, the operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.faults import network
from pytest_pgo_eks.faults.bench import Fault
from pytest_pgo_eks.faults.certificates import CertificateReplaced
from pytest_pgo_eks.faults.containers import ContainerKilled
from pytest_pgo_eks.faults.nodes import NodeDrained
from pytest_pgo_eks.faults.pods import DeploymentDown, PodDeleted
from pytest_pgo_eks.faults.pressure import MemoryHeld, ProcessorsBusy
from pytest_pgo_eks.faults.processes import Processes, ProcessFrozen, ProcessKilled, StandbyStopped
from pytest_pgo_eks.faults.servers import (
    ArchiveFailing,
    BackendKilled,
    ReplayPaused,
    ReplicaHeldBack,
)
from pytest_pgo_eks.faults.switchover import Switchover
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.pgo import Instance, Observation, names
from pytest_pgo_eks.scenario import cuts, roles, volumes
from pytest_pgo_eks.scenario.application import require_pgbouncer
from pytest_pgo_eks.scenario.stage import Stage

OPERATOR_PODS = f"{names.CONTROL_PLANE}=postgres-operator"
HOSTNAME = "kubernetes.io/hostname"
_PGBOUNCER = "pgbouncer"
_PGBACKREST = "pgbackrest"
# As between continents, one way.
_DELAY_S = 0.1
_HELD_MIB = 128

Make = Callable[[Stage, Observation, Instance], Fault]


def _processes(stage: Stage, pod: str) -> Processes:
    return Processes(stage.kube, stage.namespace, pod)


def _killed(name: str) -> Make:
    return lambda stage, _seen, one: ProcessKilled(_processes(stage, one.pod), name)


def _frozen(name: str) -> Make:
    return lambda stage, _seen, one: ProcessFrozen(_processes(stage, one.pod), name)


def _deleted(*, force: bool) -> Make:
    return lambda stage, _seen, one: PodDeleted(stage.kube, stage.namespace, one.pod, force=force)


def _cut(kind: str, direction: str = "both") -> Make:
    return lambda stage, _seen, one: cuts.cut(stage, [one.pod], kind=kind, direction=direction)


def _cut_but_for_clients(stage: Stage, _seen: Observation, one: Instance) -> Fault:
    """Cut from everybody but the clients and PgBouncer: what a second primary needs.

    From the repository too: a primary that shuts down archives its last segment, and the next one
    fetches it before it is promoted, so that nothing would diverge.
    """
    pooler = stage.kube.list("Pod", stage.namespace, labels=_pooler(stage))
    spare = [stage.probe.pod, *(str(pod["metadata"]["name"]) for pod in pooler)]
    return cuts.cut(stage, [one.pod], kind="minority", spare=[{"pod": pod} for pod in spare])


def _pooler(stage: Stage) -> dict[str, str]:
    return {names.CLUSTER: stage.postgres.name, names.ROLE: _PGBOUNCER}


def _without_api(stage: Stage, _seen: Observation, one: Instance) -> Fault:
    return cuts.cut(stage, [one.pod], kind="api-unreachable", peers=["api"])


def _node(one: Instance) -> str:
    if one.node is None:
        raise Inconclusive(f"{one.pod} is on no node")
    return one.node


def _zone(one: Instance) -> str:
    if not one.zone:
        raise Inconclusive(f"the node of {one.pod} is in no zone")
    return one.zone


# What can be done to one instance, by the words of the sentences.
AT_INSTANCE: Mapping[str, Make] = {
    "switched over": lambda stage, _seen, _one: Switchover(
        stage.postgres, within_s=stage.timeouts["switchover"]
    ),
    "pod is deleted": _deleted(force=False),
    "pod is force-deleted": _deleted(force=True),
    "database container is killed": lambda stage, _seen, one: ContainerKilled(
        stage.kube, stage.namespace, one.pod, names.DATABASE
    ),
    "postmaster is killed": _killed("postmaster"),
    "postmaster is frozen": _frozen("postmaster"),
    "Patroni is frozen": _frozen("patroni"),
    "Patroni is killed": _killed("patroni"),
    "checkpointer is frozen": _frozen("checkpointer"),
    "walreceiver is frozen": _frozen("walreceiver"),
    "backend is killed": lambda stage, _seen, one: BackendKilled(
        _processes(stage, one.pod), stage.postgres.server(one.pod)
    ),
    "cut off": _cut("pod-partitioned"),
    "connections are reset": lambda stage, _seen, one: network.pod_partitioned(
        stage.kube, stage.namespace, [one.pod], kind="pod-resetting", action="reject"
    ),
    "can send nothing": _cut("pod-mute", "out"),
    "can receive nothing": _cut("pod-deaf", "in"),
    "cut off from everybody but its clients": _cut_but_for_clients,
    "API server is unreachable": _without_api,
    "packets are lost": lambda stage, _seen, one: network.packets_lost(
        stage.kube, stage.namespace, one.pod, 10
    ),
    "packets are delayed": lambda stage, _seen, one: network.PacketsDelayed(
        stage.kube,
        stage.namespace,
        one.pod,
        stage.probe,
        stage.targets.instance(one.pod),
        delay_s=_DELAY_S,
    ),
    "clock is shifted": cuts.clock_shifted,
    "data volume is full": lambda stage, _seen, one: volumes.fill(stage, one),
    "isolated by a NetworkPolicy": lambda stage, _seen, one: network.PolicyIsolated(
        stage.kube, stage.namespace, one.pod, stage.probe, stage.targets.instance(one.pod)
    ),
    "node is cut off": lambda stage, _seen, one: network.node_partitioned(stage.kube, _node(one)),
    "node vanishes": lambda stage, _seen, one: network.node_lost(stage.kube, _node(one)),
    "zone vanishes": lambda stage, _seen, one: network.zone_lost(stage.kube, _zone(one)),
    "node is drained": lambda stage, _seen, one: NodeDrained(
        stage.kube, _node(one), stage.namespace, {names.CLUSTER: stage.postgres.name}
    ),
}


def at_primary(stage: Stage, what: str) -> None:
    """Inject a fault by its words at the instance that is the primary now."""
    seen = stage.remember() if stage.before is None else stage.postgres.observe(sql=True)
    stage.bench.inject(_fault(stage, what, seen, roles.primary(seen)))


def press(stage: Stage) -> None:
    """Keep the primary's processors busy and hold memory beside its PostgreSQL."""
    pod = roles.primary(stage.remember()).pod
    stage.bench.inject(ProcessorsBusy(_processes(stage, pod)))
    stage.bench.inject(MemoryHeld(_processes(stage, pod), _HELD_MIB))


def at_synchronous_standby(stage: Stage, what: str) -> None:
    """Inject a fault by its words at the synchronous standby."""
    seen = stage.postgres.observe(sql=True)
    stage.bench.inject(_fault(stage, what, seen, roles.synchronous_standby(seen)))


def at_every_standby(stage: Stage) -> None:
    """Stop every standby so that it stays away, the synchronous one last."""
    seen = stage.postgres.observe(sql=True)
    last = roles.synchronous_standby(seen).pod
    for one in sorted(roles.replicas(seen), key=lambda replica: replica.pod == last):
        stage.bench.inject(StandbyStopped(Processes(stage.kube, stage.namespace, one.pod)))


def api_lost_everywhere(stage: Stage) -> None:
    """Cut every instance off from the API server, all at once."""
    pods = [one.pod for one in stage.postgres.observe().instances]
    stage.bench.inject(cuts.cut(stage, pods, kind="api-unreachable", peers=["api"]))


def hold_back(stage: Stage) -> None:
    """Let one replica fall behind; not the synchronous one, where there is one."""
    seen = stage.postgres.observe(sql=True)
    stage.bench.inject(
        ReplicaHeldBack(
            _processes(stage, (pod := _any_replica(seen))),
            stage.postgres.server(pod),
            stage.postgres.server(roles.primary(seen).pod),
        )
    )


def pause_replay(stage: Stage) -> None:
    """Let no replica show anything new: readers keep one session, so one replica alone may go unread."""
    for one in roles.replicas(stage.postgres.observe(sql=True)):
        server = stage.postgres.server(one.pod)
        stage.bench.inject(ReplayPaused(_processes(stage, one.pod), server))


def fail_archiving(stage: Stage) -> None:
    """Stop pgBackRest on the primary."""
    primary = roles.primary(stage.postgres.observe(sql=True)).pod
    stage.bench.inject(ArchiveFailing(_processes(stage, primary), stage.postgres.server(primary)))


def at_pgbouncer(stage: Stage, what: str) -> None:
    """Kill the pooler: its process, or its pod."""
    require_pgbouncer(stage)
    pod = _running(stage, _pooler(stage), "PgBouncer")
    if what == "killed":
        fault: Fault = ContainerKilled(stage.kube, stage.namespace, pod, _PGBOUNCER)
    else:
        fault = PodDeleted(stage.kube, stage.namespace, pod, force=True)
    stage.bench.inject(fault)


def replace_certificate(stage: Stage) -> None:
    """Delete the Secret of the servers' certificate."""
    pods = [one.pod for one in stage.postgres.observe().instances]
    secret = f"{stage.postgres.name}-cluster-cert"
    stage.bench.inject(CertificateReplaced(stage.kube, stage.namespace, secret, pods))


def operator_down(stage: Stage, namespace: str, deployment: str) -> None:
    """Take the operator away until the scenario ends."""
    stage.bench.inject(DeploymentDown(stage.kube, namespace, deployment, OPERATOR_PODS))


def node_of(kube: Kube, namespace: str, pod: str) -> str | None:
    """Return the node of a pod, None if there is no such pod or it is on none."""
    found = kube.find("Pod", pod, namespace)
    return found["spec"].get("nodeName") if found else None


def operator_node(kube: Kube, namespace: str) -> str | None:
    """Return the node of the operator's pod, whatever that is called by now."""
    found = kube.list("Pod", namespace, labels=OPERATOR_PODS)
    nodes = [str(pod["spec"]["nodeName"]) for pod in found if pod["spec"].get("nodeName")]
    return nodes[0] if nodes else None


def lead_elsewhere(stage: Stage, spared: set[str]) -> None:
    """Let the primary be on a node that nobody in ``spared`` needs, by a switchover if need be.

    A node can only be taken away where neither the clients nor the operator are on it, or the
    scenario would measure their loss. The repository host is avoided where that is possible: on
    the real PGO a promotion waited minutes for an archive that nobody could reach.
    """
    seen = stage.postgres.observe(sql=True)
    repository = {
        str(pod["spec"].get("nodeName"))
        for pod in stage.kube.list(
            "Pod",
            stage.namespace,
            labels={names.CLUSTER: stage.postgres.name, names.DATA: _PGBACKREST},
        )
    }
    able = [one for one in seen.instances if one.node and one.node not in spared]
    best = min(able, key=lambda one: one.node in repository, default=None)
    if best is None:
        raise Inconclusive(f"every instance is on a node that is needed: {', '.join(spared)}")
    now = roles.primary(seen)
    if now in able and (now.node in repository) == (best.node in repository):
        return
    declared, within_s = stage.postgres.declared(), stage.timeouts["healthy-again"]
    if seen.is_synchronous and seen.sync and best.pod not in seen.sync.standbys:
        _make_synchronous(stage, roles.synchronous_standby(seen).pod, best.pod, within_s)
    done = Switchover(stage.postgres, target=best, within_s=stage.timeouts["switchover"])
    try:
        done.inject()
        done.prove()
    finally:
        done.undo()
    roles.all_recovered(stage.postgres, declared, within_s)


def _make_synchronous(stage: Stage, now: str, wanted: str, within_s: float) -> None:
    """Let another replica be the synchronous one: Patroni switches over to no other.

    It keeps the one it has as long as that streams, so its pod is deleted and comes back as the
    asynchronous replica.
    """
    gone = PodDeleted(stage.kube, stage.namespace, now, force=False)
    gone.inject()
    gone.prove()
    stage.postgres.wait(
        lambda seen: seen.sync is not None and seen.sync.standbys == (wanted,),
        within_s=within_s,
        what=f"{wanted} to be the synchronous standby in place of {now}",
    )
    roles.all_recovered(stage.postgres, stage.postgres.declared(), within_s)


def _any_replica(seen: Observation) -> str:
    """Return a replica that streams, an asynchronous one if there is one."""
    synchronous = set(seen.sync.standbys) if seen.sync else set()
    found = [one.pod for one in roles.replicas(seen) if seen.servers[one.pod].is_streaming]
    if not found:
        raise Inconclusive(f"no replica streams:\n  {seen}")
    return min(found, key=lambda pod: (pod in synchronous, pod))


def _running(stage: Stage, labels: Mapping[str, str], what: str) -> str:
    pods = stage.kube.list("Pod", stage.namespace, labels=dict(labels))
    running = [
        str(pod["metadata"]["name"])
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running"
        and not pod["metadata"].get("deletionTimestamp")
    ]
    if not running:
        raise Inconclusive(f"no pod of the {what} is running")
    return running[0]


def _fault(stage: Stage, what: str, seen: Observation, one: Instance) -> Fault:
    make = AT_INSTANCE.get(what)
    if make is None:
        raise Inconclusive(f"no fault is called {what!r}")
    return make(stage, seen, one)
