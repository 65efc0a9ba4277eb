"""One whole life on a real account: only where somebody asks for it and says what it may cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_pgo_eks import shipped

_BUDGET = os.environ.get("PGO_LIVE_AWS_USD", "")

pytestmark = [
    pytest.mark.live_aws,
    pytest.mark.timeout(4 * 3600),
    pytest.mark.skipif(
        not _BUDGET, reason="costs money: say how much it may be with PGO_LIVE_AWS_USD"
    ),
]


def pytest_program(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--cluster=eks", f"--pgo-max-cost={_BUDGET}"]
    return subprocess.run(
        [*command, "--rootdir", str(place), "-c", os.devnull, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_plan_is_within_the_budget(tmp_path: Path) -> None:
    done = pytest_program(tmp_path, "--pgo-plan")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was created" in done.stdout


def test_the_pattern_s_rows_hold_and_nothing_is_left(tmp_path: Path) -> None:
    rows = shipped.features() / "eks" / "pattern.feature"
    done = pytest_program(tmp_path, "--pgo-eks-hours=3", str(rows))
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = [sys.executable, "-m", "pytest_pgo_eks.clusters.eks", "sweep", "--all"]
    left = subprocess.run(sweep, capture_output=True, text=True, check=True).stdout
    assert "no run in" in left, left
