"""This repository's own test wiring, nothing else."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_pgo_eks.clusters.base import ClusterHandle
    from pytest_pgo_eks.pgo import PostgresCluster

# A hung test names itself instead of holding the whole run. Not in pyproject.toml: where only the
# conformance suite runs pytest-timeout is not there, and an unknown option is an error.
_HUNG_S = 300

_FEATURES = Path(__file__).with_name("features")
_SHARED = pytest.StashKey[Path]()
_OWNER = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "cluster: needs the stand-in cluster, which all tests so marked share"
    )
    config.addinivalue_line(
        "markers",
        "real_apiserver: needs a kube-apiserver and controllers from KUBEBUILDER_ASSETS or a build",
    )
    if not config.option.pgo_cluster:
        # The runs that these tests start are nobody's news in a CI job's summary.
        os.environ.pop("GITHUB_STEP_SUMMARY", None)
    config.addinivalue_line(
        "markers", "live_aws: needs an AWS account, and PGO_LIVE_AWS_USD for what it may cost"
    )
    # Here ``testpaths`` names the harness's own tests; asked for a cluster or for the sentences, the
    # features are meant.
    asked = config.option.pgo_cluster or config.option.pgo_steps
    if config.args_source is config.ArgsSource.TESTPATHS and asked:
        config.args[:] = [str(_FEATURES)]
    given = getattr(config, "workerinput", {}).get("standin")
    # Only a name: most runs need no cluster.
    name = f"pgo-standin-{os.getuid()}-{os.getpid()}-{secrets.token_hex(4)}"
    config.stash[_SHARED] = Path(given[0] if given else Path(tempfile.gettempdir()) / name)
    config.stash[_OWNER] = given[1] if given else os.getpid()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.pluginmanager.hasplugin("timeout"):
        return
    for item in items:
        # Scenarios have deadlines of their own, and may wait long for each other.
        if item.path.suffix == ".py" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_HUNG_S))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell xdist's workers where they meet, and whose cluster it is."""
    node.workerinput["standin"] = (str(node.config.stash[_SHARED]), os.getpid())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the shared cluster; should this process be killed, the cluster removes itself."""
    if hasattr(config, "workerinput") or _SHARED not in config.stash:
        return
    if config.stash[_SHARED].is_dir():
        from pytest_pgo_eks.clusters.base import ClusterHandle
        from pytest_pgo_eks.clusters.local import LocalProvider
        from pytest_pgo_eks.progress import silent
        from pytest_pgo_eks.session.shared import Shared

        if found := Shared(config.stash[_SHARED]).found("standin"):
            LocalProvider().destroy(ClusterHandle.from_json(found), silent())
        if found := Shared(config.stash[_SHARED]).found("real"):
            from tools.real_kubernetes import attached

            attached.down(found)
        shutil.rmtree(config.stash[_SHARED])


@pytest.fixture(scope="session")
def standin(pytestconfig: pytest.Config) -> ClusterHandle:
    """One stand-in cluster for all tests marked ``cluster``, in all workers: operator, no database.

    Work in a namespace of your own, or leave behind what you found.
    """
    from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry
    from pytest_pgo_eks.clusters.local import LocalProvider
    from pytest_pgo_eks.errors import UsageProblem
    from pytest_pgo_eks.progress import silent
    from pytest_pgo_eks.session.shared import Shared
    from pytest_pgo_eks.settings import Settings

    settings, provider = Settings("local"), LocalProvider()
    try:
        provider.preflight(settings)
    except UsageProblem as problem:
        pytest.skip(f"this machine cannot run the stand-in cluster: {problem}")
    shared = Shared(pytestconfig.stash[_SHARED])

    def make() -> dict[str, Any]:
        ledger = shared.folder / "ledger"
        LedgerEntry("local", pytestconfig.stash[_OWNER]).write(ledger)
        return provider.create(settings, silent(), ledger).as_json()

    return ClusterHandle.from_json(shared.once("standin", make))


@pytest.fixture(scope="session")
def real_apiserver(pytestconfig: pytest.Config) -> ClusterHandle:
    """One real control plane with the stand-in's nodes and operator, for all tests of all workers."""
    from pytest_pgo_eks.clusters.base import ClusterHandle
    from pytest_pgo_eks.session.shared import Shared
    from tools.real_kubernetes import attached
    from tools.real_kubernetes.binaries import NotHere, find

    try:
        find()
    except NotHere as problem:
        pytest.skip(f"no real API server: {problem}")
    shared, owner = Shared(pytestconfig.stash[_SHARED]), pytestconfig.stash[_OWNER]
    found = shared.once("real", lambda: attached.up(shared.folder / "real", owner_pid=owner))
    return ClusterHandle(
        name=found["name"],
        provider="real",
        kubeconfig=Path(found["kubeconfig"]),
        capabilities=frozenset(found["capabilities"]),
        kubernetes_version=found["kubernetes_version"],
        operator_version=found["operator_version"],
    )


@pytest.fixture(scope="session")
def standin_postgres(
    standin: ClusterHandle, pytestconfig: pytest.Config
) -> Iterator[PostgresCluster]:
    """The suite's own PostgresCluster on the shared stand-in cluster, all three instances ready."""
    from pytest_pgo_eks.kube import Kube
    from pytest_pgo_eks.pgo import PostgresCluster, available_postgres, render
    from pytest_pgo_eks.session.shared import Shared
    from pytest_pgo_eks.settings import LOCAL_LEASE_S, LOCAL_SYNC_PERIOD_S, Settings

    settings = Settings("local", lease_s=LOCAL_LEASE_S, sync_period_s=LOCAL_SYNC_PERIOD_S)
    with Kube(standin.kubeconfig) as kube:
        manifest = render(settings, available=available_postgres(kube))
        postgres = PostgresCluster(kube, settings.namespace, manifest["metadata"]["name"])

        def make() -> dict[str, Any]:
            postgres.apply(manifest)
            postgres.wait_ready(within_s=120)
            return {}

        Shared(pytestconfig.stash[_SHARED]).once("PostgresCluster", make)
        yield postgres
        postgres.close()
