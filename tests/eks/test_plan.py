"""The plan, as a user reads it; whoever changes it changes the files under golden/."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from eks.lives import ADDRESS, fake_aws, remains, settings
from pytest_pgo_eks.clusters.eks.provider import EksProvider
from pytest_pgo_eks.clusters.eks.sweeping import sweep
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.progress import silent

GOLDEN = Path(__file__).with_name("golden")


@pytest.mark.parametrize("profile", ["lean", "faithful"])
def test_the_plan_of_a_profile(profile: str, tmp_path: Path) -> None:
    fake = fake_aws()
    provider = EksProvider(lambda _region: fake.clients, fake.world.clock, lambda: ADDRESS)
    given = settings(profile=profile, max_cost_usd=50.0, run="night", region="us-east-1")
    found = provider.plan(replace(given, state_dir=tmp_path))
    assert found + "\n" == (GOLDEN / f"plan-{profile}.txt").read_text("utf-8")
    assert remains(fake.world) == []
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_is_cut_off_is_swept(tmp_path: Path) -> None:
    fake = fake_aws()
    provider = EksProvider(lambda _region: fake.clients, fake.world.clock, lambda: ADDRESS)
    fake.fail("cloudformation", "DeleteChangeSet", "ExpiredToken", "expired", times=9)
    fake.fail("cloudformation", "DeleteStack", "ExpiredToken", "expired", times=1)
    with pytest.raises(Exception, match="ExpiredToken"):
        provider.plan(replace(settings(run="night", region="us-east-1"), state_dir=tmp_path))
    assert remains(fake.world)
    fake._failures.clear()
    fake.world.clock.pause(7 * 3600)
    from pytest_pgo_eks.clusters.eks.calls import Aws

    sweep(Aws(fake.clients, "us-east-1", fake.world.clock), silent(), really=True)
    assert remains(fake.world) == []


def test_a_plan_for_what_costs_nothing_is_refused() -> None:
    from pytest_pgo_eks.clusters.known import plan
    from pytest_pgo_eks.settings import Settings

    with pytest.raises(UsageProblem, match="costs nothing to plan for"):
        plan(Settings("local"), [])


CONFTEST = """
import sys

sys.path.insert(0, {tests!r})

from fakes.aws import FakeAws
from pytest_pgo_eks.clusters.eks.provider import EksProvider

FAKE = FakeAws()


def pytest_pgo_providers():
    return [EksProvider(lambda _region: FAKE.clients, FAKE.world.clock, lambda: "203.0.113.7")]
"""


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (place / "conftest.py").write_text(CONFTEST.format(tests=str(GOLDEN.parents[1])), "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "--cluster=eks"]
    return subprocess.run(
        [
            *command,
            "--pgo-eks-region=us-east-1",
            "--rootdir",
            str(place),
            "-c",
            os.devnull,
            *arguments,
            str(place),
        ],
        cwd=place,
        env={**os.environ, "XDG_STATE_HOME": str(place / "state")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_the_plan_and_begins_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--pgo-plan", "--pgo-eks-run=night")
    assert done.returncode == 0, done.stderr
    assert "plan of pgoeks-night in us-east-1" in done.stdout
    assert "collected" not in done.stdout
    assert not (tmp_path / "reports").exists()
    assert not (tmp_path / "state").exists()


def test_what_cannot_work_ends_the_command_with_a_line(tmp_path: Path) -> None:
    done = run(tmp_path, "--pgo-plan", "--pgo-eks-profile=faithful")
    assert done.returncode == 4
    assert "--pgo-max-cost: the profile faithful is estimated at 42.29 USD" in done.stderr
    assert "Traceback" not in done.stderr
