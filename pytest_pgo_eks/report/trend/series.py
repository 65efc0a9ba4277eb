"""Series out of runs: one figure of one scenario on one path, in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_pgo_eks.report.measures import measured

Run = Mapping[str, Any]
# What makes two runs judge the same thing.
SUBJECT = ("kubernetes", "pgo", "postgresql", "patroni", "manifest_sha256")


@dataclass(frozen=True)
class Point:
    """One run's figure: ``lower`` ≤ truth ≤ ``upper`` (None: it never came to an end)."""

    run: str
    began: str
    lower: float
    upper: float | None
    verdict: str
    subject: tuple[str | None, ...]

    @property
    def middle(self) -> float:
        return self.lower if self.upper is None else (self.lower + self.upper) / 2


@dataclass
class Series:
    """``lane`` is where it was measured, ``name`` what, on which path."""

    lane: str
    feature: str
    scenario: str
    measure: str
    name: str
    points: list[Point] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.lane}\n{self.feature}\n{self.scenario}\n{self.name}"


@dataclass
class Record:
    """What one scenario came to in every run that knew it: (run, verdict, subject)."""

    lane: str
    feature: str
    scenario: str
    verdicts: list[tuple[str, str, tuple[str | None, ...]]] = field(default_factory=list)


def lane(run: Run) -> str:
    """Return where a run took place, as far as its figures compare with others'."""
    subject = run["subject"]
    return f"{subject['provider']}{' (stand-in)' if subject['stand_in'] else ''}"


def subject_of(run: Run) -> tuple[str | None, ...]:
    """Return what a run judged."""
    return tuple(run["subject"][name] for name in SUBJECT)


def series_of(runs: Sequence[Run]) -> list[Series]:
    """Return every series of ``runs``, which are in the order of time."""
    found: dict[tuple[str, ...], Series] = {}
    for run in runs:
        where, subject = lane(run), subject_of(run)
        for scenario in run["scenarios"]:
            for one in measured(scenario):
                key = (where, scenario["feature"], scenario["name"], one.measure, one.name)
                series = found.setdefault(key, Series(*key))
                series.points.append(
                    Point(
                        run["run"], run["began"], one.lower, one.upper, scenario["verdict"], subject
                    )
                )
    return list(found.values())


def records_of(runs: Iterable[Run]) -> list[Record]:
    """Return what every scenario came to, in the order of time."""
    found: dict[tuple[str, str, str], Record] = {}
    for run in runs:
        where, subject = lane(run), subject_of(run)
        for scenario in run["scenarios"]:
            key = (where, scenario["feature"], scenario["name"])
            record = found.setdefault(key, Record(*key))
            record.verdicts.append((run["run"], scenario["verdict"], subject))
    return list(found.values())
