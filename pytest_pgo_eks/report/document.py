"""``verdict.json``: the whole run as one document, by a versioned schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_pgo_eks import __version__
from pytest_pgo_eks.report.evidence import Verdict, read_scenarios
from pytest_pgo_eks.report.figures import (
    completed_scenario,
    covered,
    deviations,
    left_out,
)
from pytest_pgo_eks.report.verdict import disclaimer, run_verdict
from pytest_pgo_eks.secrets import masked

SCHEMA = "pytest-pgo-eks/verdict/1"
FILE = "verdict.json"


@dataclass(frozen=True)
class Subject:
    """What was judged. A version is None where it was never learnt."""

    provider: str
    stand_in: bool
    kubernetes: str | None = None
    pgo: str | None = None
    postgresql: str | None = None
    patroni: str | None = None
    namespace: str | None = None
    cluster: str | None = None
    manifest_sha256: str | None = None
    capabilities: tuple[str, ...] = ()
    region: str | None = None
    images: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Run:
    """Facts of the run that no scenario knows.

    ``deselected`` are identities of scenarios (at least their ``id``) with a ``reason``.
    ``provider_record`` is what the provider tells after the cluster is gone: region, cost,
    leftovers, deviations, as JSON. ``took_s`` comes from a monotonic clock where somebody had one.
    """

    subject: Subject
    began: datetime
    rerun: str
    commit: str | None = None
    deselected: tuple[Mapping[str, Any], ...] = ()
    interrupted: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    executor: Mapping[str, Any] | None = None
    provider_record: Mapping[str, Any] = field(default_factory=dict)
    took_s: float | None = None


def build(run: Run, scenarios: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document for ``verdict.json``."""
    seeded = run.rerun if run.seed is None else f"{run.rerun} --pgo-seed={run.seed}"
    full = [completed_scenario(scenario, seeded) for scenario in scenarios]
    counts = Counter(str(scenario["verdict"]) for scenario in full)
    verdict: Verdict = run_verdict(full)
    if run.interrupted and verdict == "pass":
        verdict = "inconclusive"
    record = run.provider_record
    subject = {
        **vars(run.subject),
        "capabilities": list(run.subject.capabilities),
        "images": [dict(image) for image in run.subject.images],
        "region": run.subject.region or record.get("region"),
    }
    ended = datetime.now(UTC)
    # The wall clock may have been set back meanwhile; nothing took less than no time.
    took_s = max((ended - run.began).total_seconds(), 0) if run.took_s is None else run.took_s
    return {
        "schema": SCHEMA,
        "suite": {"name": "pytest-pgo-eks", "version": __version__, "commit": run.commit},
        "run": run.name,
        "subject": subject,
        "verdict": verdict,
        "disclaimer": disclaimer(stand_in=run.subject.stand_in),
        "began": run.began.isoformat(),
        "ended": ended.isoformat(),
        "took_s": round(took_s, 3),
        "interrupted": run.interrupted,
        "counts": {kind: counts[kind] for kind in ("pass", "violation", "inconclusive", "skipped")},
        "gate": None,
        "deselected": [str(one["id"]) for one in run.deselected],
        "left_out": left_out(full, run.deselected),
        "requirements": covered(full),
        "deviations": deviations(full, record.get("deviations", ())),
        "cost": record.get("cost"),
        "leftovers": list(record.get("leftovers", ())),
        "seed": run.seed,
        "rerun": run.rerun,
        "settings": dict(run.settings),
        "environment": dict(run.environment),
        "executor": run.executor,
        "notes": dict(run.notes),
        "scenarios": full,
    }


def write(
    run: Run, run_dir: Path, gate: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Read every scenario below ``run_dir``, write ``verdict.json`` beside them, return it.

    ``gate`` decides about the document before it is written; its decision becomes part of it.
    """
    document: dict[str, Any] = masked(build(run, read_scenarios(run_dir)))
    if gate is not None:
        document["gate"] = dict(gate(document))
    draft = run_dir / f"{FILE}.tmp"
    draft.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    draft.replace(run_dir / FILE)
    return document
