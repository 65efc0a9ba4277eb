"""The provider as the session meets it: handles, records, leftovers, kept clusters, adoption."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from fakes.aws import FakeAws, ec2

from eks.lives import ADDRESS, Told, fake_aws, remains, settings
from pytest_pgo_eks.clusters import detecting
from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry
from pytest_pgo_eks.clusters.eks import access, adoption, inside, removal, stacks
from pytest_pgo_eks.clusters.eks.calls import Aws
from pytest_pgo_eks.clusters.eks.provider import EksProvider
from pytest_pgo_eks.clusters.premises import Lease
from pytest_pgo_eks.clusters.record import ProviderRecord
from pytest_pgo_eks.errors import ApiProblem, ClusterProblem, UsageProblem
from pytest_pgo_eks.settings import Settings


class NoKube:
    """Stands where a client of the cluster would be; the cluster itself is in other tests."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    monkeypatch.setattr(stacks, "POLL_S", 60.0)
    monkeypatch.setattr(removal, "_POLL_S", 60.0)
    facts = detecting.Facts(
        "v1.36.0-eks", 3, ("a", "b", "c"), "gp3", stand_in=False,
        capabilities=frozenset({"zones", "real-kubernetes"}),
        lacks={"aws-faults": "nobody looked"},
    )  # fmt: skip
    monkeypatch.setattr(detecting, "detect", lambda *_a, **_k: facts)
    monkeypatch.setattr(detecting, "is_stand_in", lambda _kube: False)
    monkeypatch.setattr("pytest_pgo_eks.clusters.eks.provider.Kube", NoKube)
    monkeypatch.setattr(access, "prove", lambda *_: "v1.36.0-eks")
    monkeypatch.setattr(inside, "prepare", lambda *_: None)
    monkeypatch.setattr(inside, "wind_down", lambda *_: None)
    return fake_aws()


@pytest.fixture
def provider(fake: FakeAws) -> EksProvider:
    return EksProvider(lambda _region: fake.clients, fake.world.clock, lambda: ADDRESS)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.json"
    LedgerEntry("eks", os.getpid()).write(path)
    return path


def given(tmp_path: Path, **eks: Any) -> Settings:
    known = {"region": "us-east-1", "run": "night", **eks}
    return replace(settings(**known), state_dir=tmp_path / "state")


def test_a_run_has_a_handle_with_what_only_eks_can_do(
    provider: EksProvider, ledger: Path, tmp_path: Path
) -> None:
    handle = provider.create(given(tmp_path), Told(), ledger)
    assert handle.name == "pgoeks-night"
    assert "real-eks" in handle.capabilities
    assert handle.lacks["aws-faults"] == "--pgo-allow-aws-faults was not given"
    assert handle.hints[-1].endswith("sweep --region us-east-1 --run night --yes")
    assert ClusterHandle.from_json(handle.as_json()) == handle
    side = provider.aws(handle)
    assert (side.cluster, side.profile, side.zones) == ("pgoeks-night", "lean", 3)
    assert side.tags["pgo-eks/run"] == "night"
    assert side.clients("eks").describe_cluster(name=side.cluster)["cluster"]["status"] == "ACTIVE"


def test_what_is_about_to_be_made_is_in_the_ledger_first(
    provider: EksProvider, fake: FakeAws, ledger: Path, tmp_path: Path
) -> None:
    def look(service: str, operation: str) -> None:
        if (service, operation) == ("iam", "CreateRole"):
            seen.append(LedgerEntry.read(ledger))

    seen: list[LedgerEntry] = []
    fake.before = look
    provider.create(given(tmp_path), Told(), ledger)
    assert seen[0].name == "pgoeks-night"
    assert "--run night --yes" in seen[0].remove


def test_faults_through_aws_are_a_capability_where_they_are_allowed(
    provider: EksProvider, ledger: Path, tmp_path: Path
) -> None:
    handle = provider.create(given(tmp_path, allow_faults=True), Told(), ledger)
    assert "aws-faults" in handle.capabilities
    assert "aws-faults" not in handle.lacks


def test_the_kubeconfig_holds_no_secret_and_asks_our_own_command(
    provider: EksProvider, ledger: Path, tmp_path: Path
) -> None:
    handle = provider.create(given(tmp_path), Told(), ledger)
    assert stat.S_IMODE(handle.kubeconfig.stat().st_mode) == 0o600
    found = yaml.safe_load(handle.kubeconfig.read_text("utf-8"))
    asked = found["users"][0]["user"]["exec"]
    assert asked["args"][:3] == ["-m", "pytest_pgo_eks.clusters.eks", "token"]
    assert asked["args"][3:] == ["--cluster", "pgoeks-night", "--region", "us-east-1"]
    assert "k8s-aws-v1" not in handle.kubeconfig.read_text("utf-8")


