"""A finding: one judged statement, with the numbers and the operations that prove it.

Checkers return findings, steps demand them, reports print them. The word ``expected`` marks what
looks alarming and is not a violation under the declared settings (a long fork across primary and
replica, rows lost within the asynchronous allowance).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_pgo_eks.errors import Inconclusive, Violation

Outcome = Literal["holds", "violated", "expected", "unknown"]
Number = float | int | str | bool | None


@dataclass(frozen=True)
class Finding:
    """One judged statement.

    ``rule`` is a stable identifier (``no-acknowledged-write-lost``). ``numbers`` are the figures of
    the sentence by name; durations end in ``_s`` and are seconds. ``operations`` are the smallest
    proof first, one printable line each. ``evidence`` is a file relative to the report directory.
    """

    rule: str
    outcome: Outcome
    sentence: str
    numbers: Mapping[str, Number] = field(default_factory=dict)
    operations: tuple[str, ...] = ()
    evidence: str | None = None

    def __str__(self) -> str:
        proof = "".join(f"\n    {line}" for line in self.operations[:5])
        more = len(self.operations) - 5
        return f"{self.sentence} [{self.rule}]{proof}" + (
            f"\n    … {more} more" if more > 0 else ""
        )


def demand(findings: Iterable[Finding]) -> None:
    """Raise for the first kind of trouble in ``findings``; say nothing if all of them hold.

    :raises Violation: at least one finding is violated (this outranks unknown ones).
    :raises Inconclusive: none is violated but at least one could not be judged.
    """
    seen = list(findings)
    if not seen:
        raise Inconclusive("nothing was judged: the checker returned no finding at all")
    if broken := [f for f in seen if f.outcome == "violated"]:
        raise Violation("\n".join(map(str, broken)))
    if unknown := [f for f in seen if f.outcome == "unknown"]:
        raise Inconclusive("\n".join(map(str, unknown)))
