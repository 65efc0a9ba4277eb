"""``verdict.json``: the whole run as one document, by a versioned schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_pgo_eks import __version__
from pytest_pgo_eks.report.evidence import Verdict, read_scenarios
from pytest_pgo_eks.report.verdict import disclaimer, run_verdict
from pytest_pgo_eks.secrets import filtered

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


@dataclass(frozen=True)
class Run:
    """Facts of the run that no scenario knows."""

    subject: Subject
    began: datetime
    rerun: str
    commit: str | None = None
    deselected: tuple[str, ...] = ()
    interrupted: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)


def build(run: Run, scenarios: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document for ``verdict.json``."""
    counts = Counter(str(scenario["verdict"]) for scenario in scenarios)
    verdict: Verdict = run_verdict(scenarios)
    if run.interrupted and verdict == "pass":
        verdict = "inconclusive"
    subject = {**vars(run.subject), "capabilities": list(run.subject.capabilities)}
    return {
        "schema": SCHEMA,
        "suite": {"name": "pytest-pgo-eks", "version": __version__, "commit": run.commit},
        "subject": subject,
        "verdict": verdict,
        "disclaimer": disclaimer(stand_in=run.subject.stand_in),
        "began": run.began.isoformat(),
        "took_s": round((datetime.now(UTC) - run.began).total_seconds(), 3),
        "interrupted": run.interrupted,
        "counts": {kind: counts[kind] for kind in ("pass", "violation", "inconclusive", "skipped")},
        "deselected": list(run.deselected),
        "rerun": run.rerun,
        "notes": dict(run.notes),
        "scenarios": list(scenarios),
    }


def write(run: Run, run_dir: Path) -> dict[str, Any]:
    """Read every scenario below ``run_dir``, write ``verdict.json`` beside them, return it."""
    document = build(run, read_scenarios(run_dir))
    text = filtered(json.dumps(document, indent=1, ensure_ascii=False))
    draft = run_dir / f"{FILE}.tmp"
    draft.write_text(text + "\n", "utf-8")
    draft.replace(run_dir / FILE)
    return document