def test_it_is_removed_and_the_record_tells_cost_and_deviations(
    provider: EksProvider, fake: FakeAws, ledger: Path, tmp_path: Path
) -> None:
    handle = provider.create(given(tmp_path), Told(), ledger)
    fake.world.clock.pause(3600)
    provider.destroy(handle, Told())
    assert remains(fake.world) == []
    record = provider.record(handle)
    assert record is not None
    assert record.region == "us-east-1"
    assert record.leftovers == ()
    assert {d.id for d in record.deviations} >= {"D1", "D16"}
    assert record.cost is not None
    assert record.cost.estimate_usd == 1.04
    assert 0.3 < record.cost.usd < 1.2
    assert {line.what for line in record.cost.lines} == {
        "control plane", "1 NAT gateway with address", "3 × m7g.large", "120 GiB gp3",
    }  # fmt: skip
    assert ProviderRecord.from_json(json.loads(json.dumps(record.as_json()))) == record
    assert not handle.kubeconfig.exists()
    assert not (tmp_path / "state" / "eks" / "night.json").exists()


def test_what_is_left_fails_the_removal_and_stands_in_the_record(
    provider: EksProvider, fake: FakeAws, ledger: Path, tmp_path: Path
) -> None:
    handle = provider.create(given(tmp_path), Told(), ledger)
    fake.world.put("bucket", "backups", {"_tags": {"pgo-eks/run": "night"}})
    with pytest.raises(ClusterProblem, match="1 things are left in AWS"):
        provider.destroy(handle, Told())
    record = provider.record(handle)
    assert record is not None
    (left,) = record.leftovers
    assert left.startswith("resource arn:aws:s3:::backups: aws ")


def test_a_cluster_that_does_not_answer_any_more_is_removed_all_the_same(
    provider: EksProvider,
    fake: FakeAws,
    ledger: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = provider.create(given(tmp_path), Told(), ledger)

    def silence(*_: object) -> None:
        raise ApiProblem("connection refused")

    monkeypatch.setattr(inside, "wind_down", silence)
    told = Told()
    provider.destroy(handle, told)
    assert remains(fake.world) == []
    assert any("connection refused" in line for line in told.lines)


def test_a_kept_cluster_is_found_again_by_another_process(
    provider: EksProvider, fake: FakeAws, ledger: Path, tmp_path: Path
) -> None:
    handle = provider.create(given(tmp_path), Told(), ledger)
    again = EksProvider(lambda _region: fake.clients, fake.world.clock, lambda: None)
    kept = replace(given(tmp_path), reuse=handle.name)
    assert again.adopt(kept, Told()).name == handle.name
    again.destroy(handle, Told())
    with pytest.raises(UsageProblem, match="the cluster pgoeks-night is gone"):
        again.adopt(kept, Told())
    with pytest.raises(UsageProblem, match="no run other is remembered"):
        again.adopt(replace(kept, reuse="pgoeks-other"), Told())


def test_a_creation_that_failed_is_removed_by_the_process_that_failed(
    provider: EksProvider, fake: FakeAws, ledger: Path, tmp_path: Path
) -> None:
    fake.world.fail_create["CoreDns"] = ["not supported"]
    with pytest.raises(ClusterProblem, match="not supported"):
        provider.create(given(tmp_path), Told(), ledger)
    assert provider.sweep(LedgerEntry.read(ledger), Told()) == "removed"
    assert remains(fake.world) == []


def test_a_dead_run_s_cluster_is_told_of_and_not_waited_for(
    provider: EksProvider, fake: FakeAws, ledger: Path, tmp_path: Path
) -> None:
    provider.create(given(tmp_path), Told(), ledger)
    entry = replace(LedgerEntry.read(ledger), owner_pid=1)
    before = fake.world.changes
    assert provider.sweep(entry, Told()) == "left"
    assert fake.world.changes == before
    provider.sweep(LedgerEntry.read(ledger), Told())
    assert provider.sweep(entry, Told()) == "absent"


def test_a_killed_run_is_gone_on_with_by_its_name(
    provider: EksProvider, fake: FakeAws, ledger: Path, tmp_path: Path
) -> None:
    fake.fail("cloudformation", "DescribeStackEvents", "ExpiredToken", "expired")
    with pytest.raises(ClusterProblem, match="log in again"):
        provider.create(given(tmp_path), Told(), ledger)
    again = EksProvider(lambda _region: fake.clients, fake.world.clock, lambda: "198.51.100.9")
    handle = again.create(given(tmp_path), Told(), ledger)
    (cluster,) = fake.world.kind("cluster").values()
    # What was decided when the run began holds.
    assert cluster["resourcesVpcConfig"]["publicAccessCidrs"] == [f"{ADDRESS}/32"]
    again.destroy(handle, Told())
    assert remains(fake.world) == []


# -- adoption -----------------------------------------------------------------------------------


@contextmanager
def guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Settings]]:
    """Put a guest of a few lines where the provider ``kubeconfig`` is."""
    seen: list[Settings] = []

    class Guest:
        def create(self, asked: Settings, _progress: object, _ledger: object) -> ClusterHandle:
            seen.append(asked)
            place = tmp_path / "lease"
            Lease("run-1", "/k", "c", "pytest-pgo-eks", made=True).write(place)
            assert asked.kubeconfig is not None
            return ClusterHandle("pytest-pgo-eks", "kubeconfig", asked.kubeconfig, state_dir=place)

        def destroy(self, handle: ClusterHandle, _progress: object) -> None:
            assert handle.state_dir is not None
            for path in handle.state_dir.iterdir():
                path.unlink()

    monkeypatch.setattr(adoption, "KubeconfigProvider", Guest)
    yield seen


