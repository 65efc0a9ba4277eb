"""Whether figures are worse than those of earlier runs: distributions against distributions.

A series is one figure of one scenario on one path (:mod:`pytest_pgo_eks.report.measures`). It has
regressed if both hold:

* a one-sided Mann–Whitney test finds the given runs larger than the earlier ones
  (:mod:`pytest_pgo_eks.report.ranks`), with Holm's correction for all series where the policy asks
  for it. What was measured as an interval enters with its lower end, and the earlier runs with their
  upper ends, so that only intervals that do not overlap count as different;
* the medians differ by more than the policy calls worth mentioning.

With few runs no difference, however large, can be significant: such a series is "too few", which the
policy decides, and never silently fine. One run against m earlier ones gives 1/(m + 1) at best, three
against m give 6/((m + 1)(m + 2)(m + 3)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pytest_pgo_eks.report.gate.decision import Ruling
from pytest_pgo_eks.report.measures import Measured, measured
from pytest_pgo_eks.report.ranks import chance_of_larger, holm, least_chance

NEWEST = 60
Run = Mapping[str, Any]
Series = dict[tuple[str, str, str], list[Measured]]


def check_regression(
    value: Mapping[str, Any], runs: Sequence[Run], earlier: Sequence[Run] | None, ruling: Ruling
) -> None:
    """Compare ``runs`` with ``earlier`` ones of the same provider; None: there is no baseline."""
    rule = value.get("regression")
    if rule is None:
        return
    if earlier is None:
        ruling.decide(
            rule["too_few"], "no-baseline", "there is no baseline to compare with: give --baseline"
        )
        return
    now = _series(runs, rule["measures"])
    before = _series(
        _comparable(runs, earlier)[-rule.get("newest_runs", NEWEST) :], rule["measures"]
    )
    compared = _able(rule, now, before, ruling)
    chances = [
        chance_of_larger([one.lower for one in now[key]], [_upper(one) for one in before[key]])
        for key in compared
    ]
    adjusted = holm(chances) if rule["corrected"] else chances
    for key, chance in zip(compared, adjusted, strict=True):
        new = median(one.lower for one in now[key])
        old = median(_upper(one) for one in before[key])
        worse = new - old
        if chance > rule["chance"] or worse <= max(
            rule["worse_by"], old * rule["worse_by_percent"] / 100
        ):
            continue
        _, name, series = key
        ruling.against(
            "regression",
            f"“{name}”: {series} is worse than before: {new:g} against {old:g} (medians of "
            f"{len(now[key])} and {len(before[key])} runs; by chance in {chance:.2g} of cases)",
            name,
        )


def _able(
    rule: Mapping[str, Any], now: Series, before: Series, ruling: Ruling
) -> list[tuple[str, str, str]]:
    """Return the series that the test could find worse; say of the others that it could not."""
    share = max(len(now), 1) if rule["corrected"] else 1
    able: list[tuple[str, str, str]] = []
    few: list[tuple[str, str, str]] = []
    for key, mine in now.items():
        theirs = before.get(key, [])
        possible = least_chance(len(mine), len(theirs)) * share <= rule["chance"]
        (able if possible and len(theirs) >= rule["least_runs"] else few).append(key)
    if few or not now:
        _, name, series = few[0] if few else ("", "nothing", "no figure")
        most = max((len(before.get(key, [])) for key in few), default=0)
        ruling.decide(
            rule["too_few"],
            "baseline-too-small",
            f"{len(few)} of {len(now)} series have too few earlier runs to find a regression, e.g. "
            f"“{name}”, {series} (at most {most} runs)",
        )
    return able


def _comparable(runs: Sequence[Run], earlier: Sequence[Run]) -> list[Run]:
    """Return the earlier runs of the same kind of cluster, without the given ones, oldest first."""
    kinds = {(run["subject"]["provider"], run["subject"]["stand_in"]) for run in runs}
    mine = {(run["run"], run["began"]) for run in runs}
    found = [
        run
        for run in earlier
        if (run["subject"]["provider"], run["subject"]["stand_in"]) in kinds
        and (run["run"], run["began"]) not in mine
    ]
    return sorted(found, key=lambda run: str(run["began"]))


def _series(runs: Sequence[Run], measures: Sequence[str]) -> Series:
    found: Series = {}
    for run in runs:
        for scenario in run["scenarios"]:
            for one in measured(scenario):
                if one.measure in measures:
                    key = (scenario["feature"], scenario["name"], one.name)
                    found.setdefault(key, []).append(one)
    return found


def _upper(one: Measured) -> float:
    return float("inf") if one.upper is None else one.upper
