"""Givens: the cluster under test, its replication mode, its clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_bdd import given, parsers

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.clusters.images import probe_image
from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.history.matrix import Mode
from pytest_pgo_eks.pgo import Operator, PostgresCluster
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.pod import Keeper, ensure, remove
from pytest_pgo_eks.report.evidence import ScenarioEvidence
from pytest_pgo_eks.scenario import aim, mode, volumes
from pytest_pgo_eks.scenario.stage import Stage
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.timeouts import Timeouts

_MODES: dict[str, Mode] = {
    "synchronous": "sync",
    "asynchronous": "async",
    "strict synchronous": "strict",
}


@pytest.fixture(scope="session")
def pgo_probe(
    pgo_postgres: PostgresCluster,
    pgo_operator: Operator,
    pgo_settings: Settings,
    pgo_cluster: ClusterHandle,
    worker_name: str,
) -> Iterator[Keeper]:
    """The load agent in a pod of its own, one for each worker; removed at the end.

    It lives on the operator's node: a scenario that takes a node away has to spare both.
    """
    name = f"pgo-probe-{worker_name}"
    namespace = pgo_settings.namespace if pgo_cluster.adopted else pgo_postgres.namespace
    kube = pgo_postgres.kube
    image = probe_image(pgo_settings, stand_in=pgo_cluster.stand_in)

    def make() -> Installed:
        node = aim.operator_node(kube, pgo_operator.namespace)
        return ensure(
            kube,
            namespace,
            within_s=Timeouts.of(pgo_settings)["probe-installed"],
            name=name,
            image=image,
            node_selector={aim.HOSTNAME: node} if node else None,
        )

    keeper = Keeper(kube, namespace, name, make)
    yield keeper
    keeper.close()
    remove(kube, namespace, name=name)


@pytest.fixture(scope="session")
def worker_name(request: pytest.FixtureRequest) -> str:
    """The name of this xdist worker; ``main`` without xdist."""
    told = getattr(request.config, "workerinput", {"workerid": "main"})
    return str(told["workerid"])


@pytest.fixture
def stage(
    pgo_postgres: PostgresCluster,
    pgo_settings: Settings,
    pgo_evidence: ScenarioEvidence,
    request: pytest.FixtureRequest,
) -> Iterator[Stage]:
    """What the steps of a scenario share. At its end every fault and change is taken back."""
    shared = Stage(
        pgo_postgres,
        pgo_settings,
        pgo_evidence,
        lambda: request.getfixturevalue("pgo_probe").installed(),
    )
    try:
        yield shared
    finally:
        shared.close()


@given("the operator is installed")
def operator_is_installed(pgo_operator: Operator) -> None:
    """The operator was found and its version read."""
    if not pgo_operator.version:
        raise Inconclusive("the operator does not say its version")


@given(parsers.re(r"a PostgresCluster with (?P<count>\d+) instances"), converters={"count": int})
def postgres_cluster(stage: Stage, count: int) -> None:
    """The cluster under test declares at least this many instances, in its declared mode."""
    if stage.postgres.declared() < count:
        raise Inconclusive(
            f"the PostgresCluster declares {stage.postgres.declared()} instances, {count} are needed"
        )


@given(
    parsers.re(
        r"a PostgresCluster with (?P<count>\d+) instances and "
        r"(?P<kind>synchronous|asynchronous|strict synchronous) replication"
    ),
    converters={"count": int},
)
def postgres_cluster_with_mode(stage: Stage, count: int, kind: str) -> None:
    """The same, brought into a replication mode; what was declared comes back at the end."""
    postgres_cluster(stage, count)
    mode.use(stage, _MODES[kind])


@given("clients are writing through the primary Service")
def clients_are_writing(stage: Stage) -> None:
    """Clients write from inside the cluster until the scenario ends, through every path there is."""
    stage.start_clients(mode.current(stage.postgres.observe()))


@given(
    parsers.re(
        r"clients are writing and running (?P<level>read committed|repeatable read|serializable) "
        r"transactions"
    )
)
def clients_run_transactions(stage: Stage, level: str) -> None:
    """The same clients, beside others that append to and read lists in transactions."""
    stage.start_clients(mode.current(stage.postgres.observe()), level)


@given("failsafe mode is on")
def failsafe_mode(stage: Stage) -> None:
    """Patroni's failsafe_mode until the scenario ends, in force when the leader published it."""
    mode.use_failsafe(stage)


@given("the primary runs on a node that neither the clients nor the operator need")
def primary_is_apart(stage: Stage, pgo_operator: Operator) -> None:
    """By a switchover before the scenario, where it is otherwise."""
    kube = stage.kube
    spared = {
        aim.operator_node(kube, pgo_operator.namespace),
        aim.node_of(kube, stage.probe.namespace, stage.probe.pod),
    }
    aim.lead_elsewhere(stage, {node for node in spared if node})


@given("the primary's data volume is as small as its claim and nobody else's")
def primary_on_small_volume(stage: Stage) -> None:
    """By an instance added for the scenario and made the primary, where it is otherwise."""
    volumes.own_volume(stage)


@given("the operator is down")
def operator_is_down(stage: Stage, pgo_operator: Operator) -> None:
    """The operator's Deployment has no pod until the scenario ends."""
    aim.operator_down(stage, pgo_operator.namespace, pgo_operator.deployment)