def test_an_adopted_cluster_costs_no_change_in_aws(
    provider: EksProvider,
    fake: FakeAws,
    ledger: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = fake.world
    theirs = {
        "name": "ours", "arn": "arn:aws:eks:us-east-1:1:cluster/ours", "status": "ACTIVE",
        "version": "1.35", "endpoint": "https://127.0.0.1:1", "tags": {},
        "certificateAuthority": {"data": "Y2E="}, "deletionProtection": True,
    }  # fmt: skip
    world.put("cluster", "ours", theirs)
    owned = {"kubernetes.io/cluster/ours": "owned"}
    claim = "kubernetes.io/created-for/pvc/namespace"
    kept = ec2.make_volume(world, {**owned, claim: "production"}, "us-east-1a", 1)["VolumeId"]
    busy = ec2.make_volume(world, {**owned, claim: "pytest-pgo-eks"}, "us-east-1a", 1)
    ec2.attach(world, busy, "i-1", "/dev/xvdb")
    other = {"kubernetes.io/cluster/another": "owned", claim: "pytest-pgo-eks"}
    elsewhere = ec2.make_volume(world, other, "us-east-1a", 1)["VolumeId"]
    before = world.changes
    with guest(monkeypatch, tmp_path) as seen:
        handle = provider.create(given(tmp_path, name="ours"), Told(), ledger)
        assert world.changes == before
        assert (handle.provider, handle.name) == ("eks", "pytest-pgo-eks")
        assert "real-eks" in handle.capabilities
        assert stat.S_IMODE(handle.kubeconfig.stat().st_mode) == 0o600
        assert seen[0].kubeconfig == handle.kubeconfig
        assert provider.aws(handle).profile == "adopted"
        left = ec2.make_volume(world, {**owned, claim: "pytest-pgo-eks"}, "us-east-1a", 1)
        provider.destroy(handle, Told())
    assert set(world.kind("volume")) == {kept, busy["VolumeId"], elsewhere}
    assert left["VolumeId"] not in world.kind("volume")
    assert world.kind("cluster")["ours"] == theirs
    record = provider.record(handle)
    assert record is not None
    assert record.cost is None


def test_an_adopted_plan_makes_nothing(
    provider: EksProvider, fake: FakeAws, tmp_path: Path
) -> None:
    fake.world.put("cluster", "ours", {"name": "ours", "status": "ACTIVE", "version": "1.35"})
    text = provider.plan(given(tmp_path, name="ours"))
    assert text.startswith("plan: adopt ours in us-east-1, Kubernetes 1.35, ACTIVE")


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_does_not_know_us_says_how_to_be_let_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    class Closed(NoKube):
        def server_version(self) -> str:
            raise ApiProblem("no", status=status)

    monkeypatch.setattr(access, "Kube", Closed)
    with pytest.raises(UsageProblem, match=r"create-access-entry.*aws-auth"):
        access.prove(tmp_path / "kubeconfig", "ours", "arn:aws:iam::1:role/r")


def test_a_server_out_of_reach_names_the_two_ways_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Far(NoKube):
        def server_version(self) -> str:
            raise ApiProblem("timed out")

    monkeypatch.setattr(access, "Kube", Far)
    with pytest.raises(UsageProblem, match=r"inside its VPC only.*publicAccessCidrs"):
        access.prove(tmp_path / "kubeconfig", "ours", "arn:aws:iam::1:role/r")


def test_a_user_without_a_role_is_known_by_its_own_arn(fake: FakeAws) -> None:
    from pytest_pgo_eks.clusters.eks.preflight import caller

    aws = Aws(fake.clients, "us-east-1", fake.world.clock)
    assert caller(aws)[1] == "arn:aws:iam::111122223333:role/runner"
    from fakes.aws import iam

    iam.make_role(fake.world, "runner", {"Statement": [{}]}, {}, path="/teams/data/")
    assert caller(aws)[1] == "arn:aws:iam::111122223333:role/teams/data/runner"
    fake.world.arn = "arn:aws:iam::111122223333:user/somebody"
    assert caller(aws)[1] == fake.world.arn
