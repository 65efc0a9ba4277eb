"""What a scenario's findings say in numbers: outages per path, losses, staleness, deviations.

Pure functions over the JSON of scenarios and runs, so that a file of an older writer yields the same
tables as today's: :func:`completed` adds what it did not know yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from pytest_pgo_eks.clusters.eks.deviations import DEVIATIONS
from pytest_pgo_eks.pattern import REQUIREMENTS, requirements

Json = dict[str, Any]
Scenario = Mapping[str, Any]

TAKEN_BACK = "begun when the fault was taken back"
"""The sessions of an interval that does not count from the fault, so that it is no interruption."""
RTO_RULE = "acknowledged-again-in-time"
_LOSS_RULE = "no-acknowledged-write-lost"
_STALE_RULE = "replica-staleness"
_DEVIATION = re.compile(r"deviation-([A-Z]+\d+)$")
_LEVEL = re.compile(r"level-([0-4])$")
# As the sentences of older findings have it, which had no such numbers.
_TOLD = re.compile(r"writes(?: of (?P<sessions>.+?))? through (?P<path>.+?) were ")
_RANK = ("uncovered", "skipped", "pass", "inconclusive", "violation")
_IDENTITY = ("id", "feature", "rule", "name", "tags", "level", "requirements")


def completed(document: Mapping[str, Any]) -> Json:
    """Return a run's document with every field of today's schema.

    :raises KeyError: a field that every version had is missing.
    """
    scenarios = [completed_scenario(one, document["rerun"]) for one in document["scenarios"]]
    subject = {"region": None, "images": [], **document["subject"]}
    plain: Json = {
        "run": "",
        "ended": document["began"],
        "seed": None,
        "settings": {},
        "environment": {},
        "executor": None,
        "cost": None,
        "leftovers": [],
        "gate": None,
    }
    known = {**plain, **document, "subject": subject, "scenarios": scenarios}
    known.setdefault("deviations", deviations(scenarios, ()))
    known.setdefault("left_out", left_out(scenarios, [{"id": i} for i in document["deselected"]]))
    known.setdefault("requirements", covered(scenarios))
    return known


def completed_scenario(found: Scenario, rerun: str) -> Json:
    """Return a scenario with every field of today's schema."""
    plain: Json = {
        "level": _level(found["tags"]),
        "requirements": list(requirements(found["tags"])),
        "folder": _folder(found["attachments"]),
        "rerun": again(rerun, found["id"]),
        "seed": None,
        "replication": None,
        "skip": _skip(found),
        "rto": list(rto(found)),
        "outages": [],
        "loss": loss(found),
        "staleness": staleness(found),
        "deviations": list(deviating(found)),
    }
    return {**plain, **found}


def again(rerun: str, node_id: str) -> str:
    """Return the command that runs one scenario again."""
    import shlex

    return f"{rerun} {shlex.quote(node_id)}"


def rto(scenario: Scenario) -> Iterator[Json]:
    """Yield a row per judged interval, in the order in which they were judged."""
    faults = list(dict.fromkeys(fault["kind"] for fault in scenario["faults"]))
    for finding in scenario["findings"]:
        if finding["rule"] == RTO_RULE:
            yield {**_row(finding), "faults": faults}


def _row(finding: Mapping[str, Any]) -> Json:
    numbers = finding["numbers"]
    told = _TOLD.search(finding["sentence"])
    after_s, upper_s = _number(numbers, "after_s"), _number(numbers, "upper_s")
    sessions = numbers.get("sessions") or (told and told["sessions"]) or "new sessions"
    if after_s is not None:
        # Not from the fault on: these count from the moment when it was taken back.
        sessions = TAKEN_BACK
    return {
        "path": str(numbers.get("path") or (told and told["path"]) or "the primary Service"),
        "sessions": str(sessions),
        "outcome": finding["outcome"],
        "budget_s": _number(numbers, "budget_s"),
        "lower_s": _number(numbers, "lower_s") if after_s is None else after_s,
        "upper_s": None
        if numbers.get("over") is False
        else upper_s
        if after_s is None
        else after_s,
        "outage_lower_s": _number(numbers, "outage_lower_s"),
        "outage_upper_s": _number(numbers, "outage_upper_s"),
        "outages": int(_number(numbers, "outages") or 0),
    }


