"""A guest in a cluster that others use: with the rights it names and no more, and gone afterwards."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pytest_pgo_eks import shipped
from pytest_pgo_eks.clusters import premises, rights
from pytest_pgo_eks.clusters.premises import RUN
from pytest_pgo_eks.errors import NotFound
from pytest_pgo_eks.kube import Kube, eventually

from .conftest import MANIFEST

if TYPE_CHECKING:
    from pytest_pgo_eks.clusters.base import ClusterHandle
    from pytest_pgo_eks.pgo import PostgresCluster

pytestmark = pytest.mark.cluster

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:allure_pytest")
FEATURES = Path(__file__).parents[2] / "features"
OWN = "pytest-pgo-eks"
TESTS = """
import os, signal

def test_it_is_killed(pgo_cluster):
    os.kill(os.getpid(), signal.SIGKILL)

def test_it_runs(pgo_postgres):
    assert pgo_postgres.declared() == 1
"""


@pytest.fixture
def kube(standin: ClusterHandle) -> Iterator[Kube]:
    with Kube(standin.kubeconfig) as client:
        yield client


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "test_it.py").write_text(TESTS, "utf-8")
    return tmp_path


def granted(kube: Kube, standin: ClusterHandle, file: str, place: Path) -> Path:
    """Apply a file of ``fixtures/rbac``; return a kubeconfig of its service account."""
    path = shipped.fixtures() / "rbac" / f"{file}.yaml"
    for one in yaml.safe_load_all(path.read_text("utf-8")):
        kube.apply(one, force=True)
    namespace, account = rights.RUNNER
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    address = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    document = yaml.safe_load(standin.kubeconfig.read_text("utf-8"))
    document["users"][0]["user"] = {"token": kube.raw("POST", address, asked)["status"]["token"]}
    made = place / "runner.kubeconfig"
    made.write_text(yaml.safe_dump(document), "utf-8")
    return made


def withdrawn(kube: Kube, file: str) -> None:
    """Take the rights away again, so that each test has only those of its own file."""
    for one in rights.documents(file):
        if one["kind"].endswith("Binding"):
            kube.delete(one["kind"], one["metadata"]["name"], one["metadata"].get("namespace"))


def ours(kube: Kube, run: str | None = None) -> list[str]:
    """Return what of any run of ours is in the cluster."""
    found = []
    for kind in ("Namespace", *premises._KINDS):
        for one in kube.list(kind):
            label = (one["metadata"].get("labels") or {}).get(RUN)
            if label is not None and run in (None, label):
                found.append(f"{kind} {one['metadata']['name']}")
    return found


def run(kubeconfig: Path, *arguments: str, place: Path) -> subprocess.CompletedProcess[str]:
    command = [*PYTEST, "--cluster=kubeconfig", f"--pgo-kubeconfig={kubeconfig}", *arguments]
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=280, check=False, env=os.environ
    )


def test_a_cluster_that_exists_is_judged_and_left_as_it_was(
    kube: Kube, standin: ClusterHandle, standin_postgres: PostgresCluster, place: Path
) -> None:
    account = granted(kube, standin, "whole-cluster", place)
    namespace = f"guest-{secrets.token_hex(3)}"
    flags = (f"--pgo-namespace={namespace}", f"--pgo-adopt={standin_postgres.namespace}/hippo")
    before = kube.get("PostgresCluster", "hippo", standin_postgres.namespace)["metadata"]

    killed = run(account, *flags, "test_it.py", place=place)
    assert killed.returncode == -9, killed.stdout + killed.stderr
    assert kube.get("Namespace", namespace)["metadata"]["labels"][RUN]

    files = [str(FEATURES / "replication" / "streaming.feature")]
    done = run(account, *flags, *files, "--pgo-level=1", place=place)
    withdrawn(kube, "whole-cluster")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"removed cluster {namespace}, which a run that was killed had left" in done.stdout
    assert re.search(r"[1-9]\d* passed, 0 violated, 0 inconclusive", done.stdout)
    assert kube.find("Namespace", namespace) is None
    assert not ours(kube)
    after = kube.get("PostgresCluster", "hippo", standin_postgres.namespace)["metadata"]
    assert (after["uid"], after["generation"]) == (before["uid"], before["generation"])


def test_a_namespace_that_was_given_is_as_it_was_before(
    kube: Kube, standin: ClusterHandle, place: Path
) -> None:
    from pytest_pgo_eks.pgo import available_postgres

    account = granted(kube, standin, "one-namespace", place)
    version = max(available_postgres(kube))
    manifest = place / "small.yaml"
    manifest.write_text(MANIFEST.replace("VERSION", str(version)), "utf-8")
    before = premises.inventory(kube, OWN)
    flags = ("--pgo-lease=20", "--pgo-sync-period=2", f"--pgo-manifest={manifest}")
    done = run(account, *flags, "test_it.py::test_it_runs", place=place)
    after = premises.inventory(kube, OWN)
    withdrawn(kube, "one-namespace")
    assert done.returncode == 0, done.stdout + done.stderr
    assert after == before
    assert not ours(kube)
    assert kube.find("Namespace", OWN)
    kube.delete("Namespace", OWN)
    eventually(
        lambda: _gone(kube),
        accept=bool,
        within_s=60,
        what="the namespace to be gone",
        successes=1,
    )


def _gone(kube: Kube) -> Any:
    try:
        kube.get("Namespace", OWN)
    except NotFound:
        return True
    return False
