"""The main job, as a user starts it: features in, cluster up, verdict out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FAILOVER = (
    "features/failover/synchronous.feature::"
    "With synchronous replication, <fault>[the primary pod is deleted-a lease and 10 seconds]"
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(280)]


def judge(reports: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the suite as a user would; return exit status, verdict and what was printed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--cluster=local"]
    done = subprocess.run(
        [*command, f"--pgo-report-dir={reports}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    found = reports / "latest" / "verdict.json"
    assert found.is_file(), done.stdout + done.stderr
    return done.returncode, json.loads(found.read_text()), done.stdout


def test_a_failover_ends_in_a_verdict_with_evidence(tmp_path: Path) -> None:
    """From nothing to three instances, writes, a primary deleted, and a verdict."""
    status, verdict, printed = judge(
        tmp_path,
        "features/deployment/application.feature::"
        "An application connects with nothing but the generated Secret",
        FAILOVER,
    )
    assert status == 0, printed
    assert verdict["verdict"] == "pass"
    assert verdict["subject"]["stand_in"] is True
    assert "not evidence about PGO" in verdict["disclaimer"]
    failover = next(s for s in verdict["scenarios"] if s["id"] == FAILOVER)
    (fault,) = failover["faults"]
    assert fault["kind"] == "pod-deleted"
    assert "is gone" in fault["proof"]
    numbers = {f["rule"]: f["numbers"] for f in failover["findings"]}
    assert numbers["no-acknowledged-write-lost"]["acknowledged"] > 100
    assert numbers["no-acknowledged-write-lost"]["lost"] == 0
    assert numbers["timeline-as-recorded"]["promotions_recorded"] == 1
    run = tmp_path / "latest"
    kinds = {Path(name).name for name in failover["attachments"]}
    assert {"history.jsonl.gz", "timeline.svg", "timeline.json"} <= kinds
    judged = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest_pgo_eks.history",
            str(run / next(a for a in failover["attachments"] if a.endswith(".gz"))),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


LIE = """\
@replication
Feature: A promise that this cluster does not keep
  Scenario: One replica is said to be synchronous
    Given a PostgresCluster with 3 instances
    Then exactly one replica is synchronous within 3 seconds

  Scenario: Every server is said to be huge
    Given a PostgresCluster with 3 instances
    Then on every server max_connections is at least 5000
"""


def test_a_cluster_that_breaks_promises_turns_red_and_says_where(tmp_path: Path) -> None:
    """Replication is asynchronous here, and the feature says that it is not."""
    manifest = yaml.safe_load((ROOT / "fixtures/postgres/cluster.yaml").read_text())
    manifest["spec"]["patroni"]["dynamicConfiguration"]["synchronous_mode"] = False
    versions = [int(path.name) for path in Path("/usr/lib/postgresql").iterdir()]
    manifest["spec"]["postgresVersion"] = max(versions)
    (tmp_path / "cluster.yaml").write_text(json.dumps(manifest))
    (tmp_path / "lie.feature").write_text(LIE)
    status, verdict, printed = judge(
        tmp_path / "reports",
        f"--pgo-manifest={tmp_path / 'cluster.yaml'}",
        str(tmp_path / "lie.feature"),
    )
    assert status == 1, printed
    assert verdict["verdict"] == "violation"
    assert verdict["counts"]["violation"] == 2
    assert printed.count("\nviolation: ") == 2
    for scenario in verdict["scenarios"]:
        assert scenario["steps"][-1]["outcome"] == "failed"
        readme = next(a for a in scenario["attachments"] if a.endswith("README.txt"))
        assert "Look at first" in (tmp_path / "reports/latest" / readme).read_text()
