"""Everything that AWS may do to a creation or a removal, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.aws import ec2, services

from eks.lives import Life, fake_aws, remains
from pytest_pgo_eks.clusters.eks import stacks
from pytest_pgo_eks.clusters.eks.belongings import Thing, find
from pytest_pgo_eks.clusters.eks.calls import AwsRefused
from pytest_pgo_eks.clusters.eks.names import Names
from pytest_pgo_eks.clusters.eks.reasons import causes, kind_of, usable_zones
from pytest_pgo_eks.clusters.eks.removal import refuse_leftovers
from pytest_pgo_eks.clusters.eks.stacks import StackFailed
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem


@pytest.fixture(autouse=True)
def long_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "POLL_S", 60.0)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(fake_aws(), tmp_path)


def stack_ids(life: Life, layer: str) -> list[str]:
    return [
        stack["id"]
        for stack in life.world.kind("stack").values()
        if stack["name"] == life.names.stack(layer)
    ]


def test_a_whole_life_costs_what_ran_and_leaves_nothing(life: Life) -> None:
    outputs = life.build()
    world = life.world
    assert {group["status"] for group in world.kind("nodegroup").values()} == {"ACTIVE"}
    assert {addon["addonName"] for addon in world.kind("addon").values()} == {
        "vpc-cni", "kube-proxy", "eks-pod-identity-agent", "coredns", "aws-ebs-csi-driver",
    }  # fmt: skip
    assert len(world.kind("schedule")) == 4
    assert outputs["ClusterSecurityGroup"] in world.kind("security-group")
    assert life.remove() == []
    assert remains(world) == []
    state = life.file.read()
    assert state is not None
    assert state.removed is not None
    assert {span.what for span in state.spans(3, 1)} == {"control plane", "network", "nodes"}
    assert all(span.until is not None for span in state.spans(3, 1))


def test_the_pattern_s_shape_and_its_variants_live_as_well(tmp_path: Path) -> None:
    life = Life(
        fake_aws(), tmp_path, profile="faithful", max_cost_usd=50.0, identity="pod-identity",
        observability=True,
    )  # fmt: skip
    life.build()
    world = life.world
    assert len(world.kind("instance")) == 6
    assert len(world.kind("natgateway")) == 3
    assert world.kind("oidc-provider") == {}
    accounts = {each["serviceAccount"] for each in world.kind("pod-identity").values()}
    assert accounts == {"ebs-csi-controller-sa", "cloudwatch-agent"}
    (role,) = [r for name, r in world.kind("role").items() if "ClusterRole" in name]
    assert len(role["_attached"]) == 3
    assert life.remove() == []
    assert remains(world) == []


def test_the_switch_is_armed_before_anything_that_costs(life: Life) -> None:
    life.build()
    calls = life.fake.calls
    last = max(n for n, call in enumerate(calls) if call == ("scheduler", "CreateSchedule"))
    assert last < calls.index(("cloudformation", "CreateStack"))
    for schedule in life.world.kind("schedule").values():
        assert schedule["ActionAfterCompletion"] == "DELETE"
        assert schedule["Target"]["Arn"].endswith("aws-sdk:cloudformation:deleteStack")
    (nodes,) = [s for k, s in life.world.kind("schedule").items() if k.endswith("/nodes")]
    state = life.file.read()
    assert state is not None
    assert nodes["ScheduleExpression"] == f"at({state.expires.removesuffix('Z')})"


def test_progress_tells_what_is_at_work(life: Life) -> None:
    life.build()
    assert any("at work: Cluster (EKS::Cluster)" in text for text in life.told.details)
    assert any(text.startswith("28 of 35 done") for text in life.told.details)


# -- capacity, zones, quotas -----------------------------------------------------------------------


def test_no_capacity_takes_the_next_type_and_leaves_the_control_plane(life: Life) -> None:
    life.world.no_capacity.add(("m7g.large", "us-east-1b"))
    life.build()
    kinds = {i["InstanceType"] for i in life.world.kind("instance").values()}
    assert kinds == {"m6g.large"}
    gone = [s["name"] for s in life.world.kind("gone-stack").values()]
    assert gone == [life.names.stack("nodes")]
    assert any("no capacity for m7g.large (NodeGroup2)" in line for line in life.told.lines)
    state = life.file.read()
    assert state is not None
    assert [a.type for a in state.attempts if a.layer == "nodes"] == ["m7g.large", "m6g.large"]
    assert life.remove() == []


def test_no_capacity_of_any_type_names_aws_s_reason(life: Life) -> None:
    life.world.no_capacity |= {(kind, "us-east-1b") for kind in life.wanted.types}
    with pytest.raises(StackFailed, match="InsufficientInstanceCapacity"):
        life.build()
    assert life.remove() == []
    assert remains(life.world) == []


def test_a_zone_without_room_for_eks_is_exchanged(life: Life) -> None:
    life.world.zones_without_eks = ("us-east-1b",)
    life.build()
    zones = {s["AvailabilityZone"] for s in life.world.kind("subnet").values()}
    assert len(zones) == 3
    assert "us-east-1b" not in zones
    state = life.file.read()
    assert state is not None
    assert "us-east-1b" not in state.choice["zones"]


def test_a_zone_that_the_user_named_is_not_exchanged(tmp_path: Path) -> None:
    life = Life(fake_aws(), tmp_path, zones="us-east-1a,us-east-1b,us-east-1e")
    with pytest.raises(StackFailed, match="us-east-1e, the targeted availability zone"):
        life.build()
    assert life.remove() == []


def test_a_passing_trouble_is_tried_again(life: Life) -> None:
    life.world.fail_create["CoreDns"] = ["Internal Failure"]
    life.build()
    assert any("trying again" in line for line in life.told.lines)


def test_what_is_no_passing_trouble_is_not_tried_again(life: Life) -> None:
    life.world.fail_create["CoreDns"] = ["addon version v0 is not supported"]
    with pytest.raises(StackFailed, match=r"CoreDns .*not supported"):
        life.build()


def test_a_quota_met_in_the_middle_is_told_with_its_resource(life: Life) -> None:
    said = "The maximum number of addresses has been reached. (AddressLimitExceeded)"
    life.world.fail_create["NatAddress1"] = [said]
    with pytest.raises(StackFailed) as failed:
        life.build()
    assert failed.value.kind == "quota"
    assert "NatAddress1 (AWS::EC2::EIP)" in str(failed.value)
    assert life.remove() == []
    assert remains(life.world) == []


# -- states of a stack -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "CREATE_FAILED", "ROLLBACK_FAILED"])
def test_a_stack_in_a_failed_state_is_a_failure_and_not_a_success(life: Life, status: str) -> None:
    life.build()
    (addons,) = stack_ids(life, "addons")
    life.world.kind("stack")[addons]["status"] = status
    with pytest.raises(StackFailed, match=status):
        life.build()


@pytest.mark.parametrize("status", ["UPDATE_FAILED", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_COMPLETE"])
def test_a_stack_that_somebody_updated_is_refused(life: Life, status: str) -> None:
    """botocore's own waiter counts some of these as created."""
    life.build()
    (base,) = stack_ids(life, "base")
    life.world.kind("stack")[base]["status"] = status
    with pytest.raises(StackFailed, match="somebody changed it by hand"):
        life.build()


