"""What AWS says of a cluster on EKS: the rows of the pattern, and the audit."""

from __future__ import annotations

import pytest
from pytest_bdd import given, parsers, then

from pytest_pgo_eks.audit.facts import Facts
from pytest_pgo_eks.clusters.base import AwsSide, ClusterHandle
from pytest_pgo_eks.pgo import Operator, PostgresCluster
from pytest_pgo_eks.report.evidence import ScenarioEvidence
from pytest_pgo_eks.scenario import audited


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
