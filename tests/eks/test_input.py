"""Bad input: one line that says what to change, and nothing created."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.aws import FakeAws, eks
from fakes.aws.world import VERSIONS

from eks.lives import ADDRESS, fake_aws, remains, settings
from pytest_pgo_eks.clusters.eks import calls
from pytest_pgo_eks.clusters.eks.provider import EksProvider
from pytest_pgo_eks.clusters.eks.wanted import wanted
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem

Spoil = Callable[[FakeAws], object]


@pytest.fixture
def fake() -> FakeAws:
    return fake_aws()


def provider(fake: FakeAws, address: str | None = ADDRESS) -> EksProvider:
    return EksProvider(lambda _region: fake.clients, fake.world.clock, lambda: address)


def refusal(fake: FakeAws, place: Path, version: str | None = None, **eks: Any) -> str:
    """Return the one line with which the preflight refuses; AWS is as it was."""
    given = settings(region="us-east-1", **eks)
    before = remains(fake.world)
    with pytest.raises(UsageProblem) as refused:
        provider(fake).preflight(replace(given, state_dir=place, kubernetes_version=version))
    assert remains(fake.world) == before
    assert list(place.iterdir()) == []
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda f: f.fail("sts", "*", "ExpiredToken", "expired", times=9),
            "AWS does not accept the credentials (ExpiredToken): log in again",
        ),
        (
            lambda f: f.fail("sts", "*", "InvalidClientTokenId", "bad", times=9),
            "AWS does not accept the credentials",
        ),
        (
            lambda f: f.fail("eks", "DescribeClusterVersions", "AccessDeniedException", "no"),
            "AWS does not allow eks describe_cluster_versions",
        ),
        (
            lambda f: f.world.denied.add("eks:CreateCluster"),
            "arn:aws:iam::111122223333:role/runner may not: eks:CreateCluster",
        ),
        (
            lambda f: setattr(f.world, "zones", ("us-east-1a", "us-east-1b")),
            "us-east-1 has 2 zones for this account",
        ),
        (
            lambda f: f.world.not_offered.update((t, z) for t in ("m7g.large", "m6g.large", "m7g.xlarge") for z in f.world.zones[:4]),
            "no type is offered in three zones together",
        ),
        (
            lambda f: f.world.quotas.update({("ec2", "L-1216C47A"): 4.0}),
            "quota Running On-Demand Standard instances (vCPUs) in us-east-1: 0 of 4 are in use and the run needs 6 more",
        ),
        (
            lambda f: f.world.quotas.update({("ec2", "L-0263D0A3"): 0.0}),
            "quota EC2-VPC Elastic IPs",
        ),
        (
            lambda f: f.world.quotas.update({("vpc", "L-F678F1CE"): 0.0}),
            "aws service-quotas request-service-quota-increase --service-code vpc --quota-code L-F678F1CE --desired-value 1",
        ),
        (
            lambda f: f.world.quotas.update({("eks", "L-1194D53C"): 0.0}),
            "quota Clusters",
        ),
        (
            lambda f: setattr(f.world, "managed", f.world.managed[1:]),
            "AWS has no managed policy AmazonEKSClusterPolicy any more",
        ),
        (
            lambda f: setattr(f.world.clock, "skew_s", 400.0),
            "this machine's clock is 400 s behind AWS's",
        ),
        (
            lambda f: setattr(f.world.clock, "skew_s", -400.0),
            "this machine's clock is 400 s ahead of AWS's",
        ),
    ],
)  # fmt: skip
def test_what_aws_says_is_refused_in_a_line(
    fake: FakeAws, tmp_path: Path, spoil: Spoil, said: str
) -> None:
    spoil(fake)
    assert said in refusal(fake, tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"profile": "leen"}, "there is no profile 'leen' (did you mean 'lean'?)"),
        ({"identity": "pods"}, "'pods' is not irsa or pod-identity"),
        ({"cidr": "192.168.0.0/24"}, "has to be between a /16 and a /21"),
        ({"cidr": "10.0.0.0/8"}, "has to be between a /16 and a /21"),
        ({"cidr": "192.168.1.0/16"}, "is no network: 192.168.1.0/16 has host bits set"),
        ({"cidr": "172.20.0.0/16"}, "overlaps 172.20.0.0/16, which EKS gives to Services"),
        ({"cidr": "nonsense"}, "is no network"),
        ({"zones": "us-east-1a,us-east-1b"}, "are not three different zones"),
        ({"zones": "us-east-1a,us-east-1b,us-east-1z"}, "there is no zone us-east-1z"),
        ({"nodes_per_zone": 0}, "0 is not between 1 and 20"),
        ({"instance_types": "large"}, "'large' is no instance type"),
        ({"instance_types": "m99.huge"}, "do not exist: [m99.huge]"),
        ({"instance_types": "m7g.large,m5.large"}, "are of different architectures"),
        ({"public_cidrs": "203.0.113.0/33"}, "--pgo-eks-public-cidrs"),
        ({"public_cidrs": "203.0.113.7/32", "endpoint": "private"}, "has no public access"),
        (
            {"profile": "faithful"},
            "estimated at 42.29 USD (6 nodes in 3 zones), more than the 5.00",
        ),
        ({"max_cost_usd": 0.5}, "the profile lean is estimated at 1.04 USD"),
        ({"run": "x" * 25}, "is no name of a run: up to 24 lower-case letters"),
        ({"run": "Night"}, "is no name of a run"),
        ({"name": "nobody"}, "there is no cluster 'nobody' in us-east-1; there are: none"),
    ],
)
def test_what_the_user_says_is_refused_in_a_line(
    fake: FakeAws, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    assert said in refusal(fake, tmp_path, **given)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (
            "1.29",
            (
                "EKS cannot create 1.29: its standard support ended on 2025-03-23, its extended "
                "support on 2026-03-23; it offers 1.36, 1.35, 1.34, 1.33 (extended)"
            ),
        ),
        ("1.99", "EKS cannot create 1.99; it offers 1.36"),
    ],
)
def test_a_version_that_eks_cannot_create_is_refused_with_its_dates(
    fake: FakeAws, tmp_path: Path, version: str, said: str
) -> None:
    assert said in refusal(fake, tmp_path, version)


def test_a_version_in_extended_support_is_taken_when_asked_for_at_its_price(
    fake: FakeAws, tmp_path: Path
) -> None:
    given = replace(settings(region="us-east-1"), state_dir=tmp_path, kubernetes_version="1.33")
    text = provider(fake).plan(given)
    assert "1.33 (extended support)" in text
    assert "1.56 USD  control plane" in text


def test_one_that_leaves_standard_support_in_days_is_not_chosen(
    fake: FakeAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eks, "VERSIONS", VERSIONS[2:])
    given = replace(settings(region="us-east-1"), state_dir=tmp_path)
    # The only one in standard support is taken all the same, nine days before its end.
    assert "Kubernetes   1.34" in provider(fake).plan(given)


def test_an_address_that_cannot_be_found_has_to_be_given(fake: FakeAws, tmp_path: Path) -> None:
    given = replace(settings(region="us-east-1"), state_dir=tmp_path)
    with pytest.raises(UsageProblem, match="--pgo-eks-public-cidrs"):
        provider(fake, None).preflight(given)
    provider(fake, None).preflight(replace(given, eks=replace(given.eks, endpoint="private")))


@pytest.mark.parametrize("status", ["CREATING", "DELETING", "FAILED", "UPDATING"])
def test_a_cluster_that_is_not_active_is_not_adopted(
    fake: FakeAws, tmp_path: Path, status: str
) -> None:
    fake.world.put("cluster", "ours", {"name": "ours", "status": status, "tags": {}})
    assert f"the cluster ours is {status}, not ACTIVE" in refusal(fake, tmp_path, name="ours")


def test_a_cluster_of_another_owner_under_our_name_is_refused(
    fake: FakeAws, tmp_path: Path
) -> None:
    fake.world.put(
        "cluster", "pgoeks-night", {"name": "pgoeks-night", "status": "ACTIVE", "tags": {}}
    )
    assert "that is not this run's" in refusal(fake, tmp_path, run="night")


def test_no_region_is_refused(tmp_path: Path) -> None:
    class Nowhere:
        region = None

        def __call__(self, service: str) -> Any:
            raise AssertionError(service)

    given = replace(settings(), state_dir=tmp_path)
    with pytest.raises(UsageProblem, match="no AWS region is configured"):
        EksProvider(lambda _region: Nowhere()).preflight(given)


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials anywhere, and no way to ask a metadata service for some."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.usefixtures("bare_environment")
def test_no_credentials_are_told_before_anything_is_sent() -> None:
    given = settings(region="us-east-1")
    with pytest.raises(UsageProblem, match="no AWS credentials were found; log in"):
        EksProvider(calls.boto_clients).preflight(given)


@pytest.mark.usefixtures("bare_environment")
def test_a_profile_of_aws_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UsageProblem, match=r"AWS settings cannot be used: .*nobody"):
        calls.boto_clients("us-east-1")


def test_what_the_user_leaves_open_is_the_profile_s() -> None:
    lean, faithful = wanted(settings()), wanted(settings(profile="faithful"))
    assert (lean.nodes, lean.gateways, lean.types[0]) == (3, 1, "m7g.large")
    assert (faithful.nodes, faithful.gateways, faithful.types[0]) == (6, 3, "m5.16xlarge")
    assert lean.subnet_bits == 13
    assert wanted(settings(cidr="192.168.8.0/21")).subnet_bits == 8


@pytest.mark.usefixtures("bare_environment")
def test_a_region_that_does_not_exist_is_refused_before_it_is_looked_up() -> None:
    with pytest.raises(UsageProblem, match=r"no region 'eu-centrl-1' with EKS.*'eu-central-1'"):
        EksProvider(calls.boto_clients).preflight(settings(region="eu-centrl-1"))


class Broken:
    """Clients whose calls all end in one error of botocore."""

    region = "us-east-1"

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.count = 0

    def __call__(self, service: str) -> Any:
        return self

    def __getattr__(self, operation: str) -> Any:
        def call(**_: Any) -> None:
            self.count += 1
            raise self._error

        return call


def test_a_login_that_ran_out_is_told_at_once() -> None:
    from botocore.exceptions import UnauthorizedSSOTokenError

    clients, clock = Broken(UnauthorizedSSOTokenError()), fake_aws().world.clock
    with pytest.raises(UsageProblem, match=r"no usable AWS credentials were found .*log in"):
        EksProvider(lambda _region: clients, clock).preflight(settings())
    assert clients.count == 1
    aws = calls.Aws(clients, "us-east-1", clock)
    aws.ahead_s = 0.0
    with pytest.raises(ClusterProblem, match="go on with the same run"):
        aws.call("sts", "get_caller_identity")


def test_an_aws_that_does_not_answer_is_given_up_soon_at_first_and_late_afterwards() -> None:
    from botocore.exceptions import EndpointConnectionError

    clients = Broken(EndpointConnectionError(endpoint_url="https://sts"))
    clock = fake_aws().world.clock
    with pytest.raises(UsageProblem, match="AWS cannot be asked in us-east-1"):
        EksProvider(lambda _region: clients, clock).preflight(settings())
    assert clients.count == 2
    aws = calls.Aws(clients, "us-east-1", clock)
    aws.ahead_s = 0.0
    with pytest.raises(ClusterProblem, match="Could not connect"):
        aws.call("sts", "get_caller_identity")
    assert clients.count == 10
