"""The sweep removes what has expired and carries our tags; it never touches anything else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes.aws import World, ec2, iam, services
from fakes.aws.world import BEGAN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eks.lives import Life, fake_aws, remains
from pytest_pgo_eks.clusters.eks import removal
from pytest_pgo_eks.clusters.eks.__main__ import main
from pytest_pgo_eks.clusters.eks.names import Names, stamp
from pytest_pgo_eks.clusters.eks.sweeping import runs, sweep

EXPIRED = stamp(BEGAN - timedelta(hours=1))
LIVING = stamp(BEGAN + timedelta(days=30))


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    monkeypatch.setattr(removal, "_POLL_S", 60.0)
    return Life(fake_aws(), tmp_path)


KEYS = st.sampled_from(
    [
        "Name",
        "pgo-eks/owner",
        "pgo-eks/expires-at",
        "kubernetes.io/cluster/somebody",
        "kubernetes.io/cluster/pgoeks-nights",
        "kubernetes.io/cluster/pgoeks-night",
        "eks:cluster-name",
        "ebs.csi.aws.com/cluster-name",
        "pgo-eks/run-of-somebody",
    ]
)
VALUES = st.sampled_from(["shared", "pgoeks-nights", "somebody", EXPIRED, "night", ""])
#: Never what makes something ours: neither the run's own tag, nor the cluster's with "owned".
FOREIGN_TAGS = st.dictionaries(KEYS, VALUES, max_size=4)
ANOTHERS = st.sampled_from(
    [
        {"pgo-eks/run": "nights", "pgo-eks/expires-at": LIVING},
        {"pgo-eks/run": "other", "pgo-eks/expires-at": LIVING, "kubernetes.io/cluster/pgoeks-night": "owned"},
        {"pgo-eks/run": "NIGHT", "pgo-eks/expires-at": EXPIRED},
        {"pgo-eks/run": "forever"},
        {"pgo-eks/run": "garbled", "pgo-eks/expires-at": "yesterday"},
    ]
)  # fmt: skip
KINDS = st.sampled_from(
    ["volume", "snapshot", "elastic-ip", "security-group", "launch-template", "role", "logs",
     "network-interface", "oidc", "balancer"]
)  # fmt: skip


def plant(world: World, kind: str, tags: dict[str, str], number: int) -> str:
    """Put a foreign thing into the world and return what it is known by."""
    if kind == "role":
        name = f"pgoeks-night-{number}"
        iam.make_role(world, name, {"Statement": [{}]}, tags)
    elif kind == "logs":
        name = f"/aws/eks/pgoeks-nights-{number}/cluster"
        services.make_log_group(world, tags, name, None)
    elif kind == "oidc":
        name = iam.make_provider(world, tags, f"https://issuer/{number}", ["sts"])["Arn"]
    elif kind == "balancer":
        name = f"arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/net/a{number}/1"
        world.put("elbv2", name, {"VpcId": "vpc-1", "_tags": tags})
    else:
        shapes: dict[str, dict[str, Any]] = {
            "volume": {"State": "available", "Attachments": []},
            "snapshot": {"State": "completed"},
            "elastic-ip": {},
            "security-group": {"GroupName": "k8s-elb-a", "VpcId": "vpc-1", "IpPermissions": []},
            "launch-template": {"LaunchTemplateName": f"eks-{number}"},
            "network-interface": {
                "Status": "available", "Groups": [], "Description": "aws-K8S-i-1", "SubnetId": "s",
                "VpcId": "vpc-1",
            },
        }  # fmt: skip
        name = ec2.make(world, kind, tags, **shapes[kind])[ec2.KINDS[kind][1]]
    return str(name)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(KINDS, st.one_of(FOREIGN_TAGS, ANOTHERS)), max_size=25))
def test_what_is_not_ours_is_never_touched(
    life: Life, foreign: list[tuple[str, dict[str, str]]]
) -> None:
    owned = {
        "kubernetes.io/cluster/pgoeks-night",
        "eks:cluster-name",
        "ebs.csi.aws.com/cluster-name",
    }
    for _, tags in foreign:
        if "pgo-eks/run" in tags:
            continue
        for key in owned & tags.keys():
            if tags[key] in {"owned", "pgoeks-night"}:
                tags[key] = "shared"
    world = life.fake.fresh().world
    planted = [plant(world, kind, dict(tags), n) for n, (kind, tags) in enumerate(foreign)]
    before = remains(world)
    ours = ec2.make_volume(
        world, {"pgo-eks/run": "night", "pgo-eks/expires-at": EXPIRED}, "us-east-1a", 1
    )["VolumeId"]
    outcome = sweep(life.aws(), life.told, really=True)
    assert [(found.run, left) for found, left in outcome] == [("night", [])]
    assert f"volume {ours}" not in remains(world)
    assert remains(world) == before, planted


def test_a_run_past_its_time_is_found_by_whatever_is_left_of_it(life: Life) -> None:
    tags = Names("old").tags(
        owner="somebody", created=BEGAN, expires=BEGAN - timedelta(hours=2), commit=None
    )
    world = life.world
    iam.make_role(world, "pgoeks-old-reaper", {"Statement": [{}]}, tags)
    assert [(r.run, r.owner) for r in runs(life.aws())] == [("old", "somebody")]
    world.drop("role", "pgoeks-old-reaper")
    world.put("schedule-group", "pgoeks-old-reaper", {"Name": "pgoeks-old-reaper", "_tags": tags})
    assert [r.run for r in runs(life.aws())] == ["old"]


def test_the_latest_time_that_anything_names_counts(life: Life) -> None:
    for expires in (EXPIRED, LIVING):
        tags = {"pgo-eks/run": "night", "pgo-eks/expires-at": expires}
        ec2.make_volume(life.world, tags, "us-east-1a", 1)
    assert sweep(life.aws(), life.told, really=True) == []
    assert len(remains(life.world)) == 2


def test_a_dry_run_says_what_it_would_do_and_does_nothing(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.build()
    life.world.clock.pause(7 * 3600)
    # Time alone changes nothing here, asking must not either.
    life.fake.clients("sts").get_caller_identity()
    before = life.world.changes
    assert main(["sweep"], lambda _region: life.aws()) == 0
    said = capsys.readouterr().out
    assert "run night of runner, expires 2026-11-24T02:00:00Z: has " in said
    assert "aws cloudformation delete-stack --stack-name pgoeks-night-base" in said
    assert "say --yes" in said
    assert life.world.changes == before
    assert main(["sweep", "--yes"], lambda _region: life.aws()) == 0
    assert "is removed" in capsys.readouterr().out
    assert remains(life.world) == []
    assert main(["sweep"], lambda _region: life.aws()) == 0
    assert "no run in us-east-1 is past its time" in capsys.readouterr().out


def test_a_living_run_is_left_alone_unless_it_is_named(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    life.build()
    assert main(["sweep", "--yes"], lambda _region: life.aws()) == 0
    assert len(life.world.kind("stack")) == 3
    assert main(["sweep", "--yes", "--run", "night"], lambda _region: life.aws()) == 0
    assert remains(life.world) == []
    # Swept twice is as good as once: a workflow's last step runs whatever happened before.
    assert main(["sweep", "--run", "nobody"], lambda _region: life.aws()) == 0
    assert "nothing in us-east-1 carries the tag" in capsys.readouterr().out
    assert main(["sweep", "--run", "No Body"], lambda _region: life.aws()) == 4


def test_something_left_is_an_exit_status_of_its_own(life: Life) -> None:
    life.build()
    life.world.put("bucket", "backups", {"_tags": {"pgo-eks/run": "night"}})
    assert main(["sweep", "--yes", "--all"], lambda _region: life.aws()) == 1


def test_a_late_log_group_without_tags_is_found_by_the_run_s_name(life: Life) -> None:
    services.make_log_group(life.world, {}, "/aws/eks/pgoeks-night/cluster", None)
    assert sweep(life.aws(), life.told, run="nigh", really=True) == []
    assert remains(life.world)
    sweep(life.aws(), life.told, run="night", really=True)
    assert remains(life.world) == []
