"""How a cluster is found and what makes it look like production."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pytest_pgo_eks.clusters import certificates, reach
from pytest_pgo_eks.clusters.production import looks_like_production
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.settings import Settings


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = tmp_path / "account"
    place.mkdir()
    (place / "token").write_text("of-the-pod", "utf-8")
    (place / "ca.crt").write_text("…", "utf-8")
    return place


@pytest.mark.parametrize(
    ("host", "server"),
    [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")],
)
def test_in_a_pod_its_service_account_is_used(
    account: Path, tmp_path: Path, host: str, server: str
) -> None:
    env = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    found = reach.find(Settings("kubeconfig"), tmp_path / "state", env, account)
    assert found.server == server
    assert found.context == "in-cluster"
    document = yaml.safe_load(found.kubeconfig.read_text("utf-8"))
    # The file, not its content: a rotated token is read again.
    assert document["users"][0]["user"] == {"tokenFile": str(account / "token")}
    assert "of-the-pod" not in found.kubeconfig.read_text("utf-8")


def test_a_named_kubeconfig_wins_over_the_pods_account(account: Path, tmp_path: Path) -> None:
    env = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    named = Settings("kubeconfig", kubeconfig=tmp_path / "named")
    with pytest.raises(UsageProblem, match=r"--pgo-kubeconfig: there is no kubeconfig .*/named"):
        reach.find(named, tmp_path / "state", env, account)


def test_without_anything_kubectls_own_file_is_meant(account: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"no kubeconfig .*/home/\.kube/config"):
        reach.find(Settings("kubeconfig"), tmp_path / "state", {}, tmp_path / "no-account")


def test_credentials_are_not_in_the_repr(account: Path, tmp_path: Path) -> None:
    path = tmp_path / "k"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://here"}}],
        "users": [{"name": "u", "user": {"token": "very-secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document), "utf-8")
    found = reach.find(Settings("kubeconfig", kubeconfig=path), tmp_path, {}, account)
    assert found.user["token"] == "very-secret"
    assert "very-secret" not in repr(found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prod", True),
        ("eu-prod-1", True),
        ("shop_production", True),
        ("arn:aws:eks:eu-central-1:123:cluster/live", True),
        ("api.prd.example.com", True),
        ("non-prod", False),
        ("pre-production", False),
        ("preprod", False),
        ("product-catalogue", False),
        ("kind-alive", False),
        ("staging", False),
    ],
)
def test_production_is_a_word_and_may_be_denied(name: str, expected: bool) -> None:
    assert looks_like_production(name) is expected


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAA==\n"])
def test_what_is_no_certificate_has_no_end(text: str) -> None:
    assert certificates.ends(text) is None
