from __future__ import annotations

import re

import pytest

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.scenario.budget import PATTERN, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20 seconds", 20.0),
        ("1 second", 1.0),
        ("2 minutes", 120.0),
        ("a lease", 30.0),
        ("a lease and 15 seconds", 45.0),
        ("two leases and a sync period", 70.0),
        ("1.5 minutes", 90.0),
    ],
)
def test_a_budget_is_read_as_it_is_said(text: str, expected: float) -> None:
    assert seconds(text, lease_s=30, sync_period_s=10) == expected
    assert re.fullmatch(PATTERN, text)


@pytest.mark.parametrize(
    "text", ["soon", "20", "20 parsecs", "some seconds", "5 seconds or so", ""]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="is no time"):
        seconds(text, lease_s=30, sync_period_s=10)
