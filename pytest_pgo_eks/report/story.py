"""What every view tells in the same words: the headline, what broke first, what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.report.figures import TAKEN_BACK
from pytest_pgo_eks.report.text import counted

Json = Mapping[str, Any]

VERDICTS = {"pass": "Pass", "violation": "Violation", "inconclusive": "Inconclusive"}
OUTCOMES = {**VERDICTS, "skipped": "Skipped"}
SIGNS = {"pass": "✓", "violation": "✗", "inconclusive": "?", "skipped": "–"}
_NAMES = (
    ("PGO", "pgo"),
    ("PostgreSQL", "postgresql"),
    ("Patroni", "patroni"),
    ("Kubernetes", "kubernetes"),
)


def headline(document: Json) -> str:
    """Return the answer in one sentence."""
    counts = document["counts"]
    judged = counts["pass"] + counts["violation"] + counts["inconclusive"]
    of = f"of {counted(judged, 'scenario')}"
    match document["verdict"]:
        case "pass":
            return f"Every promise that was asked for held in {counted(judged, 'scenario')}."
        case "violation":
            return f"A promise was broken in {counts['violation']:,} {of}."
    if not judged:
        return "Nothing was judged, so nothing is proven."
    if document["interrupted"]:
        return "The run was stopped before its end, so it proves nothing."
    return f"Infrastructure got in the way in {counts['inconclusive']:,} {of}; they prove nothing."


def versions(document: Json) -> list[str]:
    """Return what was judged, as far as it is known."""
    subject = document["subject"]
    # A distribution's own version behind PostgreSQL's is for the small print.
    told = [(name, str(subject[key] or "").partition(" (")[0]) for name, key in _NAMES]
    return [f"{name} {version}" for name, version in told if version]


def place(document: Json) -> str:
    """Return where: the provider and its region."""
    subject = document["subject"]
    return " ".join(filter(None, [f"--cluster={subject['provider']}", subject["region"]]))


@dataclass(frozen=True)
class Gate:
    """What the gate decided, as a view tells it."""

    met: bool
    headline: str
    reasons: tuple[str, ...]
    allowed: tuple[str, ...]


def gate(document: Json) -> Gate | None:
    """Return the gate's decision, None where the run had none.

    Its form is the gate's own; what of it cannot be read is left out.
    """
    found = document["gate"]
    if not found or not isinstance(found.get("met"), bool):
        return None
    policy = found.get("policy")
    name = str(policy.get("name", "")) if isinstance(policy, Mapping) else ""
    listed = [one for one in _listed(found.get("reasons")) if isinstance(one, Mapping)]
    reasons = tuple(str(one.get("sentence", "")) for one in listed)
    allowed = tuple(map(str, _listed(found.get("allowed"))))
    if found["met"]:
        return Gate(met=True, headline=f"Gate {name} met", reasons=reasons, allowed=allowed)
    why = counted(len(reasons), "reason")
    return Gate(met=False, headline=f"Gate {name} not met, {why}", reasons=reasons, allowed=allowed)


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


@dataclass(frozen=True)
class Trouble:
    """Scenarios that failed for one reason at one step: a cluster that did not come up fails all."""

    verdict: str
    reason: str
    step: str
    scenarios: tuple[Json, ...]

    @property
    def first(self) -> Json:
        return self.scenarios[0]

    def file(self) -> str | None:
        """Return the one file to open, relative to the run's folder."""
        attached = [name for one in self.scenarios for name in one["attachments"]]
        for ending in ("diagnostics/README.txt", "timeline.svg"):
            if found := next((name for name in attached if name.endswith(ending)), None):
                return str(found)
        return str(attached[0]) if attached else None


def troubles(document: Json) -> list[Trouble]:
    """Return what failed: violations before infrastructure, each in the order of time."""
    found = []
    for verdict in ("violation", "inconclusive"):
        alike: dict[tuple[str, str], list[Json]] = {}
        for scenario in document["scenarios"]:
            if scenario["verdict"] == verdict:
                key = (scenario["reason"], failed_step(scenario))
                alike.setdefault(key, []).append(scenario)
        found += [Trouble(verdict, r, step, tuple(every)) for (r, step), every in alike.items()]
    return found


