"""What a gate decided: one sentence per reason, and the exit status that the worst of them gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pytest_pgo_eks import __version__
from pytest_pgo_eks.report.gate.policy import Policy
from pytest_pgo_eks.report.text import line
from pytest_pgo_eks.report.verdict import (
    EXIT_GATE,
    EXIT_INCONCLUSIVE,
    EXIT_VIOLATION,
    disclaimer,
)

SCHEMA = "pytest-pgo-eks/gate/1"
FILE = "gate.json"
_LONGEST = 500

Kind = Literal["violation", "inconclusive", "unmet"]
# A broken promise outranks everything; where infrastructure got in the way, the rest may follow from it.
_STATUS: Mapping[Kind, int] = {
    "violation": EXIT_VIOLATION,
    "inconclusive": EXIT_INCONCLUSIVE,
    "unmet": EXIT_GATE,
}


@dataclass(frozen=True)
class Reason:
    """Why the gate is not met. ``code`` is stable, ``sentence`` is for people."""

    code: str
    kind: Kind
    sentence: str
    scenario: str | None = None


@dataclass
class Ruling:
    """What the rules of a policy came to: reasons against, and what was let through knowingly."""

    reasons: list[Reason] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    required: int = 0

    def against(self, code: str, sentence: str, scenario: str | None = None) -> None:
        self.reasons.append(Reason(code, "unmet", sentence, scenario))

    def decide(self, decision: str, code: str, sentence: str, scenario: str | None = None) -> None:
        """Add a reason where the policy says "fail", else note that it was let through."""
        if decision == "fail":
            self.against(code, sentence, scenario)
        else:
            self.allowed.append(sentence)


def status(reasons: Iterable[Reason]) -> int:
    """Return the exit status: 0 met, 1 violation, 6 inconclusive, 7 anything else."""
    kinds = {reason.kind for reason in reasons}
    return next((_STATUS[kind] for kind in _STATUS if kind in kinds), 0)


def as_json(policy: Policy, runs: Sequence[Mapping[str, Any]], ruling: Ruling) -> dict[str, Any]:
    """Return ``gate.json``."""
    code = status(ruling.reasons)
    stand_in = any(run["subject"]["stand_in"] for run in runs)
    return {
        "schema": SCHEMA,
        "suite": {"name": "pytest-pgo-eks", "version": __version__},
        "policy": {
            "name": policy.name,
            "what": policy.value["what"],
            "source": policy.source,
            "sha256": policy.sha256,
        },
        "met": code == 0,
        "exit_status": code,
        "reasons": [
            {**asdict(reason), "sentence": line(reason.sentence, _LONGEST)}
            for reason in ruling.reasons
        ],
        "allowed": [line(one, _LONGEST) for one in dict.fromkeys(ruling.allowed)],
        "required": ruling.required,
        "runs": [
            {
                "run": run["run"],
                "began": run["began"],
                "verdict": run["verdict"],
                **{
                    name: run["subject"][name]
                    for name in ("provider", "kubernetes", "pgo", "postgresql", "patroni")
                },
            }
            for run in runs
        ],
        "disclaimer": disclaimer(stand_in=stand_in),
    }


def lines(decision: Mapping[str, Any], most: int = 50) -> list[str]:
    """Return the decision for a terminal: the answer, a sentence per reason, what it is not about."""
    name, reasons = decision["policy"]["name"], decision["reasons"]
    runs = len(decision["runs"])
    of = f"{decision['required']} required scenarios, {runs} run{'' if runs == 1 else 's'}"
    if decision["met"]:
        told = [f"GATE MET: {name} ({of})"]
    else:
        count = f"{len(reasons)} reason{'' if len(reasons) == 1 else 's'}"
        told = [f"GATE NOT MET: {name}, {count} ({of})"]
    told += [f"  {reason['sentence']}" for reason in reasons[:most]]
    if len(reasons) > most:
        told.append(f"  … and {len(reasons) - most} more, all in {FILE}")
    told += [f"  let through by the policy: {one}" for one in decision["allowed"][:most]]
    if len(decision["allowed"]) > most:
        told.append(f"  let through by the policy: … {len(decision['allowed']) - most} more")
    if decision["disclaimer"]:
        told.append(decision["disclaimer"])
    return told
