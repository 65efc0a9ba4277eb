"""Everything that can be known before money is spent, asked of AWS by reads alone."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from urllib.error import URLError

from pytest_pgo_eks.clusters.eks import prices
from pytest_pgo_eks.clusters.eks.calls import DENIED, EXPIRED, Aws, AwsRefused
from pytest_pgo_eks.clusters.eks.names import RUN_TAG, Names
from pytest_pgo_eks.clusters.eks.stacks import Stacks
from pytest_pgo_eks.clusters.eks.templates import Choice
from pytest_pgo_eks.clusters.eks.versions import Version, choose, offered, retired
from pytest_pgo_eks.clusters.eks.wanted import ZONES, Wanted
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem

#: AWS refuses signatures that are more than five minutes off.
_SKEW_S = 240.0
_ASSUMED = re.compile(r"arn:([\w-]+):sts::(\d+):assumed-role/([^/]+)/.+")
#: Service, quota, its name, and how to count what is in use.
_VCPUS = ("ec2", "L-1216C47A", "Running On-Demand Standard instances (vCPUs)")
_VPCS = ("vpc", "L-F678F1CE", "VPCs per region")
_ADDRESSES = ("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs")
_CLUSTERS = ("eks", "L-1194D53C", "Clusters")
#: What a run cannot do without; each is asked of the policy simulator.
ACTIONS = (
    "cloudformation:CreateStack",
    "cloudformation:DeleteStack",
    "cloudformation:DescribeStacks",
    "cloudformation:DescribeStackEvents",
    "ec2:CreateVpc",
    "ec2:DeleteVpc",
    "ec2:RunInstances",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteVolume",
    "eks:CreateCluster",
    "eks:DeleteCluster",
    "eks:CreateNodegroup",
    "eks:CreateAddon",
    "eks:CreateAccessEntry",
    "iam:CreateRole",
    "iam:DeleteRole",
    "iam:PassRole",
    "iam:CreateOpenIDConnectProvider",
    "logs:CreateLogGroup",
    "logs:DeleteLogGroup",
    "scheduler:CreateSchedule",
    "scheduler:DeleteScheduleGroup",
)
_POLICIES = (
    "AmazonEKSClusterPolicy",
    "AmazonEKSWorkerNodePolicy",
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonEKS_CNI_Policy",
    "AmazonSSMManagedInstanceCore",
    "service-role/AmazonEBSCSIDriverPolicy",
)
_PATTERN_POLICIES = ("AmazonEKSServicePolicy", "CloudWatchFullAccess")
_ECHO = "https://checkip.amazonaws.com"
_ECHO_S = 5.0

Address = Callable[[], str | None]


def own_address() -> str | None:
    """Return the address that AWS sees this machine as, None where it cannot be asked."""
    try:
        with urllib.request.urlopen(_ECHO, timeout=_ECHO_S) as answer:
            text = answer.read(64).decode("ascii", "replace").strip()
    except (URLError, OSError, ValueError):
        return None
    return text if re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", text) else None


class Preflight:
    """Asks one question after another; ``notes`` is what could not be asked."""

    def __init__(self, aws: Aws, wanted: Wanted, names: Names, address: Address) -> None:
        self._aws = aws
        self._wanted = wanted
        self._names = names
        self._address = address
        self.notes: list[str] = []

    def choose(self) -> Choice:
        """Return what the run will be made of.

        :raises UsageProblem: it cannot work, or costs too much; one line, and nothing was created.
        """
        try:
            return self._choose()
        except AwsRefused as refused:
            raise UsageProblem(_plain(refused)) from None
        except ClusterProblem as problem:
            raise UsageProblem(f"AWS cannot be asked in {self._aws.region}: {problem}") from None

    def _choose(self) -> Choice:
        wanted = self._wanted
        account, runner = caller(self._aws)
        self._clock()
        version = self._version()
        zones_here = self._zones()
        vcpus, architecture = self._types()
        zones, types = self._offered(zones_here)
        self._quotas(vcpus[types[0]])
        self._policies(runner)
        self._permissions(runner)
        self._names_free()
        known = prices.rates(self._aws, types)
        cost = prices.estimate(wanted, types[0], known, extended=version.extended)
        prices.refuse_dear(cost, wanted)
        return Choice(
            region=self._aws.region,
            account=account,
            runner=runner,
            version=version.name,
            extended=version.extended,
            zones=zones,
            types=types,
            architecture=architecture,
            reached_by=self._reached_by(),
            owner=wanted.owner or runner.rpartition("/")[2],
            estimate_usd=cost.usd,
            prices=dict(known.instance),
            price_factor=known.factor,
            price_source=known.source,
        )

    def _clock(self) -> None:
        ahead_s = self._aws.ahead_s
        if ahead_s is not None and abs(ahead_s) > _SKEW_S:
            raise UsageProblem(
                f"this machine's clock is {abs(ahead_s):.0f} s "
                f"{'behind' if ahead_s > 0 else 'ahead of'} AWS's, which refuses signatures that "
                "are five minutes off: set the clock"
            )

    def _version(self) -> Version:
        pinned = self._wanted.version
        known = offered(self._aws.every("eks", "describe_cluster_versions", "clusterVersions"))
        gone = None
        if pinned is not None and pinned not in {v.name for v in known}:
            try:
                told = self._aws.call("eks", "describe_cluster_versions", clusterVersions=[pinned])
                gone = retired(told["clusterVersions"], pinned)
            except AwsRefused:
                self.notes.append(f"EKS says nothing about version {pinned}")
        return choose(known, pinned, self._aws.clock.wall().date(), gone)

    def _zones(self) -> list[str]:
        found = [
            zone["ZoneName"]
            for zone in self._aws.call("ec2", "describe_availability_zones")["AvailabilityZones"]
            if zone.get("State") == "available"
            and zone.get("ZoneType", "availability-zone") == "availability-zone"
        ]
        for zone in self._wanted.zones or ():
            if zone not in found:
                raise UsageProblem(
                    f"--pgo-eks-zones: there is no zone {zone} for this account in "
                    f"{self._aws.region}; there are {', '.join(found)}"
                )
        if len(found) < ZONES:
            raise UsageProblem(
                f"--pgo-eks-region: {self._aws.region} has {len(found)} zones for this account; "
                f"the pattern's cluster spans {ZONES}"
            )
        return found

    def _types(self) -> tuple[dict[str, int], str]:
        """Return the processors of each type, and the one architecture of them all."""
        try:
            answer = self._aws.call(
                "ec2", "describe_instance_types", InstanceTypes=list(self._wanted.types)
            )
        except AwsRefused as refused:
            if refused.code == "InvalidInstanceType":
                raise UsageProblem(f"--pgo-eks-instance-types: {refused.said}") from None
            raise
        vcpus, kinds = {}, {}
        for each in answer["InstanceTypes"]:
            kinds[each["InstanceType"]] = each["ProcessorInfo"]["SupportedArchitectures"][-1]
            vcpus[each["InstanceType"]] = int(each["VCpuInfo"]["DefaultVCpus"])
        if len(set(kinds.values())) > 1:
            told = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            raise UsageProblem(
                f"--pgo-eks-instance-types: {told} are of different architectures; nodes of one "
                "cluster share an image, so name types of one"
            )
        return vcpus, next(iter(kinds.values()))

    def _offered(self, here: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the three zones, and the types that all of them offer, in the wanted order."""
        wanted = self._wanted
        offers: dict[str, set[str]] = {name: set() for name in wanted.types}
        for each in self._aws.every(
            "ec2",
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": list(wanted.types)}],
        ):
            offers[each["InstanceType"]].add(each["Location"])
        if wanted.zones:
            zones = wanted.zones
        else:
            # Where the first choice is, and then as many of the others as can be.
            able = [z for z in here if z in offers[wanted.types[0]]] or list(here)
            ranked = sorted(able, key=lambda z: -sum(z in offers[t] for t in wanted.types))
            zones = tuple(sorted(ranked[:ZONES]))
        types = tuple(t for t in wanted.types if set(zones) <= offers[t])
        if not types or len(zones) < ZONES:
            missing = {t: sorted(set(zones) - offers[t]) for t in wanted.types}
            told = "; ".join(f"{t} not in {', '.join(z)}" for t, z in missing.items() if z)
            raise UsageProblem(
                f"--pgo-eks-instance-types: no type is offered in three zones together: {told}"
            )
        return zones, types

    def _quotas(self, vcpus_each: int) -> None:
        nodes, gateways = self._wanted.nodes, self._wanted.gateways
        states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        running = [
            instance
            for reservation in self._aws.every(
                "ec2", "describe_instances", "Reservations", Filters=states
            )
            for instance in reservation["Instances"]
        ]
        used = sum(
            int(i.get("CpuOptions", {}).get("CoreCount", 1))
            * int(i.get("CpuOptions", {}).get("ThreadsPerCore", 2))
            for i in running
        )
        self._room(_VCPUS, used, nodes * vcpus_each)
        self._room(_VPCS, len(list(self._aws.every("ec2", "describe_vpcs", "Vpcs"))), 1)
        addresses = self._aws.call("ec2", "describe_addresses")["Addresses"]
        self._room(_ADDRESSES, len(addresses), gateways)
        clusters = list(self._aws.every("eks", "list_clusters", "clusters"))
        self._room(_CLUSTERS, len(clusters), 1)

    def _room(self, quota: tuple[str, str, str], used: int, more: int) -> None:
        service, code, name = quota
        try:
            told = self._aws.call(
                "service-quotas", "get_service_quota", ServiceCode=service, QuotaCode=code
            )
        except AwsRefused as refused:
            self.notes.append(f"quota {name} is not known: {refused.code}")
            return
        most = float(told["Quota"]["Value"])
        # A run that is gone on with is counted in what is used already.
        if used + more > most and not self._going_on():
            raise UsageProblem(
                f"quota {name} in {self._aws.region}: {used} of {most:.0f} are in use and the run "
                f"needs {more} more; ask for an increase: aws service-quotas "
                f"request-service-quota-increase --service-code {service} --quota-code {code} "
                f"--desired-value {used + more}"
            )

    def _going_on(self) -> bool:
        return Stacks(self._aws, self._names).own("base") is not None

    def _policies(self, runner: str) -> None:
        partition = runner.split(":")[1]
        asked = _POLICIES + (_PATTERN_POLICIES if self._wanted.shape.pattern_policies else ())
        if self._wanted.observability:
            asked += ("CloudWatchAgentServerPolicy",)
        for name in asked:
            arn = f"arn:{partition}:iam::aws:policy/{name}"
            try:
                found = self._aws.call("iam", "get_policy", PolicyArn=arn)["Policy"]
            except AwsRefused as refused:
                if refused.missing:
                    raise UsageProblem(
                        f"AWS has no managed policy {name} any more, and the profile "
                        f"{self._wanted.shape.name} attaches it"
                    ) from None
                self.notes.append(f"policy {name} could not be looked at: {refused.code}")
                continue
            if not found.get("IsAttachable", True):
                raise UsageProblem(f"AWS no longer lets policy {name} be attached")

    def _permissions(self, runner: str) -> None:
        try:
            results = list(
                self._aws.every(
                    "iam",
                    "simulate_principal_policy",
                    "EvaluationResults",
                    PolicySourceArn=runner,
                    ActionNames=list(ACTIONS),
                )
            )
        except AwsRefused as refused:
            self.notes.append(f"permissions could not be simulated: {refused.code}")
            return
        denied = [r["EvalActionName"] for r in results if r["EvalDecision"] != "allowed"]
        if denied:
            raise UsageProblem(
                f"{runner} may not: {', '.join(denied)}; examples/aws/runner-policy.json has the policy that a run needs"
            )

    def _names_free(self) -> None:
        stacks = Stacks(self._aws, self._names)
        for layer in ("base", "nodes", "addons"):
            stacks.own(layer)
        found = self._aws.find("eks", "describe_cluster", name=self._names.cluster)
        if found and found["cluster"].get("tags", {}).get(RUN_TAG) != self._names.run:
            raise UsageProblem(
                f"there is a cluster {self._names.cluster} in {self._aws.region} that is not this "
                "run's; choose another name with --pgo-eks-run"
            )

    def _reached_by(self) -> tuple[str, ...]:
        if self._wanted.private:
            return ()
        if self._wanted.reached_by:
            return self._wanted.reached_by
        address = self._address()
        if address is None:
            raise UsageProblem(
                f"this machine's public address could not be found ({_ECHO} does not answer); "
                "say who may reach the API server with --pgo-eks-public-cidrs"
            )
        return (f"{address}/32",)


