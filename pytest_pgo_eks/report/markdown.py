"""Markdown for a job's summary and for a pull-request comment.

Names and messages are others' words: nothing in them becomes a heading, a link, a table cell or a
mention of somebody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from pytest_pgo_eks.report import story
from pytest_pgo_eks.report.earlier import earlier_runs
from pytest_pgo_eks.report.links import safe_url
from pytest_pgo_eks.report.text import counted, first_lines, interval, line, seconds

MARKER = "<!-- pytest-pgo-eks -->"
"""The first line of a comment, by which whoever posts it finds the last one."""
# GitHub takes 1 MiB in a summary and 65,536 characters in a comment.
_SUMMARY_BYTES = 900_000
_COMMENT_CHARACTERS = 60_000
_TROUBLES, _ROWS, _CHANGES = 20, 40, 20
_ICONS = {"pass": "✅", "violation": "❌", "inconclusive": "⚠️", "skipped": "⏭️"}
_SPECIAL = re.compile(r"([\\`*_\[\]|~])")

Json = Mapping[str, Any]


def summary(document: Json, run_dir: Path) -> str:
    """Return what belongs into ``$GITHUB_STEP_SUMMARY``."""
    parts = [*_head(document, "#"), *_troubles(document, _TROUBLES), *_changes(document, run_dir)]
    parts += [*_intervals(document), *_losses(document), *_left_out(document), *_foot(document)]
    return _cut("\n".join(parts) + "\n", _SUMMARY_BYTES)


def comment(document: Json, run_dir: Path) -> str:
    """Return what belongs under a pull request."""
    parts = [MARKER, *_head(document, "###"), *_troubles(document, 5)]
    parts += [*_changes(document, run_dir), *_longest(document), *_foot(document)]
    return _cut("\n".join(parts) + "\n", _COMMENT_CHARACTERS)


def _head(document: Json, level: str) -> Iterator[str]:
    verdict = document["verdict"]
    yield f"{level} {_ICONS[verdict]} {story.VERDICTS[verdict]}: PGO conformance"
    yield ""
    yield f"**{text(story.headline(document))}**"
    yield ""
    judged = ", ".join(map(text, story.versions(document))) or "nothing came up"
    yield f"{judged} on {code(story.place(document))}"
    yield ""
    if document["disclaimer"]:
        yield f"> {text(document['disclaimer'])}"
        yield ""
    counts = document["counts"]
    if decision := story.gate(document):
        yield f"**{text(decision.headline)}**"
        yield ""
        for reason in decision.reasons[:_TROUBLES]:
            yield f"- {text(reason)}"
        if len(decision.reasons) > _TROUBLES:
            yield f"- … and {len(decision.reasons) - _TROUBLES} more, in gate.json"
        yield ""
    yield "| passed | violated | inconclusive | skipped | deselected | took |"
    yield "|--:|--:|--:|--:|--:|--:|"
    numbers = [counts[kind] for kind in ("pass", "violation", "inconclusive", "skipped")]
    numbers.append(len(document["deselected"]))
    yield f"| {' | '.join(map(str, numbers))} | {seconds(document['took_s'])} |"
    yield ""


def _troubles(document: Json, most: int) -> Iterator[str]:
    found = story.troubles(document)
    if not found:
        return
    yield "#### What broke"
    yield ""
    for trouble in found[:most]:
        yield f"- {_ICONS[trouble.verdict]} **{text(line(trouble.first['name']))}** – {text(line(trouble.first['feature']))}"
        if len(trouble.scenarios) > 1:
            yield f"  and {counted(len(trouble.scenarios) - 1, 'more scenario')} for the same reason"
        if trouble.step:
            yield f"  at: {text(line(trouble.step))}"
        yield ""
        yield from (f"      {line}" for line in first_lines(trouble.reason, 8))
        yield ""
        if file := trouble.file():
            yield f"  open {code(file)}"
        yield f"  again: {code(trouble.first['rerun'])}"
        yield ""
    if len(found) > most:
        yield f"… and {len(found) - most} more, in report.html"
        yield ""


def _changes(document: Json, run_dir: Path) -> Iterator[str]:
    earlier = earlier_runs(document, run_dir, 1)
    if not earlier:
        return
    found = story.changes(document, earlier[0])
    yield f"#### Since the last run ({text(earlier[0]['began'][:16].replace('T', ' '))})"
    yield ""
    for change in found[:_CHANGES]:
        arrow = {True: "worse", False: "better", None: "other"}[change.worse]
        yield f"- {arrow}: {text(line(change.what))}: {text(line(change.was))} → {text(line(change.now))}"
    if len(found) > _CHANGES:
        yield f"- … and {len(found) - _CHANGES} more"
    if not found:
        yield "Nothing changed: the same versions, the same outcomes."
    yield ""


def _longest(document: Json) -> Iterator[str]:
    if found := story.longest(document):
        scenario, row = found
        yield (
            f"Longest interruption: {interval(row['lower_s'], row['upper_s'])} on "
            f"{text(row['path'])} ({text(line(scenario['name']))})."
        )
        yield ""


def _intervals(document: Json) -> Iterator[str]:
    rows = story.intervals(document)
    if not rows:
        return
    yield "#### How long writes were interrupted"
    yield ""
    yield "| scenario | path | sessions | interval | budget | |"
    yield "|---|---|---|--:|--:|---|"
    for scenario, row in rows[:_ROWS]:
        cells = (
            text(line(scenario["name"])),
            text(row["path"]),
            text(row["sessions"]),
            interval(row["lower_s"], row["upper_s"]),
            "–" if row["budget_s"] is None else f"{row['budget_s']:g} s",
            text(row["outcome"]),
        )
        yield f"| {' | '.join(cells)} |"
    if len(rows) > _ROWS:
        yield f"| … and {len(rows) - _ROWS} more, in report.html | | | | | |"
    yield ""


def _losses(document: Json) -> Iterator[str]:
    gone = [one for one in document["scenarios"] if one["loss"] and one["loss"]["lost"]]
    if not gone:
        return
    yield "#### Acknowledged writes that are gone"
    yield ""
    yield "| scenario | replication | lost | of | |"
    yield "|---|---|--:|--:|---|"
    for one in gone[:_ROWS]:
        loss = one["loss"]
        allowed = "allowed" if loss["outcome"] == "expected" else text(loss["outcome"])
        mode = text(one["replication"] or "–")
        yield f"| {text(line(one['name']))} | {mode} | {loss['lost']} | {loss['acknowledged']} | {allowed} |"
    yield ""


def _left_out(document: Json) -> Iterator[str]:
    grouped = story.reasons(document["left_out"])
    if not grouped:
        return
    yield f"<details><summary>{counted(len(document['left_out']), 'scenario')} did not run</summary>"
    yield ""
    for (kind, reason), every in list(grouped.items())[:_ROWS]:
        names = "; ".join(text(line(one["name"], 80)) for one in every[:5])
        more = f"; {len(every) - 5} more" if len(every) > 5 else ""
        yield f"- {kind}: {text(line(reason))}: {names}{more}"
    yield ""
    yield "</details>"
    yield ""


def _foot(document: Json) -> Iterator[str]:
    job = document["executor"]
    url = safe_url(job["url"]) if job else None
    where = f" · [job]({escape(url).replace(')', '%29').replace(' ', '%20')})" if url else ""
    yield f"Run {code(document['run'] or document['began'])}{where} · again: {code(document['rerun'])}"


def text(value: str) -> str:
    """Return ``value`` so that Markdown and HTML show it as it is."""
    inert = _SPECIAL.sub(r"\\\1", escape(line(value, 2000), quote=False))
    # Neither a mention of somebody nor a link that the viewer makes of its own.
    return inert.replace("@", "&#64;").replace("://", ":&#47;/")


def code(value: str) -> str:
    """Return ``value`` as code, whatever backticks are in it."""
    shown = line(value, 2000)
    runs = [len(run) for run in re.findall("`+", shown)]
    fence = "`" * (max(runs, default=0) + 1)
    return f"{fence} {shown} {fence}" if runs else f"`{shown}`"


def _cut(told: str, most: int) -> str:
    """Keep a summary under the size that its reader refuses."""
    if len(told.encode()) <= most:
        return told
    kept = told.encode()[: most - 100].decode("utf-8", "ignore")
    return kept.rpartition("\n")[0] + "\n\n… cut here; the rest is in report.html\n"
