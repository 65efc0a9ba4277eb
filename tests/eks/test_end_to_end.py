"""``pytest --cluster=eks`` as a user runs it: AWS is a fake, the cluster behind it a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pgo_eks import shipped
from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry
from pytest_pgo_eks.clusters.local import LocalProvider
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.progress import silent
from pytest_pgo_eks.settings import Settings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

TESTS = Path(__file__).resolve().parents[1]
RUN = (sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:allure_pytest")

CONFTEST = """
import json, os, sys
from pathlib import Path

sys.path.insert(0, {tests!r})

from eks.endpoint import Endpoint
from fakes.aws import FakeAws
from pytest_pgo_eks.clusters.eks.provider import EksProvider

HERE = Path(__file__).parent
FAKE = FakeAws()
ENDPOINT = Endpoint(
    Path(os.environ["BEHIND"]), HERE, cluster="pgoeks-night", secret=os.environ["AWS_SECRET_ACCESS_KEY"]
)


def pytest_pgo_providers():
    if not ENDPOINT.url:
        ENDPOINT.start()
    FAKE.world.endpoint, FAKE.world.authority = ENDPOINT.url, ENDPOINT.authority
    return [EksProvider(lambda _region: FAKE.clients, FAKE.world.clock, lambda: "203.0.113.7")]


def pytest_unconfigure():
    from eks.lives import remains
    told = {{"left": remains(FAKE.world), "let_in": ENDPOINT.let_in, "refused": ENDPOINT.refused}}
    (HERE / "aws.json").write_text(json.dumps(told))
    ENDPOINT.stop()
"""


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[ClusterHandle]:
    """A stand-in of its own: at the end of a run on EKS everything in the cluster goes."""
    settings, provider = Settings("local", state_dir=tmp_path / "standin"), LocalProvider()
    try:
        provider.preflight(settings)
    except UsageProblem as problem:
        pytest.skip(f"this machine cannot run the stand-in cluster: {problem}")
    ledger = tmp_path / "ledger"
    LedgerEntry("local", os.getpid()).write(ledger)
    handle = provider.create(settings, silent(), ledger)
    yield handle
    provider.destroy(handle, silent())


@pytest.fixture
def place(tmp_path: Path, behind: ClusterHandle, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / "conftest.py").write_text(CONFTEST.format(tests=str(TESTS)), "utf-8")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-for-tests")
    monkeypatch.setenv("BEHIND", str(behind.kubeconfig))
    monkeypatch.setenv("PGO_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(home)
    return home


def test_a_run_builds_judges_removes_and_tells_what_it_cost(place: Path) -> None:
    rows = shipped.features() / "eks" / "pattern.feature"
    audit = shipped.features() / "security" / "eks.feature"
    done = subprocess.run(
        [*RUN, "--cluster=eks", "--pgo-eks-region=us-east-1", "--pgo-eks-run=night",
         "--rootdir", str(place), "-c", os.devnull, str(place), str(rows), str(audit),
         # Rightly red here: the stand-in's default StorageClass encrypts nothing.
         "-k", "not volumes"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    verdict = json.loads((place / "reports/latest/verdict.json").read_text("utf-8"))
    assert verdict["subject"]["provider"] == "eks"
    assert verdict["subject"]["stand_in"] is True
    # The rows of the pattern and the audit; three are about what this cluster is not.
    assert verdict["counts"]["pass"] >= 28
    assert verdict["counts"].get("violation", 0) == 0
    assert "deviation D1:" in said
    assert "cost: about 0." in said
    aws = json.loads((place / "aws.json").read_text("utf-8"))
    assert aws["left"] == []
    assert aws["refused"] == []
    assert aws["let_in"] > 50
    assert "run night in us-east-1" in said
    assert "secret-for-tests" not in said
    assert list((place.parent / "state" / "eks").glob("*/kubeconfig")) == []