def failed_step(scenario: Json) -> str:
    """Return the sentence at which a scenario failed, empty where it was none."""
    for step in scenario["steps"]:
        if step["outcome"] == "failed":
            return f"{step['kind'].capitalize()} {step['text']}"
    return ""


def reasons(left_out: Iterable[Json]) -> dict[tuple[str, str], list[Json]]:
    """Group what did not run by kind and reason, in the order of the document."""
    grouped: dict[tuple[str, str], list[Json]] = {}
    for one in left_out:
        grouped.setdefault((one["kind"], one["reason"]), []).append(one)
    return grouped


def intervals(document: Json) -> list[tuple[Json, Json]]:
    """Return (scenario, row) of every judged interruption: broken ones first, then the longest."""
    rank = {"violated": 0, "unknown": 1}
    found = [(one, row) for one in document["scenarios"] for row in one["rto"]]
    return sorted(
        found,
        key=lambda pair: (
            rank.get(pair[1]["outcome"], 2),
            -_at_most(pair[1]),
        ),
    )


def longest(document: Json) -> tuple[Json, Json] | None:
    """Return the interruption with the largest upper bound, and its scenario."""
    found = [pair for pair in intervals(document) if interrupts(pair[1])]
    return max(found, key=lambda pair: _at_most(pair[1]), default=None)


def interrupts(row: Json) -> bool:
    """Whether an interval says how long writes were interrupted."""
    return bool(row["upper_s"] != 0 and row["sessions"] != TAKEN_BACK)


def _at_most(row: Json) -> float:
    return float("inf") if row["upper_s"] is None else float(row["upper_s"])


def lost(document: Json, *, allowed: bool) -> int:
    """Return how many acknowledged writes are gone, within what is allowed or against it."""
    outcomes = ("expected",) if allowed else ("violated",)
    every = [one["loss"] for one in document["scenarios"] if one["loss"]]
    return sum(loss["lost"] for loss in every if loss["outcome"] in outcomes)


@dataclass(frozen=True)
class Change:
    """Something that differs between two runs; ``worse`` None where it is neither."""

    what: str
    was: str
    now: str
    worse: bool | None = None
    scenario: Json | None = None


def changes(document: Json, before: Json) -> list[Change]:
    """Return what differs from an earlier run: worse first, then better, then what is neither."""
    found = [
        Change(name, str(before["subject"][key] or "unknown"), str(document["subject"][key]))
        for name, key in (*_NAMES, ("PostgresCluster", "manifest_sha256"))
        if document["subject"][key] and document["subject"][key] != before["subject"][key]
    ]
    suites = [
        f"{one['suite']['version']} {one['suite']['commit'] or ''}"[:20].strip()
        for one in (before, document)
    ]
    if suites[0] != suites[1]:
        found.append(Change("suite", suites[0], suites[1]))
    known = {one["id"]: one["verdict"] for one in before["scenarios"]}
    rank = {"pass": 0, "skipped": 1, "inconclusive": 2, "violation": 3}
    for one in document["scenarios"]:
        was, now = known.get(one["id"]), one["verdict"]
        if was is None:
            if now in {"violation", "inconclusive"}:
                found.append(Change(one["name"], "not run", now, worse=True, scenario=one))
        elif was != now:
            found.append(Change(one["name"], was, now, worse=rank[now] > rank[was], scenario=one))
    side = {True: 0, False: 1, None: 2}
    return sorted(found, key=lambda one: (side[one.worse], -rank.get(one.now, 0)))


def marks(earlier: Sequence[Json], node_id: str) -> list[str | None]:
    """Return a scenario's verdict in earlier runs, oldest first, None where it did not run."""
    return [
        next((one["verdict"] for one in run["scenarios"] if one["id"] == node_id), None)
        for run in reversed(earlier)
    ]
