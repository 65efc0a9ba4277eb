"""What one scenario leaves behind: its steps with times, faults with proof, findings, files.

A worker writes one folder per scenario into the run's directory while the scenario runs; the
controller reads them all at the end. So a worker that dies leaves what it had, and a scenario
without a conclusion is ``inconclusive``, never forgotten.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.secrets import filtered, masked

Verdict = Literal["pass", "violation", "inconclusive", "skipped"]
FILE = "scenario.json"
_OUTAGE = ("path", "session", "reads", "lower_s", "upper_s", "from_s", "to_s", "over", "failures")
# On a busy machine there are hundreds of a tenth of a second; timeline.json has them all.
_OUTAGES = 20


@dataclass(frozen=True)
class ScenarioIdentity:
    """Which scenario it is. ``id`` is the pytest node id: unique, and what a rerun takes.

    ``requirements`` are ids of :mod:`pytest_pgo_eks.pattern`.
    """

    id: str
    feature: str
    rule: str
    name: str
    tags: tuple[str, ...] = ()
    line: int = 0
    level: int = 2
    requirements: tuple[str, ...] = ()


@dataclass
class StepRecord:
    """One step; ``began_s`` counts from the scenario's begin. ``kind`` is given, when or then."""

    kind: str
    text: str
    began_s: float
    took_s: float = 0.0
    outcome: str = "running"


@dataclass(frozen=True)
class FaultRecord:
    """A fault that was injected, with the effect that proves it happened."""

    kind: str
    target: str
    proof: str
    began_s: float
    numbers: Mapping[str, Number] = field(default_factory=dict)


