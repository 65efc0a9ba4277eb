"""Who flickers, and whose fault that is: the product's, or the infrastructure's.

A scenario flickers by the product where it passed *and* was violated on the same subject (versions
and manifest): the same thing, asked twice, answered differently. Where it is always violated it is
broken, which is something else. What infrastructure got in the way of is inconclusive, and counted apart.
Rates carry Wilson's interval (:mod:`pytest_pgo_eks.report.ranks`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pgo_eks.report.ranks import wilson
from pytest_pgo_eks.report.trend.series import Record


@dataclass(frozen=True)
class Rate:
    """``hits`` of ``of``, and between what the true rate lies with a confidence of 95 %."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.hits, self.of)

    def as_json(self) -> Mapping[str, float]:
        lower, upper = self.interval
        return {
            "hits": self.hits,
            "of": self.of,
            "lower": round(lower, 4),
            "upper": round(upper, 4),
        }


def product(record: Record) -> Rate:
    """Return how often a scenario was violated on subjects on which it also passed."""
    hits = of = 0
    for counts in _by_subject(record).values():
        if counts["pass"] and counts["violation"]:
            hits += counts["violation"]
            of += counts["pass"] + counts["violation"]
    return Rate(hits, of or sum(one != "skipped" for _, one, _ in record.verdicts))


def infrastructure(record: Record) -> Rate:
    """Return how often a scenario that was begun came to no verdict."""
    counts = Counter(verdict for _, verdict, _ in record.verdicts)
    return Rate(counts["inconclusive"], counts.total() - counts["skipped"])


def broken(record: Record) -> bool:
    """Whether the newest subject only ever violated the scenario."""
    judged = [(subject, one) for _, one, subject in record.verdicts if one in ("pass", "violation")]
    newest = [one for subject, one in judged if subject == judged[-1][0]]
    return bool(newest) and set(newest) == {"violation"}


def _by_subject(record: Record) -> dict[tuple[str | None, ...], Counter[str]]:
    found: dict[tuple[str | None, ...], Counter[str]] = {}
    for _, verdict, subject in record.verdicts:
        found.setdefault(subject, Counter())[verdict] += 1
    return found