def loss(scenario: Scenario) -> Json | None:
    """Return what became of acknowledged writes; where several histories were judged, the worst."""
    judged = [
        {
            **{
                name: int(_number(finding["numbers"], name) or 0)
                for name in ("acknowledged", "lost", "unsafe", "indeterminate")
            },
            "outcome": finding["outcome"],
        }
        for finding in scenario["findings"]
        if finding["rule"] == _LOSS_RULE
    ]
    rank = ("holds", "expected", "unknown", "violated")
    return max(judged, key=lambda one: (rank.index(one["outcome"]), one["lost"]), default=None)


def staleness(scenario: Scenario) -> Json | None:
    """Return how old the reads of replicas were; where several histories were read, the oldest."""
    read = [
        {
            "reads": int(_number(finding["numbers"], "reads") or 0),
            "stale": int(_number(finding["numbers"], "stale") or 0),
            **{name: _number(finding["numbers"], name) for name in ("p50_s", "p99_s", "max_s")},
        }
        for finding in scenario["findings"]
        if finding["rule"] == _STALE_RULE and finding["outcome"] != "unknown"
    ]
    return max(read, key=lambda one: one["max_s"] or 0.0, default=None)


def deviating(scenario: Scenario) -> Iterator[str]:
    """Yield the ids of the deviations that a scenario met."""
    for rule in dict.fromkeys(finding["rule"] for finding in scenario["findings"]):
        if named := _DEVIATION.match(rule):
            yield named[1]


def deviations(scenarios: Sequence[Scenario], known: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Join what the provider did otherwise (``known``) with what scenarios met, by id."""
    texts = {one.id: one for one in DEVIATIONS}
    found: dict[str, Json] = {one["id"]: {**one, "scenarios": []} for one in known}
    for scenario in scenarios:
        for finding in scenario["findings"]:
            if not (named := _DEVIATION.match(finding["rule"])):
                continue
            text = texts.get(named[1])
            plain = {
                "id": named[1],
                "text": text.text if text else "",
                "did": finding["sentence"].removeprefix(f"deviation {named[1]}: "),
                "why": text.why if text else "",
            }
            entry = found.setdefault(named[1], {**plain, "scenarios": []})
            if scenario["id"] not in entry["scenarios"]:
                entry["scenarios"].append(scenario["id"])
    return sorted(found.values(), key=lambda one: (one["id"][:1], len(one["id"]), one["id"]))


def covered(scenarios: Sequence[Scenario]) -> list[Json]:
    """Return a row for every requirement of the pattern, with the worst verdict behind it."""
    seen: dict[str, list[str]] = {name: [] for name in REQUIREMENTS}
    for scenario in scenarios:
        for name in scenario["requirements"]:
            seen.setdefault(name, []).append(scenario["verdict"])
    return [
        {
            "id": name,
            "text": REQUIREMENTS.get(name, ""),
            "verdict": max(verdicts, key=_RANK.index, default="uncovered"),
            "scenarios": len(verdicts),
        }
        for name, verdicts in seen.items()
    ]


def left_out(scenarios: Sequence[Scenario], deselected: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Return every scenario that did not run, with its reason; skipped ones first."""
    skipped = [
        {
            **{name: scenario[name] for name in _IDENTITY},
            "kind": scenario["skip"]["kind"],
            "reason": scenario["reason"],
            "capability": scenario["skip"]["capability"],
        }
        for scenario in scenarios
        if scenario["skip"]
    ]
    return [*skipped, *map(_deselected, deselected)]


def _deselected(found: Mapping[str, Any]) -> Json:
    name = str(found["id"]).partition("::")[2] or str(found["id"])
    plain: Json = {
        "feature": "",
        "rule": "",
        "name": name,
        "tags": [],
        "level": 2,
        "requirements": [],
        "reason": "not among the chosen ones",
    }
    return {**plain, **found, "kind": "deselected", "capability": None}


def _skip(scenario: Scenario) -> Json | None:
    if scenario["verdict"] != "skipped":
        return None
    lacking = re.match(r"needs ([a-z-]+) \(", scenario["reason"])
    kind = "missing-capability" if lacking else "skipped"
    return {"kind": kind, "capability": lacking[1] if lacking else None}


def _level(tags: Iterable[str]) -> int:
    named = [
        0 if tag == "smoke" else int(tag[-1]) for tag in tags if tag == "smoke" or _LEVEL.match(tag)
    ]
    return min(named, default=2)


def _folder(attachments: Sequence[str]) -> str:
    parts = PurePosixPath(attachments[0]).parts if attachments else ()
    return "/".join(parts[:2]) if len(parts) > 2 and parts[0] == "scenarios" else ""


def _number(numbers: Mapping[str, Any], name: str) -> float | None:
    value = numbers.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        return None
    return max(value, 0.0) if abs(value) != float("inf") else None
