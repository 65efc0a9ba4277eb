"""Faults by what they are aimed at: the primary, the synchronous standby, the operator."""

from __future__ import annotations

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.faults.bench import Fault
from pytest_pgo_eks.faults.pods import DeploymentDown, PodDeleted
from pytest_pgo_eks.faults.processes import Processes, ProcessFrozen, ProcessKilled, StandbyStopped
from pytest_pgo_eks.faults.switchover import Switchover
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.scenario import roles
from pytest_pgo_eks.scenario.stage import Stage

OPERATOR_PODS = f"{names.CONTROL_PLANE}=postgres-operator"


def at_primary(stage: Stage, what: str) -> None:
    """Inject a fault by its words at the instance that is the primary now."""
    seen = stage.remember() if stage.before is None else stage.postgres.observe(sql=True)
    pod = roles.primary(seen).pod
    stage.bench.inject(_fault(stage, what, pod))


def at_synchronous_standby(stage: Stage, what: str) -> None:
    """Inject a fault by its words at the synchronous standby."""
    seen = stage.postgres.observe(sql=True)
    stage.bench.inject(_fault(stage, what, roles.synchronous_standby(seen).pod))


def at_every_standby(stage: Stage) -> None:
    """Stop every standby so that it stays away, the synchronous one last."""
    seen = stage.postgres.observe(sql=True)
    last = roles.synchronous_standby(seen).pod
    for one in sorted(roles.replicas(seen), key=lambda replica: replica.pod == last):
        stage.bench.inject(StandbyStopped(Processes(stage.kube, stage.namespace, one.pod)))


def operator_down(stage: Stage, namespace: str, deployment: str) -> None:
    """Take the operator away until the scenario ends."""
    stage.bench.inject(DeploymentDown(stage.kube, namespace, deployment, OPERATOR_PODS))


def _fault(stage: Stage, what: str, pod: str) -> Fault:
    processes = Processes(stage.kube, stage.namespace, pod)
    if what == "switched over":
        return Switchover(stage.postgres, within_s=stage.timeouts["switchover"])
    if what == "pod is deleted":
        return PodDeleted(stage.kube, stage.namespace, pod, force=False)
    if what == "pod is force-deleted":
        return PodDeleted(stage.kube, stage.namespace, pod, force=True)
    if what == "postmaster is killed":
        return ProcessKilled(processes, "postmaster")
    if what == "Patroni is frozen":
        return ProcessFrozen(processes, "patroni")
    raise Inconclusive(f"no fault is called {what!r}")