def test_a_stack_that_is_being_deleted_is_waited_for_and_made_anew(life: Life) -> None:
    life.build()
    before = stack_ids(life, "addons")
    life.fake.clients("cloudformation").delete_stack(StackName=before[0])
    life.build()
    after = stack_ids(life, "addons")
    assert after
    assert after != before


def test_a_stack_that_never_ends_is_given_up_with_the_way_on(life: Life) -> None:
    life.build()
    (addons,) = stack_ids(life, "addons")
    part = life.world.kind("stack")[addons]
    part["status"] = "CREATE_IN_PROGRESS"
    part["resources"]["CoreDns"].update(status="CREATE_IN_PROGRESS", due=1e12)
    with pytest.raises(
        ClusterProblem, match=r"CREATE_IN_PROGRESS after 900 s.*--pgo-eks-run=night"
    ):
        life.build()


def test_a_stack_of_another_owner_under_our_name_is_never_touched(life: Life) -> None:
    other = Life(life.fake, life.file.path.parent / "other", run="theirs")
    other.build()
    (base,) = stack_ids(other, "base")
    life.world.kind("stack")[base]["name"] = life.names.stack("base")
    before = life.world.changes
    with pytest.raises(UsageProblem, match="not this run's"):
        life.build()
    assert life.world.changes == before
    life.remove()
    assert base in life.world.kind("stack")


def test_another_edition_of_the_template_is_not_gone_on_with(life: Life) -> None:
    life.build()
    (base,) = stack_ids(life, "base")
    life.world.kind("stack")[base]["tags"]["pgo-eks/template"] = "0123456789ab"
    with pytest.raises(UsageProblem, match="another edition of the template"):
        life.build()


def test_a_run_that_expired_or_is_being_removed_is_not_gone_on_with(life: Life) -> None:
    life.build()
    life.world.clock.pause(7 * 3600)
    with pytest.raises(UsageProblem, match="expired at"):
        life.build()
    life.remove()
    with pytest.raises(UsageProblem, match="is being removed"):
        life.build()


# -- throttling, credentials ------------------------------------------------------------------------


