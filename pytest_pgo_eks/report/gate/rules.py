"""Rules of a policy about runs and figures: evidence, deviations, budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from pytest_pgo_eks.report.gate.decision import Ruling
from pytest_pgo_eks.report.gate.policy import matches
from pytest_pgo_eks.report.measures import measured

Run = Mapping[str, Any]
Value = Mapping[str, Any]
_UNITS = {"rto_s": " s", "staleness_s": " s", "duration_s": " s", "lost_writes": " writes"}


def check_evidence(value: Value, runs: Sequence[Run], today: date, ruling: Ruling) -> None:
    """Whether the runs count at all: where and when, what they are about, how they ended."""
    asked = value["evidence"]
    for run in runs:
        subject, name = run["subject"], run["run"] or run["began"]
        provider = subject["provider"]
        if subject["stand_in"]:
            if asked["stand_in"] == "refused":
                ruling.against(
                    "stand-in", f"run {name} is of the stand-in cluster, which this policy refuses"
                )
            else:
                ruling.allowed.append(f"run {name} is of the stand-in cluster")
        if provider not in asked["providers"]:
            wanted = ", ".join(asked["providers"])
            ruling.against(
                "provider", f"run {name} took place on {provider!r}; this policy takes {wanted}"
            )
        if "max_age_days" in asked and not _young(run, int(asked["max_age_days"]), today):
            ruling.against(
                "age",
                f"run {name} began on {run['began'][:10]}; this policy takes runs of the last "
                f"{asked['max_age_days']} days",
            )
        for key, pattern in asked.get("subject", {}).items():
            if not matches(pattern, str(subject[key] or "")):
                ruling.against(
                    "subject", f"run {name} judged {key} {subject[key]!r}; asked for is {pattern!r}"
                )
        if run["interrupted"]:
            ruling.decide(
                asked["interrupted"], "interrupted", f"run {name} was stopped before its end"
            )
        if run["leftovers"]:
            sentence = (
                f"run {name} left {len(run['leftovers'])} things behind: {run['leftovers'][0]}"
            )
            ruling.decide(asked["leftovers"], "leftovers", sentence)


def _young(run: Run, days: int, today: date) -> bool:
    """Whether a run is of the last days; one day ahead is another time zone's, further is no clock's."""
    try:
        age = (today - date.fromisoformat(str(run["began"])[:10])).days
    except ValueError:
        return False
    return -1 <= age <= days


def check_deviations(value: Value, runs: Sequence[Run], today: date, ruling: Ruling) -> None:
    """Whether every difference from the pattern's text is one that is agreed to."""
    accepted = {one["id"]: one for one in value["deviations"]["accepted"]}
    found: dict[str, tuple[str, bool]] = {}
    for run in runs:
        for one in run["deviations"]:
            did, met = found.get(one["id"], (one["did"], False))
            found[one["id"]] = (did, met or bool(one["scenarios"]))
    for name, (did, met) in sorted(found.items()):
        entry = accepted.get(name)
        told = f"deviation {name}{' was met by a scenario and' if met else ''}"
        if entry is None or (met and entry.get("where") == "provider"):
            ruling.decide(
                value["deviations"]["others"], "deviation", f"{told} is not accepted: {did}"
            )
        elif "expires" in entry and date.fromisoformat(entry["expires"]) < today:
            ruling.against(
                "deviation-expired",
                f"deviation {name} was accepted until {entry['expires']} ({entry['reason']})",
            )
        else:
            ruling.allowed.append(f"deviation {name}: {entry['reason']}")


def check_budgets(value: Value, runs: Sequence[Run], ruling: Ruling) -> None:
    """Whether every figure that a budget means is within it, and whether there was one at all."""
    for budget in value.get("budgets", ()):
        found = False
        for scenario, one in _meant(budget, runs):
            found = True
            upper, most = one.upper, float(budget["at_most"])
            if upper is not None and upper <= most:
                continue
            unit = _UNITS[one.measure]
            seen = "without end" if upper is None else f"up to {upper:g}{unit}"
            where = f" through {one.path}" if one.path else ""
            after = f" after {', '.join(one.faults)}" if one.faults else ""
            sentence = (
                f"“{scenario['name']}”: {one.measure}{where}{after} is {seen}, "
                f"allowed are {most:g}{unit}"
            )
            ruling.against("budget", sentence, scenario["name"])
        if not found:
            filters = ", ".join(
                f"{key} {told}"
                for key, told in budget.items()
                if key not in ("measure", "unmeasured")
            )
            ruling.decide(
                budget.get("unmeasured", "fail"),
                "budget-unmeasured",
                f"nothing was measured that the budget for {budget['measure']} ({filters}) means",
            )


def _meant(budget: Value, runs: Sequence[Run]) -> Iterator[tuple[Value, Any]]:
    for run in runs:
        for scenario in run["scenarios"]:
            if not matches(budget.get("scenario"), scenario["name"]):
                continue
            if "replication" in budget and scenario["replication"] not in budget["replication"]:
                continue
            for one in measured(scenario):
                if one.measure != budget["measure"] or not matches(budget.get("path"), one.path):
                    continue
                if "fault" in budget and not any(matches(budget["fault"], f) for f in one.faults):
                    continue
                yield scenario, one
