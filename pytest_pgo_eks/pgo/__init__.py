"""The operator and the PostgresCluster: verify, render, apply, wait with reasons, observe, judge."""

from __future__ import annotations

from pytest_pgo_eks.pgo.cluster import PostgresCluster, available_postgres
from pytest_pgo_eks.pgo.health import Identity, findings, identity, prove_healthy
from pytest_pgo_eks.pgo.manifest import load, render
from pytest_pgo_eks.pgo.observation import Instance, LeaderRecord, Observation, Roles, SyncRecord
from pytest_pgo_eks.pgo.operator import Operator, verify
from pytest_pgo_eks.pgo.patroni import Member, Patroni
from pytest_pgo_eks.pgo.readiness import missing
from pytest_pgo_eks.pgo.versions import Release, release_of

__all__ = [
    "Identity",
    "Instance",
    "LeaderRecord",
    "Member",
    "Observation",
    "Operator",
    "Patroni",
    "PostgresCluster",
    "Release",
    "Roles",
    "SyncRecord",
    "available_postgres",
    "findings",
    "identity",
    "load",
    "missing",
    "prove_healthy",
    "release_of",
    "render",
    "verify",
]
