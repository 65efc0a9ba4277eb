"""Whether a verdict follows from what it tells itself: steps, findings, counts, tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_pgo_eks.report import figures
from pytest_pgo_eks.report.evidence import FILE as SCENARIO
from pytest_pgo_eks.report.evidence import folder_name
from pytest_pgo_eks.report.verdict import disclaimer, run_verdict

_TABLES = ("rto", "loss", "staleness", "deviations")
_STAND_IN = "stand-in"
# Told of every history and demanded by nobody.
_MEASURED = ("write-path-leads-to-a-primary", "replica-staleness", "long-fork")


def troubles_of_run(document: Mapping[str, Any], *, same_version: bool) -> Iterator[str]:
    """Yield why the run's verdict does not follow from those of its scenarios.

    ``same_version``: the suite that wrote it was this one; only then must derived tables be the same.
    """
    scenarios = document["scenarios"]
    follows = run_verdict(scenarios)
    if document["interrupted"] and follows == "pass":
        follows = "inconclusive"
    if document["verdict"] != follows:
        yield f"its verdict is {document['verdict']!r}, its scenarios make it {follows!r}"
    counts = Counter(scenario["verdict"] for scenario in scenarios)
    if told := {k: v for k, v in document["counts"].items() if v != counts[k]}:
        yield f"it counts {told}, its scenarios are {dict(counts)}"
    twice = [one for one, n in Counter(s["id"] for s in scenarios).items() if n > 1]
    if twice:
        yield f"scenario {twice[0]!r} is in it twice"
    yield from _provenance(document["subject"], document["disclaimer"])
    if same_version and document["requirements"] != figures.covered(scenarios):
        yield "its table of requirements is not that of its scenarios"


def _provenance(subject: Mapping[str, Any], told: str | None) -> Iterator[str]:
    stand_in = bool(subject["stand_in"])
    versions = " ".join(str(subject.get(name)) for name in ("kubernetes", "pgo"))
    if (subject["provider"] == "local" or _STAND_IN in versions) and not stand_in:
        yield "it calls itself no stand-in, but its versions and provider are the stand-in's"
    if stand_in and told != disclaimer(stand_in=True):
        yield "it ran on the stand-in and does not say what it is no evidence about"


def troubles_of_scenario(
    scenario: Mapping[str, Any], folder: Path, *, same_version: bool
) -> Iterator[str]:
    """Yield why a scenario's verdict does not follow from its own steps, findings and files."""
    verdict = scenario["verdict"]
    if verdict == "pass":
        for finding in scenario["findings"]:
            if finding["outcome"] == "unknown" and finding["rule"] in _MEASURED:
                continue
            if finding["outcome"] in ("violated", "unknown"):
                yield f"it passed, but [{finding['rule']}] is {finding['outcome']}"
        for step in scenario["steps"]:
            if step["outcome"] != "passed":
                yield f"it passed, but its step {step['text']!r} is {step['outcome']}"
    elif not scenario["reason"]:
        yield f"it is {verdict} without a reason"
    mine = figures.completed_scenario(
        {k: v for k, v in scenario.items() if k not in _TABLES}, scenario.get("rerun", "")
    )
    for table in _TABLES if same_version else ():
        if scenario[table] != mine[table]:
            yield f"its table {table!r} is not that of its findings"
    yield from _file(scenario, folder)
    for name in scenario["attachments"]:
        if not _inside(folder, name):
            yield f"its file {name} is missing"


def _file(scenario: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Compare with what the scenario itself wrote while it ran."""
    # The id may have been masked since the folder was named after it.
    place = scenario["folder"] or f"scenarios/{folder_name(scenario['id'])}"
    path = folder / place / SCENARIO
    if not path.resolve().is_relative_to(folder.resolve()):
        yield f"its folder is elsewhere: {place}"
        return
    try:
        own = json.loads(path.read_text("utf-8"))
    except OSError:
        yield f"its evidence is missing: {path.relative_to(folder)}"
        return
    except (ValueError, RecursionError):
        yield f"its evidence cannot be read: {path.relative_to(folder)}"
        return
    if not isinstance(own, dict):
        yield f"its evidence cannot be read: {path.relative_to(folder)}"
        return
    differing = [key for key in own.keys() & scenario.keys() if own[key] != scenario[key]]
    if differing:
        yield f"its own file says otherwise about {', '.join(sorted(differing))}"


def _inside(folder: Path, name: object) -> bool:
    path = (folder / str(name)).resolve()
    return path.is_relative_to(folder.resolve()) and path.is_file()
