"""The end of a run in the terminal: the verdict, what broke first, the one file to open."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_pgo_eks.report import story
from pytest_pgo_eks.report.text import counted, first_lines, interval, line
from pytest_pgo_eks.report.views import PAGE

_TROUBLES, _NOTES, _REASONS = 10, 5, 15
# Worth a line in the terminal even where they are allowed; what was merely measured is in the report.
_TOLD = ("no-acknowledged-write-lost", "one-primary-at-a-time", "no-value-on-two-timelines")


def lines(document: Mapping[str, Any], run_dir: Path) -> Iterator[str]:
    """Yield the summary of a ``verdict.json`` document, line by line, most important first."""
    yield f"{document['verdict'].upper()}: {story.headline(document)}"
    judged = ", ".join(story.versions(document)) or "nothing came up"
    yield f"judged: {line(judged)} on {line(story.place(document))}"
    yield from _troubles(document, run_dir)
    yield from _interruption(document)
    yield from _notable(document)
    yield from _left_out(document)
    yield from _provider(document)
    counts = document["counts"]
    yield (
        f"{counts['pass']} passed, {counts['violation']} violated, "
        f"{counts['inconclusive']} inconclusive, {counts['skipped']} skipped, "
        f"{len(document['deselected'])} deselected in {document['took_s']:.0f} s"
    )
    yield f"report: {run_dir / PAGE}"
    if document["disclaimer"]:
        yield document["disclaimer"]


def _troubles(document: Mapping[str, Any], run_dir: Path) -> Iterator[str]:
    found = story.troubles(document)
    for trouble in found[:_TROUBLES]:
        yield ""
        for scenario in trouble.scenarios[:3]:
            yield f"{trouble.verdict}: {line(scenario['feature'])} – {line(scenario['name'])}"
        if (more := len(trouble.scenarios) - 3) > 0:
            yield f"{trouble.verdict}: {counted(more, 'more scenario')} for the same reason"
        if trouble.step:
            yield f"  at: {line(trouble.step)}"
        for told in first_lines(trouble.reason, 12):
            yield f"  {told}"
        if file := trouble.file():
            yield f"  open: {run_dir}/{line(file, 2000)}"
        yield f"  again: {line(document['rerun'], 2000)} {shlex.quote(line(trouble.first['id'], 2000))}"
    if len(found) > _TROUBLES:
        yield ""
        yield f"… and {counted(len(found) - _TROUBLES, 'more reason')} in the report"
    if found:
        yield ""


def _interruption(document: Mapping[str, Any]) -> Iterator[str]:
    if found := story.longest(document):
        scenario, row = found
        span = interval(row["lower_s"], row["upper_s"])
        yield f"longest interruption: {span} on {line(row['path'])} ({line(scenario['name'])})"


def _notable(document: Mapping[str, Any]) -> Iterator[str]:
    """Show what is expected under the declared settings and still worth knowing."""
    seen: dict[str, str] = {}
    for scenario in document["scenarios"]:
        for finding in scenario["findings"]:
            rule = finding["rule"]
            if finding["outcome"] == "expected" and (
                rule in _TOLD or rule.startswith("deviation-")
            ):
                seen.setdefault(finding["sentence"], scenario["name"])
    for sentence, name in list(seen.items())[:_NOTES]:
        yield f"note: {line(sentence)} ({line(name)})"
    if len(seen) > _NOTES:
        yield f"note: {len(seen) - _NOTES} more like these in the report"


def _left_out(document: Mapping[str, Any]) -> Iterator[str]:
    grouped = story.reasons(one for one in document["left_out"] if one["kind"] != "deselected")
    for (_, reason), every in list(grouped.items())[:_REASONS]:
        listed = "; ".join(line(one["name"]) for one in every[:3])
        more = f"; {len(every) - 3} more" if len(every) > 3 else ""
        yield f"skipped: {line(reason)}: {listed}{more}"
    if len(grouped) > _REASONS:
        yield f"skipped: for {len(grouped) - _REASONS} more reasons, all in the report"


def _provider(document: Mapping[str, Any]) -> Iterator[str]:
    if cost := document["cost"]:
        yield f"cost: about {cost['usd']:.2f} USD (prices of {line(cost['prices_of'])})"
    for left in document["leftovers"]:
        yield f"left behind: {line(left, 500)}"
