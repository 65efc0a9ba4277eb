"""A cluster on EKS, asked: what was read once, and one check after another on it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pytest_pgo_eks.audit.catalogue import named
from pytest_pgo_eks.audit.facts import Facts, Unread
from pytest_pgo_eks.audit.read_aws import AwsReader
from pytest_pgo_eks.audit.read_kubernetes import read_kubernetes
from pytest_pgo_eks.clusters.base import AwsSide, ClusterHandle
from pytest_pgo_eks.findings import demand
from pytest_pgo_eks.pgo import Operator, PostgresCluster
from pytest_pgo_eks.report.evidence import ScenarioEvidence


def read(
    aws: AwsSide, handle: ClusterHandle, operator: Operator, postgres: PostgresCluster
) -> Facts:
    """Ask AWS and Kubernetes for everything that a check may want; change nothing."""
    reader = AwsReader(aws.clients, aws.cluster)
    known, unread = reader.read()
    manifest = postgres.object()
    seen, hidden = read_kubernetes(postgres.kube, handle, manifest, operator.namespace)
    known |= seen
    try:
        known["buckets"] = reader.buckets(manifest)
    except Unread as reason:
        hidden["buckets"] = str(reason)
    return Facts(
        known,
        datetime.now(UTC).date(),
        profile=aws.profile,
        expected_zones=aws.zones,
        unread=unread | hidden,
    )


def demand_check(evidence: ScenarioEvidence, facts: Facts, title: str) -> None:
    """Demand that a check does not fail; a warning or a deviation is kept and told.

    :raises Violation: it failed.
    :raises Inconclusive: what it asks about could not be read.
    """
    check = named(title)
    finding = check.finding(facts)
    if check.ask(facts).outcome == "not applicable":
        # A scenario about nothing has not passed.
        pytest.skip(finding.sentence)
    evidence.add(finding)
    demand([finding])
