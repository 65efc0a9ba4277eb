"""What AWS says of a cluster on EKS: the rows of the pattern, and the audit."""

from __future__ import annotations

import pytest
from pytest_bdd import given, parsers, then, when

from pytest_pgo_eks.audit.facts import Facts
from pytest_pgo_eks.clusters.base import AwsSide, ClusterHandle
from pytest_pgo_eks.pgo import Operator, PostgresCluster
from pytest_pgo_eks.report.evidence import ScenarioEvidence
from pytest_pgo_eks.scenario import audited, clouded
from pytest_pgo_eks.scenario.stage import Stage


@pytest.fixture(scope="session")
def pgo_facts(
    pgo_aws: AwsSide,
    pgo_cluster: ClusterHandle,
    pgo_operator: Operator,
    pgo_postgres: PostgresCluster,
) -> Facts:
    """What AWS and Kubernetes say, read once for the run."""
    return audited.read(pgo_aws, pgo_cluster, pgo_operator, pgo_postgres)


@given("what AWS and Kubernetes say of the cluster")
def what_is_said(pgo_facts: Facts) -> None:
    """Read once, changing nothing; what could not be read makes a check inconclusive."""
    del pgo_facts


@then(parsers.re(r"(?P<title>the .+|an adopted cluster|.+ logs) (?:is|are) as the pattern asks"))
def as_the_pattern_asks(pgo_evidence: ScenarioEvidence, pgo_facts: Facts, title: str) -> None:
    """A row of the pattern holds, or differs in a way that is recorded as a deviation."""
    audited.demand_check(pgo_evidence, pgo_facts, title)


@then(parsers.re(r"the audit finds that (?P<title>.+)"))
def audit_finds(pgo_evidence: ScenarioEvidence, pgo_facts: Facts, title: str) -> None:
    """A check of the audit passes; a warning is told, a failure breaks the scenario."""
    audited.demand_check(pgo_evidence, pgo_facts, title)


@when("AWS stops the primary's instance")
def instance_stopped(stage: Stage, pgo_aws: AwsSide) -> None:
    """The EC2 instance under the primary, without shutting it down; started again afterwards."""
    clouded.stop_instance(stage, pgo_aws)


@when("AWS terminates the primary's instance")
def instance_terminated(stage: Stage, pgo_aws: AwsSide) -> None:
    """The EC2 instance under the primary, for good; its node group makes another."""
    clouded.terminate_instance(stage, pgo_aws)


@when("AWS detaches the primary's data volume")
def volume_detached(stage: Stage, pgo_aws: AwsSide) -> None:
    """By force, while PostgreSQL writes to it; proven by a write that fails."""
    clouded.detach_volume(stage, pgo_aws)


@when("AWS takes the nodes of the primary's zone away")
def zone_emptied(stage: Stage, pgo_aws: AwsSide) -> None:
    """The zone's node group is given no nodes, with the notice that EKS gives by itself."""
    clouded.empty_zone(stage, pgo_aws)


@when("AWS denies the primary's zone all traffic")
def zone_closed(stage: Stage, pgo_aws: AwsSide) -> None:
    """A network ACL without a rule on the zone's subnets: no notice and no refusal."""
    clouded.close_zone(stage, pgo_aws)