class ScenarioEvidence:
    """Collects one scenario's evidence under ``folder``, which it creates when first needed."""

    def __init__(self, identity: ScenarioIdentity, run_dir: Path) -> None:
        self.identity = identity
        self.folder = run_dir / "scenarios" / folder_name(identity.id)
        self.steps: list[StepRecord] = []
        self.faults: list[FaultRecord] = []
        self.findings: list[Finding] = []
        self.attachments: list[str] = []
        self.verdict: Verdict | None = None
        self.reason = ""
        self.replication: str | None = None
        self.seed: int | None = None
        # The run was interrupted, and the cluster goes away with everything that was changed in it.
        self.abandoned = False
        self.outages: list[dict[str, Any]] = []
        self._run_dir = run_dir
        self._began = time.monotonic()
        self._began_at = datetime.now(UTC)

    def elapsed_s(self) -> float:
        """Seconds since the scenario began."""
        return time.monotonic() - self._began

    def add(self, *findings: Finding) -> None:
        """Keep findings; whether they break the scenario is decided by who demands them."""
        self.findings.extend(findings)

    def fault(
        self,
        kind: str,
        target: str,
        proof: str,
        numbers: Mapping[str, Number] | None = None,
        *,
        began_s: float | None = None,
    ) -> None:
        """Record a fault with the effect that proves it."""
        began = self.elapsed_s() if began_s is None else began_s
        self.faults.append(FaultRecord(kind, target, proof, began, dict(numbers or {})))

    def measured(self, outages: Iterable[Mapping[str, Any]]) -> None:
        """Keep the longest of the outages that the clients saw, in the form of ``timeline.json``."""
        known = [{name: outage[name] for name in _OUTAGE} for outage in outages]
        longest = sorted(known, key=lambda outage: -outage["upper_s"])
        self.outages = longest[:_OUTAGES]

    def attach(self, name: str, data: str | bytes) -> str:
        """Write a file into the scenario's folder; return its path relative to the run's directory.

        Text goes through the secret filter; bytes are written as they are.
        """
        path = self.path(name)
        if isinstance(data, str):
            path.write_text(filtered(data), "utf-8")
        else:
            path.write_bytes(data)
        return self.attached(path)

    def path(self, name: str) -> Path:
        """Return where a file called ``name`` belongs, its folder made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def attached(self, path: Path) -> str:
        """Record a file that somebody wrote below :attr:`folder`; return its relative path."""
        relative = path.relative_to(self._run_dir).as_posix()
        if relative not in self.attachments:
            self.attachments.append(relative)
        return relative

    def step_begins(self, kind: str, text: str) -> None:
        self.steps.append(StepRecord(kind, text, self.elapsed_s()))

    def step_ends(self, outcome: str) -> None:
        """Close the running step; ``outcome`` is passed, failed or skipped."""
        if self.steps and self.steps[-1].outcome == "running":
            step = self.steps[-1]
            step.outcome = outcome
            step.took_s = self.elapsed_s() - step.began_s

    def conclude(self, verdict: Verdict, reason: str = "") -> None:
        """Set the verdict. A later, worse one wins; ``pass`` never replaces anything.

        Teardown may still find the cluster broken after every step passed, so this is called more
        than once.
        """
        rank: dict[Verdict | None, int] = {
            None: 0,
            "skipped": 1,
            "pass": 2,
            "inconclusive": 3,
            "violation": 4,
        }
        if rank[verdict] > rank[self.verdict]:
            self.verdict, self.reason = verdict, filtered(reason)
        self.write()

    def write(self) -> None:
        """Write ``scenario.json`` so that it is either the old or the new one, never half."""
        path = self.path(FILE)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(masked(self.as_json()), indent=1), "utf-8")
        draft.replace(path)

    def as_json(self) -> dict[str, Any]:
        """Return the scenario as ``verdict.json`` holds it."""
        verdict = self.verdict or "inconclusive"
        reason = self.reason or ("" if self.verdict else "the scenario did not come to its end")
        return {
            **asdict(self.identity),
            "verdict": verdict,
            "reason": reason,
            "began": self._began_at.isoformat(),
            "took_s": round(self.elapsed_s(), 3),
            "steps": [asdict(step) for step in self.steps],
            "faults": [asdict(fault) for fault in self.faults],
            "findings": [asdict(finding) for finding in self.findings],
            "attachments": list(self.attachments),
            "folder": self.folder.relative_to(self._run_dir).as_posix(),
            "replication": self.replication,
            "seed": self.seed,
            "outages": self.outages,
        }


def folder_name(node_id: str) -> str:
    """Return a folder name that a person recognises, unique for the node id."""
    path, _, name = node_id.partition("::")
    # Of a test outside the root directory pytest's id may hold no path.
    stem = "-".join(Path(path).with_suffix("").parts[-2:]) if path else ""
    plain = re.sub(r"[^a-z0-9]+", "-", f"{stem} {name}".lower()).strip("-")
    return f"{plain[:80].rstrip('-')}-{_checksum(node_id)}"


def _checksum(text: str) -> str:
    import zlib

    return f"{zlib.crc32(text.encode()):08x}"


def read_scenarios(run_dir: Path) -> list[dict[str, Any]]:
    """Read what all workers wrote, in the order in which the scenarios began."""
    found = [_read(path) for path in sorted(run_dir.glob(f"scenarios/*/{FILE}"))]
    return sorted(found, key=lambda scenario: str(scenario["began"]))


def _read(path: Path) -> dict[str, Any]:
    """Read one scenario; one that cannot be read (a full disk) is inconclusive, never forgotten."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        trouble = "" if "verdict" in found else "it holds no verdict"
    except (OSError, ValueError, TypeError) as error:
        trouble = f"{type(error).__name__}: {error}"
    if not trouble:
        return found
    folder = path.parent
    name = folder.name
    return {
        **asdict(ScenarioIdentity(name, "Unreadable evidence", "", name)),
        "tags": [],
        "requirements": [],
        "verdict": "inconclusive",
        "reason": f"{FILE} cannot be read: {trouble}",
        "began": datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(),
        "took_s": 0.0,
        "steps": [],
        "faults": [],
        "findings": [],
        "attachments": [],
        "folder": f"scenarios/{name}",
    }
