"""k3s in a container: what the engine is asked for, and what becomes of it.

The engine is one of the test's own, which refuses what starting a container does not take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testcontainers.core.config import ConnectionMode, testcontainers_config

from pytest_pgo_eks.clusters.base import LedgerEntry
from pytest_pgo_eks.clusters.k3s import K3sProvider
from pytest_pgo_eks.clusters.local import LocalProvider
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.progress import silent
from pytest_pgo_eks.settings import Settings

from .conftest import Programs
from .fake_engine import Engine, engine

# The library's clients are closed by their finalizers only.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture
def docker(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    programs.put("docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{programs.home}/docker.sock")
    # Read once, at import; where these tests run in a container themselves it would be another.
    monkeypatch.setattr(
        testcontainers_config, "connection_mode_override", ConnectionMode.docker_host
    )
    with engine(programs.home) as serving:
        yield serving


def entry(place: Path) -> Path:
    path = place / "ledger.json"
    LedgerEntry("k3s", 4711).write(path)
    return path


@pytest.mark.parametrize(
    ("there", "environment", "given", "message"),
    [
        ((), {}, {}, "docker and podman are not on PATH"),
        (("docker",), {"FAKE_DOCKER_VERSION": "down"}, {}, "does not answer"),
        (("docker",), {}, {"kubernetes_version": "1.20"}, r"1\.34\.1.*--pgo-k3s-image"),
        (("docker",), {}, {"registry_mirror": "here"}, "is not of the form"),
    ],
)
def test_bad_input_is_one_line(
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    *,
    there: tuple[str, ...],
    environment: dict[str, str],
    given: dict[str, Any],
    message: str,
) -> None:
    programs.put(*there)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageProblem, match=message) as caught:
        K3sProvider().preflight(Settings("k3s", **given))
    assert "\n" not in str(caught.value)


def test_an_image_that_cannot_be_pulled(docker: Engine, tmp_path: Path) -> None:
    docker.pull_error = "manifest for rancher/k3s not found"
    with pytest.raises(
        UsageProblem, match=r"rancher/k3s:v1\.34\.1.*cannot be pulled.*--pgo-k3s-image"
    ):
        K3sProvider().create(Settings("k3s"), silent(), entry(tmp_path))
    assert not docker.refused


@pytest.mark.cluster
def test_one_node_comes_up_is_labelled_and_goes_away(
    docker: Engine, programs: Programs, tmp_path: Path
) -> None:
    try:
        LocalProvider().preflight(Settings("local"))
    except UsageProblem as problem:
        pytest.skip(f"this machine cannot run the stand-in cluster: {problem}")
    ledger, provider = entry(tmp_path), K3sProvider()
    given = Settings("k3s", registry_mirror="docker.io=http://mirror:5000")
    handle = provider.create(given, silent(), ledger)
    try:
        assert not docker.refused
        made = docker.created
        assert re.fullmatch(r"docker\.io/rancher/k3s:v1\.34\.1-k3s1@sha256:\w{64}", made["Image"])
        assert made["HostConfig"]["Privileged"] is True
        # With it k3s would look for a server to join.
        assert not [one for one in made.get("Env") or () if one.startswith("K3S_URL")]
        assert made["Labels"]["pytest-pgo-eks/run"] == handle.name
        binds = [one for one in made["HostConfig"]["Binds"] if "registries.yaml" in one]
        assert binds == [f"{handle.state_dir}/registries.yaml:/etc/rancher/k3s/registries.yaml:ro"]
        assert LedgerEntry.read(ledger).name == handle.name
        with Kube(handle.kubeconfig) as kube:
            assert kube.list("Node")
        assert "network-policy" in handle.capabilities
    finally:
        provider.destroy(handle, silent())
    assert ["rm", "--force", "--volumes", handle.name] in programs.calls("docker")
    assert handle.state_dir is not None
    assert not handle.state_dir.exists()
    assert provider.sweep(LedgerEntry.read(ledger), silent()) == "absent"


def test_one_node_says_what_it_cannot_show() -> None:
    assert {"zones", "node-drain", "node-loss", "zone-loss"} <= set(K3sProvider().never)
