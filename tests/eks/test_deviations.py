"""The sixteen deviations are recorded, and an adopted cluster is not told how it was made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest_pgo_eks.audit
from pytest_pgo_eks.clusters.eks.deviations import DEVIATIONS, deviations
from pytest_pgo_eks.clusters.record import ProviderRecord


def test_there_are_sixteen_in_order() -> None:
    assert [one.id for one in DEVIATIONS] == [f"D{number}" for number in range(1, 17)]
    assert all(one.text and one.did and one.why for one in DEVIATIONS)
    assert deviations("lean") == deviations("faithful") == DEVIATIONS


def test_an_adopted_cluster_deviates_in_what_is_pgos() -> None:
    assert [one.id for one in deviations("adopted")] == ["D9", "D10", "D11", "D12", "D13"]


def test_the_audit_cites_none_that_does_not_exist() -> None:
    folder = Path(pytest_pgo_eks.audit.__file__).parent
    cited = {
        name
        for path in folder.glob("*.py")
        for name in re.findall(r"""["'](D\d+)["']""", path.read_text("utf-8"))
    }
    assert cited
    assert cited <= {one.id for one in DEVIATIONS}


def test_they_survive_the_verdict() -> None:
    record = ProviderRecord(region="eu-central-1", deviations=DEVIATIONS)
    assert ProviderRecord.from_json(record.as_json()) == record
