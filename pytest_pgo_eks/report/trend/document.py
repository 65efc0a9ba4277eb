"""``trend.json``: every series with its points, what changed, and who flickers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from pytest_pgo_eks import __version__
from pytest_pgo_eks.report.trend import flicker
from pytest_pgo_eks.report.trend.changes import CONFIDENCE, LEAST, Change, changes
from pytest_pgo_eks.report.trend.series import Record, Run, Series, lane, records_of, series_of
from pytest_pgo_eks.report.verdict import disclaimer
from pytest_pgo_eks.secrets import masked

SCHEMA = "pytest-pgo-eks/trend/1"
FILE = "trend.json"
METHOD = (
    "Pettitt's rank test for one change of level, p-value by permutation, corrected for all series "
    "(Holm); at least {least} runs; told from a confidence of {confidence:.0%} on"
)


@dataclass(frozen=True)
class Trend:
    """Runs in the order of time, and what they come to."""

    runs: Sequence[Run]
    series: list[Series]
    changes: Mapping[str, Change]
    records: list[Record]
    unread: Sequence[str]
    confidence: float

    @property
    def method(self) -> str:
        return METHOD.format(least=LEAST, confidence=self.confidence)

    @property
    def disclaimer(self) -> str | None:
        return disclaimer(stand_in=any(run["subject"]["stand_in"] for run in self.runs))


def trend(runs: Sequence[Run], unread: Sequence[str] = (), confidence: float = CONFIDENCE) -> Trend:
    """Return the trend of ``runs``, which are in the order of time."""
    series = series_of(runs)
    return Trend(runs, series, changes(series, confidence), records_of(runs), unread, confidence)


def as_json(found: Trend) -> dict[str, Any]:
    """Return ``trend.json``. Figures in seconds or writes, as their measure's name says."""
    document: dict[str, Any] = masked(
        {
            "schema": SCHEMA,
            "suite": {"name": "pytest-pgo-eks", "version": __version__},
            "method": found.method,
            "disclaimer": found.disclaimer,
            "unread": list(found.unread),
            "runs": [_run(run) for run in found.runs],
            "series": [_series(one, found.changes.get(one.key)) for one in found.series],
            "scenarios": [_record(one) for one in found.records],
        }
    )
    return document


def _run(run: Run) -> dict[str, Any]:
    subject = run["subject"]
    told = ("kubernetes", "pgo", "postgresql", "patroni", "manifest_sha256")
    return {
        "run": run["run"],
        "began": run["began"],
        "took_s": run["took_s"],
        "verdict": run["verdict"],
        "counts": run["counts"],
        "lane": lane(run),
        **{name: subject[name] for name in told},
    }


def _series(one: Series, change: Change | None) -> dict[str, Any]:
    return {
        "lane": one.lane,
        "feature": one.feature,
        "scenario": one.scenario,
        "measure": one.measure,
        "name": one.name,
        "median": round(median(point.middle for point in one.points), 4),
        "points": [
            {"run": p.run, "lower": p.lower, "upper": p.upper, "verdict": p.verdict}
            for p in one.points
        ],
        "change": {**asdict(change), "worse": change.worse} if change else None,
    }


def _record(one: Record) -> dict[str, Any]:
    return {
        "lane": one.lane,
        "feature": one.feature,
        "scenario": one.scenario,
        "verdicts": [{"run": run, "verdict": verdict} for run, verdict, _ in one.verdicts],
        "product_flicker": flicker.product(one).as_json(),
        "infrastructure_flicker": flicker.infrastructure(one).as_json(),
        "broken": flicker.broken(one),
    }
