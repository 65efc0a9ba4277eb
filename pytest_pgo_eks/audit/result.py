"""One check and what it came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pytest_pgo_eks.audit.facts import Facts, Unread
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.findings import Outcome as FindingOutcome

#: The pattern's ``trust`` line for every address: a deviation of the manifest, not of the cluster.
DECLARED = "D13"

Outcome = Literal["pass", "warn", "fail", "deviation", "not applicable", "unknown"]


@dataclass(frozen=True)
class Result:
    """What a check came to: the outcome, one sentence, and what was seen, one line each.

    ``deviation`` is the identifier (D1 … D16) where the outcome is one, or would be one in a cluster
    that follows the pattern to the letter.
    """

    outcome: Outcome
    sentence: str
    evidence: tuple[str, ...] = ()
    deviation: str | None = None


def passed(sentence: str, *evidence: str) -> Result:
    return Result("pass", sentence, evidence)


def warned(sentence: str, *evidence: str) -> Result:
    return Result("warn", sentence, evidence)


def failed(sentence: str, *evidence: str, asked_for_by: str | None = None) -> Result:
    """Fail; ``asked_for_by`` is the deviation by which the pattern itself asks for exactly this."""
    return Result("fail", sentence, evidence, asked_for_by)


def deviates(identifier: str, sentence: str, *evidence: str) -> Result:
    return Result("deviation", sentence, evidence, identifier)


def not_applicable(sentence: str) -> Result:
    return Result("not applicable", sentence)


@dataclass(frozen=True)
class Check:
    """One question that is asked of every cluster.

    ``identifier`` is A1 … A20 for the audit and a row of the pattern, S1 … S18, otherwise.
    ``clause`` is what the AWS pattern asks for, in our words, with its row; ``source`` is the
    control or documentation page behind the rule.
    """

    identifier: str
    title: str
    clause: str
    look: Callable[[Facts], Result]
    source: str = ""

    def ask(self, facts: Facts) -> Result:
        """Return what the facts say; "unknown" where one of them could not be read.

        What the pattern itself asks for is a deviation in the profile that follows it literally,
        and a failure everywhere else. A PostgresCluster that declares the pattern's own access rule
        deviates wherever it runs: somebody chose that manifest.
        """
        try:
            result = self.look(facts)
        except Unread as reason:
            return Result("unknown", f"it could not be read: {reason}")
        if result.outcome != "fail" or not result.deviation:
            return result
        if facts.profile == "faithful" or result.deviation == DECLARED:
            return replace(result, outcome="deviation")
        return replace(result, deviation=None)

    def finding(self, facts: Facts) -> Finding:
        """Return the same as a finding; a warning and a deviation are told and not demanded."""
        result = self.ask(facts)
        rule = f"eks-{self.identifier}"
        sentence = f"{self.identifier}, {self.title}: {result.sentence}"
        if result.deviation:
            rule = f"deviation-{result.deviation}"
            sentence = f"deviation {result.deviation}: {sentence}"
        elif result.outcome in ("warn", "not applicable"):
            sentence = f"{result.outcome}: {sentence}"
        numbers = {"check": self.identifier, "answer": result.outcome, "clause": self.clause}
        return Finding(rule, _OUTCOMES[result.outcome], sentence, numbers, result.evidence)


_OUTCOMES: dict[Outcome, FindingOutcome] = {
    "pass": "holds",
    "warn": "expected",
    "fail": "violated",
    "deviation": "expected",
    "not applicable": "expected",
    "unknown": "unknown",
}