def test_throttled_calls_are_repeated(life: Life) -> None:
    life.fake.fail("cloudformation", "DescribeStacks", "Throttling", "Rate exceeded", times=5)
    life.fake.fail("eks", "DescribeClusterVersions", "TooManyRequestsException", times=2)
    life.build()
    assert life.remove() == []


def test_a_throttle_that_does_not_end_is_told(life: Life) -> None:
    life.fake.fail("cloudformation", "CreateStack", "Throttling", "Rate exceeded", times=20)
    with pytest.raises(AwsRefused, match="Rate exceeded"):
        life.build()


def test_credentials_that_expire_in_the_middle_say_how_to_go_on(life: Life) -> None:
    life.fake.fail("cloudformation", "DescribeStackEvents", "ExpiredToken", "expired", times=1)
    with pytest.raises(AwsRefused, match="log in again, then go on with the same run"):
        life.build()
    life.build()
    assert len(life.world.kind("stack")) == 3


def test_credentials_are_read_again_where_that_is_possible(life: Life) -> None:
    renewed = []

    class Renewing:
        def __call__(self, service: str) -> Any:
            return life.fake.clients(service)

        def renew(self) -> None:
            renewed.append(1)

    aws = life.aws()
    aws.clients = Renewing()
    life.fake.fail("sts", "GetCallerIdentity", "ExpiredToken", "expired", times=1)
    assert aws.call("sts", "get_caller_identity")["Account"]
    assert renewed == [1]


def test_a_page_of_html_is_not_a_missing_thing(life: Life) -> None:
    life.fake.fail("eks", "DescribeCluster", "404", "<!doctype html> <title>404 Not Found</title>")
    with pytest.raises(AwsRefused, match="404"):
        life.aws().find("eks", "describe_cluster", name="x")


def test_lists_longer_than_a_page_are_read_to_their_end(life: Life) -> None:
    for number in range(60):
        ec2.make_volume(life.world, {"Name": str(number)}, "us-east-1a", 1)
    owned = {"kubernetes.io/cluster/pgoeks-night": "owned"}
    last = ec2.make_volume(life.world, owned, "us-east-1a", 1)
    assert find(life.aws(), life.names, ("volume",)) == [Thing("volume", last["VolumeId"])]


# -- removing ---------------------------------------------------------------------------------------


def test_interfaces_that_the_network_plugin_leaks_are_removed(life: Life) -> None:
    life.world.leak_eni = True
    life.build()
    assert life.remove() == []
    assert remains(life.world) == []
    calls = life.fake.calls
    deletes = [n for n, call in enumerate(calls) if call == ("cloudformation", "DeleteStack")]
    leaked = calls.index(("ec2", "DeleteNetworkInterface"))
    # After the nodes and before the base: the cluster's own security group hangs on them.
    assert deletes[-2] < leaked < deletes[-1]


def test_volumes_of_a_class_that_retains_them_are_removed(life: Life) -> None:
    life.build()
    owned = {"kubernetes.io/cluster/pgoeks-night": "owned"}
    ec2.make_volume(life.world, owned, "us-east-1a", 10)
    assert life.remove() == []
    assert remains(life.world) == []


def test_a_log_group_that_comes_late_is_removed(life: Life) -> None:
    life.world.late_logs = True
    life.build()
    assert life.remove() == []
    assert remains(life.world) == []


def test_load_balancers_go_before_the_network(life: Life) -> None:
    outputs = life.build()
    world, cluster = life.world, life.names.cluster
    owned = {f"kubernetes.io/cluster/{cluster}": "owned"}
    arn = "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/net/a/1"
    world.put(
        "elbv2", arn, {"VpcId": outputs["VpcId"], "_tags": {"elbv2.k8s.aws/cluster": cluster}}
    )
    world.put("elb", "classic", {"VpcId": outputs["VpcId"], "_tags": owned})
    subnet = outputs["PublicSubnets"].split(",")[0]
    group = ec2.make(world, "security-group", owned, GroupName="k8s-elb-a", Description="",
                     VpcId=outputs["VpcId"], IpPermissions=[], OwnerId="1")  # fmt: skip
    for balancer in (arn, "classic"):
        ec2.make_eni(world, {}, subnet, [group["GroupId"]], Description="ELB", _balancer=balancer)
    assert life.remove() == []
    assert remains(world) == []


def test_a_deletion_that_failed_for_what_is_in_the_way_is_cleared_and_repeated(life: Life) -> None:
    outputs = life.build()
    owned = {"kubernetes.io/cluster/pgoeks-night": "owned"}
    # A security group that nobody deletes keeps the VPC.
    ec2.make(life.world, "security-group", owned, GroupName="k8s-traffic", Description="",
             VpcId=outputs["VpcId"], IpPermissions=[], OwnerId="1")  # fmt: skip
    assert life.remove() == []
    assert remains(life.world) == []
    assert any("DELETE_FAILED" in line and "Vpc" in line for line in life.told.lines)


