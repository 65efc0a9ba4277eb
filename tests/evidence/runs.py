"""Runs as the harness leaves them, made of a recorded history; and documents for figures alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.history.history import History
from pytest_pgo_eks.history.judge import judge, measure
from pytest_pgo_eks.history.recovery import FAULT_BEGINS, in_time
from pytest_pgo_eks.report import document
from pytest_pgo_eks.report.evidence import ScenarioEvidence, ScenarioIdentity, Verdict
from pytest_pgo_eks.report.figures import completed

RECORDED = Path(__file__).parents[1] / "history" / "recorded" / "switchover.jsonl.gz"
PATH = "the primary Service"
BEGAN = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
Json = dict[str, Any]


@cache
def recorded() -> tuple[Finding, ...]:
    """Return what a scenario over the recorded switchover would have found."""
    history = History.load(RECORDED)
    since = int(history.marks(FAULT_BEGINS)[-1]["at"])
    # The machine was busy: much later there were pauses that the scenario did not wait for.
    soon = history.ops[history.ops.done < since + 20_000_000_000]
    told = in_time(replace(history, ops=soon), PATH, since, 45.0)
    assert told.outcome == "holds"
    return (told, *judge(history, "sync"), *measure(history))


def subject(**changes: Any) -> document.Subject:
    plain: Json = {
        "provider": "local",
        "stand_in": True,
        "kubernetes": "v1.34.0+stand-in",
        "pgo": "6.0-stand-in",
        "postgresql": "17.2",
        "patroni": "4.1.5",
    }
    return document.Subject(**{**plain, **changes})


def run_folder(tmp_path: Path, name: str = "20260302T010000Z-local-0a1b") -> Path:
    """Make the folder of a run that passed: one scenario with a history, one without."""
    folder = tmp_path / name
    identity = ScenarioIdentity(
        "features/failover/x.feature::The primary is switched over",
        "Failover",
        "No loss",
        "The primary is switched over",
        ("failover", "level-1"),
        3,
    )
    kept = ScenarioEvidence(identity, folder)
    kept.replication = "sync"
    kept.step_begins("when", "the primary is switched over")
    kept.step_ends("passed")
    kept.step_begins("then", "no acknowledged write is lost")
    kept.step_ends("passed")
    kept.fault("switchover", "pod-0", "another leader", {"prove_s": 1.0})
    history = kept.path("history.jsonl.gz")
    shutil.copy(RECORDED, history)
    kept.attached(history)
    kept.add(*recorded())
    kept.conclude("pass")
    plain = ScenarioIdentity("features/access/y.feature::It asks", "Access", "", "It asks")
    other = ScenarioEvidence(plain, folder)
    other.step_begins("then", "somebody may log in")
    other.step_ends("passed")
    other.add(Finding("may-log-in", "holds", "app logged in"))
    other.conclude("pass")
    document.write(
        document.Run(subject(), BEGAN, "pytest --cluster=local", name=name, took_s=60.0), folder
    )
    (folder / "run.log").write_text("1 s: the cluster is up\n", "utf-8")
    return folder


def edit(file: Path, change: Any) -> None:
    """Let ``change`` alter the JSON in ``file``."""
    found = json.loads(file.read_text("utf-8"))
    change(found)
    file.write_text(json.dumps(found), "utf-8")


def scenario(
    name: str,
    verdict: Verdict = "pass",
    *,
    tags: Sequence[str] = ("failover",),
    level: int = 2,
    feature: str = "Failover",
    requirements: Sequence[str] = (),
    reason: str = "",
    replication: str | None = "sync",
    faults: Sequence[str] = ("pod-deleted",),
    rto: Mapping[str, tuple[float, float]] | None = None,
    lost: int | None = None,
    stale_s: float | None = None,
    took_s: float = 30.0,
    skip: str | None = None,
    deviations: Sequence[str] = (),
) -> Json:
    """Return a scenario of ``verdict.json`` with the figures that matter; ``rto`` by path."""
    findings: list[Json] = [
        {
            "rule": "acknowledged-again-in-time",
            "outcome": "holds",
            "sentence": f"writes of new sessions through {path} were acknowledged again",
            "numbers": {"path": path, "lower_s": lower, "upper_s": upper, "budget_s": 300.0},
            "operations": [],
            "evidence": None,
        }
        for path, (lower, upper) in (rto or {}).items()
    ]
    if lost is not None:
        promised = replication != "async"
        outcome = "holds" if not lost else "violated" if promised else "expected"
        findings.append(
            {
                "rule": "no-acknowledged-write-lost",
                "outcome": outcome,
                "sentence": f"{lost} of 1000 acknowledged writes are gone",
                "numbers": {"acknowledged": 1000, "lost": lost, "unsafe": 0, "indeterminate": 1},
                "operations": [],
                "evidence": None,
            }
        )
    if stale_s is not None:
        findings.append(
            {
                "rule": "replica-staleness",
                "outcome": "expected",
                "sentence": "reads were stale",
                "numbers": {"reads": 9, "stale": 1, "p50_s": 0.0, "p99_s": 0.0, "max_s": stale_s},
                "operations": [],
                "evidence": None,
            }
        )
    findings += [
        {
            "rule": f"deviation-{one}",
            "outcome": "expected",
            "sentence": "did it otherwise",
            "numbers": {},
            "operations": [],
            "evidence": None,
        }
        for one in deviations
    ]
    return {
        "id": f"features/f/{feature.lower()}.feature::{name}",
        "feature": feature,
        "rule": "",
        "name": name,
        "tags": sorted(tags),
        "line": 1,
        "level": level,
        "requirements": list(requirements),
        "verdict": verdict,
        "reason": reason or ("" if verdict == "pass" else f"because of {verdict}"),
        "began": BEGAN.isoformat(),
        "took_s": took_s,
        "steps": [],
        "faults": [
            {"kind": kind, "target": "p", "proof": "gone", "began_s": 1.0, "numbers": {}}
            for kind in faults
        ],
        "findings": findings,
        "attachments": [],
        "replication": replication,
        "skip": {"kind": "missing-capability" if skip else "skipped", "capability": skip}
        if verdict == "skipped"
        else None,
    }


def run_document(
    scenarios: Sequence[Json],
    *,
    provider: str = "eks",
    day: int = 0,
    name: str | None = None,
    deselected: Sequence[str] = (),
    interrupted: bool = False,
    **of_subject: Any,
) -> Json:
    """Return a complete ``verdict.json`` of ``scenarios``, on EKS unless ``provider`` says else."""
    began = BEGAN + timedelta(days=day)
    real = {"provider": provider, "stand_in": provider == "local"}
    if provider != "local":
        real |= {"kubernetes": "v1.34.2-eks-1", "pgo": "6.0.1"}
    run = document.Run(
        subject(**{**real, **of_subject}),
        began,
        f"pytest --cluster={provider}",
        name=name or f"{began:%Y%m%dT%H%M%SZ}-{provider}-0000",
        deselected=tuple({"id": one, "reason": "not chosen"} for one in deselected),
        interrupted=interrupted,
        took_s=sum(one["took_s"] for one in scenarios),
    )
    return completed(document.build(run, scenarios))


def write_run(place: Path, found: Json) -> Path:
    """Write a document as the ``verdict.json`` of a run's folder below ``place``."""
    folder = place / str(found["run"])
    folder.mkdir(parents=True)
    (folder / document.FILE).write_text(json.dumps(found), "utf-8")
    return folder