def caller(aws: Aws) -> tuple[str, str]:
    """Return account and ARN of the IAM user or role behind the credentials.

    A session's own ARN lacks the role's path, so the role is asked for it.

    :raises UsageProblem: there are no credentials, or they have expired.
    """
    try:
        told = aws.call("sts", "get_caller_identity")
    except AwsRefused as refused:
        raise UsageProblem(_plain(refused)) from None
    except ClusterProblem as problem:
        raise UsageProblem(f"AWS cannot be asked in {aws.region}: {problem}") from None
    arn = str(told["Arn"])
    assumed = _ASSUMED.fullmatch(arn)
    if assumed is None:
        return told["Account"], arn
    partition, account, role = assumed.groups()
    try:
        found = aws.find("iam", "get_role", RoleName=role)
    except AwsRefused:
        found = None
    plain = f"arn:{partition}:iam::{account}:role/{role}"
    return told["Account"], found["Role"]["Arn"] if found else plain


def _plain(refused: AwsRefused) -> str:
    if refused.code in EXPIRED:
        return f"AWS does not accept the credentials ({refused.code}): log in again"
    if refused.code in DENIED:
        return f"AWS does not allow {refused.service} {refused.operation}: {refused.said}"
    return f"AWS refused {refused.service} {refused.operation}: {refused.code}: {refused.said}"