def test_an_instance_profile_on_the_node_role_does_not_stop_it(life: Life) -> None:
    life.build()
    (role,) = [name for name in life.world.kind("role") if "NodeRole" in name]
    life.world.put("instance-profile", "eks-auto", {"_roles": [role]})
    assert life.remove() == []
    assert remains(life.world) == []


def test_a_stack_that_cannot_be_deleted_is_forced_and_its_rest_is_swept(life: Life) -> None:
    life.build()
    life.world.fail_delete["NatGateway1"] = ["Internal Failure"] * 9
    assert life.remove() == []
    assert remains(life.world) == []


def test_what_cannot_be_removed_is_named_with_its_line(life: Life) -> None:
    life.build()
    life.fake.fail(
        "logs", "DeleteLogGroup", "AccessDeniedException", "not authorized", times=10_000
    )
    services.make_log_group(life.world, {}, "/aws/eks/pgoeks-night/extra", None)
    left = life.remove()
    assert left == [Thing("log-group", "/aws/eks/pgoeks-night/extra")]
    with pytest.raises(ClusterProblem, match=(
        r"1 things are left .*\n  log-group .*: aws logs delete-log-group --log-group-name "
        r"/aws/eks/pgoeks-night/extra --region us-east-1"
    )):  # fmt: skip
        refuse_leftovers(left, "us-east-1")
    state = life.file.read()
    assert state is not None
    assert state.removed is None


def test_what_carries_the_tag_in_another_service_is_told_and_not_touched(life: Life) -> None:
    life.world.put("bucket", "backups", {"_tags": {"pgo-eks/run": "night"}})
    life.build()
    assert life.remove() == [Thing("resource", "arn:aws:s3:::backups")]
    assert remains(life.world) == ["bucket backups"]


def test_every_kind_has_a_line_that_removes_it() -> None:
    from pytest_pgo_eks.clusters.eks import belongings

    kinds = {*belongings.FINDERS, "nodegroup", "target-group", "classic-load-balancer"}
    for kind in kinds:
        line = Thing(kind, "the/id").removal("eu-central-1")
        assert line.startswith("aws ")
        assert line.endswith(" --region eu-central-1")


# -- reasons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "InsufficientInstanceCapacity - We currently do not have sufficient m7g.large",
            "capacity",
        ),
        ("You have requested more vCPU capacity than your current vCPU limit", "quota"),
        ("The maximum number of VPCs has been reached. (VpcLimitExceeded)", "quota"),
        ("UnsupportedAvailabilityZoneException: Cannot create cluster", "zone"),
        ("User is not authorized to perform: eks:CreateCluster", "denied"),
        ("resource sg-1 has a dependent object (DependencyViolation)", "in use"),
        ("Rate exceeded (Service: Ec2, Status Code: 400)", "passing"),
        ("Addon is DEGRADED: InsufficientNumberOfReplicas", "passing"),
        ("Invalid value for parameter", "other"),
    ],
)
def test_reasons_are_told_apart(said: str, kind: str) -> None:
    assert kind_of(said) == kind


def test_the_root_cause_is_what_failed_first_by_itself() -> None:
    def event(number: int, name: str, status: str, said: str) -> dict[str, Any]:
        return {
            "Timestamp": number, "EventId": str(number), "LogicalResourceId": name,
            "ResourceType": "AWS::EC2::EIP", "ResourceStatus": status,
            "ResourceStatusReason": said,
        }  # fmt: skip

    events = [
        event(4, "Late", "CREATE_FAILED", "also bad"),
        event(3, "Other", "CREATE_FAILED", "Resource creation cancelled"),
        event(2, "First", "CREATE_FAILED", "the reason"),
        event(1, "First", "CREATE_IN_PROGRESS", "Resource creation Initiated"),
    ]
    assert [cause.name for cause in causes(events)] == ["First", "Late"]


def test_the_zones_that_an_error_offers_are_read() -> None:
    said = (
        "Cannot create cluster 'x' because us-east-1e, the targeted availability zone, does not "
        "currently have sufficient capacity. Retry and choose from these availability zones: "
        "us-east-1a, us-east-1b, us-east-1f"
    )
    assert usable_zones(said) == ("us-east-1a", "us-east-1b", "us-east-1f")


def test_names_tell_their_limit() -> None:
    assert Names("a" * 24).cluster == "pgoeks-" + "a" * 24
    for bad in ("a" * 25, "A", "-a", "a_b", "", "a-"):
        with pytest.raises(UsageProblem, match="is no name of a run"):
            Names(bad)
