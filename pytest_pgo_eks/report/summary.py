"""The end of a run in the terminal: the verdict, what broke first, the one file to open."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_HEADLINES = {
    "pass": "PASS: every promise that was asked for held.",
    "violation": "VIOLATION: a promise was broken.",
    "inconclusive": "INCONCLUSIVE: infrastructure got in the way; nothing is proven either way.",
}


def lines(document: Mapping[str, Any], run_dir: Path) -> Iterator[str]:
    """Yield the summary of a ``verdict.json`` document, line by line, most important first."""
    yield _HEADLINES[document["verdict"]]
    yield from _subject(document)
    yield from _troubles(document, run_dir)
    yield from _notable(document)
    yield from _skipped(document)
    counts = document["counts"]
    yield (
        f"{counts['pass']} passed, {counts['violation']} violated, "
        f"{counts['inconclusive']} inconclusive, {counts['skipped']} skipped, "
        f"{len(document['deselected'])} deselected in {document['took_s']:.0f} s"
    )
    yield f"report: {run_dir / 'verdict.json'}"
    if document["disclaimer"]:
        yield document["disclaimer"]


def _subject(document: Mapping[str, Any]) -> Iterator[str]:
    subject = document["subject"]
    names = (
        ("PGO", "pgo"),
        ("PostgreSQL", "postgresql"),
        ("Patroni", "patroni"),
        ("Kubernetes", "kubernetes"),
    )
    known = [f"{name} {subject[key]}" for name, key in names if subject.get(key)]
    yield f"judged: {', '.join(known) or 'nothing came up'} on --cluster={subject['provider']}"


def _troubles(document: Mapping[str, Any], run_dir: Path) -> Iterator[str]:
    """Show what failed: violations before infrastructure, each in the order of time.

    What failed for the same reason at the same place is told once: a cluster that did not come up
    fails every scenario alike.
    """
    for verdict in ("violation", "inconclusive"):
        alike: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for scenario in document["scenarios"]:
            if scenario["verdict"] == verdict:
                alike.setdefault((scenario["reason"], _failed_step(scenario)), []).append(scenario)
        for (reason, step), scenarios in alike.items():
            yield ""
            yield from _told(verdict, scenarios)
            if step:
                yield f"  at: {step}"
            for line in _first(reason, 12):
                yield f"  {line}"
            attached = [path for scenario in scenarios for path in scenario["attachments"]]
            if attached:
                yield f"  open: {run_dir / attached[0]}"
            yield f"  again: {document['rerun']} {shlex.quote(scenarios[0]['id'])}"


def _failed_step(scenario: Mapping[str, Any]) -> str:
    failed = [step for step in scenario["steps"] if step["outcome"] == "failed"]
    return f"{failed[0]['kind'].capitalize()} {failed[0]['text']}" if failed else ""


def _told(verdict: str, scenarios: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for scenario in scenarios[:3]:
        yield f"{verdict}: {scenario['feature']} – {scenario['name']}"
    if len(scenarios) > 3:
        yield f"{verdict}: {len(scenarios) - 3} more scenarios for the same reason"


def _notable(document: Mapping[str, Any]) -> Iterator[str]:
    """Show what is expected under the declared settings and still worth knowing."""
    seen: set[str] = set()
    for scenario in document["scenarios"]:
        for finding in scenario["findings"]:
            if finding["outcome"] == "expected" and finding["sentence"] not in seen:
                seen.add(finding["sentence"])
                yield f"note: {finding['sentence']} ({scenario['name']})"


def _skipped(document: Mapping[str, Any]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for scenario in document["scenarios"]:
        if scenario["verdict"] == "skipped":
            reasons.setdefault(scenario["reason"], []).append(scenario["name"])
    for reason, names in reasons.items():
        listed = "; ".join(names[:3]) + (f"; {len(names) - 3} more" if len(names) > 3 else "")
        yield f"skipped: {reason}: {listed}"


def _first(text: str, count: int) -> list[str]:
    found = [line for line in text.splitlines() if line.strip()]
    return [*found[:count], *([f"… {len(found) - count} more lines"] if len(found) > count else [])]
