"""The session fixtures: settings, then a cluster, the operator on it, PostgreSQL under it.

They are lazy, shared by all xdist workers, and usable from plain pytest tests as well as from
steps. Only the controller removes what they made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_pgo_eks.errors import PgoEksError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_pgo_eks.clusters.base import AwsSide, ClusterHandle
    from pytest_pgo_eks.report.evidence import ScenarioEvidence
    from pytest_pgo_eks.session.run import Run
    from pytest_pgo_eks.settings import Settings


@pytest.fixture(scope="session")
def pgo_settings(pytestconfig: pytest.Config) -> Settings:
    """The run's settings; a test that needs them is skipped where no cluster was asked for."""
    return _run(pytestconfig).settings


@pytest.fixture(scope="session")
def pgo_cluster(pgo_settings: Settings, pytestconfig: pytest.Config) -> ClusterHandle:
    """The Kubernetes cluster of the run. Override it to bring one in another way."""
    del pgo_settings
    handle: ClusterHandle = _or_fail(_run(pytestconfig).cluster)
    return handle


@pytest.fixture(scope="session")
def pgo_aws(pgo_cluster: ClusterHandle, pytestconfig: pytest.Config) -> AwsSide:
    """The AWS side of the cluster; a test that needs it is skipped where there is none."""
    ask = getattr(_run(pytestconfig).provider, "aws", None)
    if ask is None:
        pytest.skip(f"a cluster of {pgo_cluster.provider} has no AWS side")
    side: AwsSide = _or_fail(lambda: ask(pgo_cluster))
    return side


@pytest.fixture(scope="session")
def pgo_operator(pgo_cluster: ClusterHandle, pytestconfig: pytest.Config) -> Any:
    """The operator, installed and answering."""
    return _or_fail(lambda: _run(pytestconfig).operator(pgo_cluster))


@pytest.fixture(scope="session")
def pgo_postgres(
    pgo_cluster: ClusterHandle, pgo_operator: object, pytestconfig: pytest.Config
) -> Any:
    """The PostgresCluster under test, with all its instances ready."""
    return _or_fail(lambda: _run(pytestconfig).postgres(pgo_cluster, pgo_operator))


@pytest.fixture(scope="session")
def pgo_faults(pytestconfig: pytest.Config) -> Mapping[str, Any]:
    """Faults that users' hooks ``pytest_pgo_faults`` add, by name."""
    return {
        name: make for some in pytestconfig.hook.pytest_pgo_faults() for name, make in some.items()
    }


@pytest.fixture(scope="session")
def pgo_upgrade(pgo_cluster: ClusterHandle, pytestconfig: pytest.Config) -> Callable[[], None]:
    """Puts the operator that --pgo-upgrade-to names in the place of the one that runs."""
    return lambda: _run(pytestconfig).upgrade(pgo_cluster)


@pytest.fixture
def pgo_evidence(request: pytest.FixtureRequest) -> ScenarioEvidence:
    """What this scenario or test leaves behind: findings, faults with proof, files."""
    from pytest_pgo_eks.report.evidence import ScenarioEvidence
    from pytest_pgo_eks.session.evidence import EVIDENCE, identity

    _run(request.config)
    if EVIDENCE not in request.node.stash:
        # A plain test that asks for evidence and for no cluster gets its folder here.
        request.node.stash[EVIDENCE] = ScenarioEvidence(
            identity(request.node), _run(request.config).run_dir
        )
    evidence: ScenarioEvidence = request.node.stash[EVIDENCE]
    return evidence


def _run(config: pytest.Config) -> Run:
    from pytest_pgo_eks.session.run import RUN

    run = config.stash.get(RUN, None)
    if run is None:
        pytest.skip("needs a cluster: run with --cluster=local (or kind, k3s, kubeconfig, eks)")
    return run


def _or_fail(make: Callable[[], Any]) -> Any:
    from pytest_pgo_eks.session.evidence import Unavailable

    try:
        return make()
    except PgoEksError as error:
        raise Unavailable(error) from None
