"""The page's upper half: the verdict, what broke, the numbers, every scenario at a glance."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from pytest_pgo_eks.report import story
from pytest_pgo_eks.report.links import anchor
from pytest_pgo_eks.report.page.parts import badge, esc, file_link, link
from pytest_pgo_eks.report.text import counted, first_lines, interval, seconds

Json = Mapping[str, Any]
_TROUBLES = 12
_SENTENCES = 60


def band(document: Json) -> Iterator[str]:
    """Yield the answer, across the page."""
    verdict = document["verdict"]
    yield f'<header class="band {verdict}"><h1><span aria-hidden="true">{story.SIGNS[verdict]} </span>'
    yield f'{story.VERDICTS[verdict]}</h1><p class="say">{esc(story.headline(document))}</p>'
    judged = ", ".join(story.versions(document)) or "Nothing came up"
    when = document["began"][:16].replace("T", " ")
    yield f'<p class="what">{esc(judged)}<br>on {esc(story.place(document))} · {esc(when)} UTC · '
    yield f"{seconds(document['took_s'])}</p>"
    if decision := story.gate(document):
        sign = story.SIGNS["pass" if decision.met else "violation"]
        yield f'<p class="say"><strong><span aria-hidden="true">{sign} </span>'
        yield f'<a href="#gate">{esc(decision.headline)}</a></strong></p>'
    if document["disclaimer"]:
        yield f'<p class="stand-in"><strong>Not evidence.</strong> {esc(document["disclaimer"])}</p>'
    if document["interrupted"]:
        yield '<p class="stand-in"><strong>Stopped early.</strong> Not every scenario had its turn.</p>'
    yield "</header>\n"


def troubles(document: Json) -> Iterator[str]:
    """Yield what broke, first things first."""
    found = story.troubles(document)
    for trouble in found[:_TROUBLES]:
        first = trouble.first
        yield f'<article class="card {trouble.verdict}">'
        yield f"<h3>{badge(trouble.verdict)} {link(anchor(first['id']), first['name'])}</h3>"
        yield f'<p class="lead">{esc(first["feature"])}'
        if (more := len(trouble.scenarios) - 1) > 0:
            yield f", and {counted(more, 'more scenario')} for the same reason"
        yield "</p>"
        if trouble.step:
            yield f"<p>at <strong>{esc(trouble.step)}</strong></p>"
        yield f"<pre>{esc(chr(10).join(first_lines(trouble.reason, 10)))}</pre>"
        if file := trouble.file():
            yield f"<p>Open {file_link(file)}</p>"
        yield f"<p>Again: <code>{esc(first['rerun'])}</code></p></article>"
    if len(found) > _TROUBLES:
        yield f'<p class="lead">… and {counted(len(found) - _TROUBLES, "more reason")} below.</p>'


def gate(document: Json) -> Iterator[str]:
    """Yield why the gate decided as it did."""
    decision = story.gate(document)
    if decision is None:
        return
    kind = "pass" if decision.met else "violation"
    yield f"<p>{badge(kind, 'Met' if decision.met else 'Not met')} {esc(decision.headline)}</p>"
    for title, sentences in (("Reasons", decision.reasons), ("Let through", decision.allowed)):
        if sentences:
            told = "".join(f"<li>{esc(one)}</li>" for one in sentences[:_SENTENCES])
            if (more := len(sentences) - _SENTENCES) > 0:
                told += f"<li>… and {more} more in gate.json</li>"
            yield f'<h3>{title}</h3><ul class="plain">{told}</ul>'


def tiles(document: Json) -> Iterator[str]:
    """Yield the numbers that a morning begins with."""
    counts = document["counts"]
    yield '<dl class="tiles">'
    for outcome, word in (
        ("pass", "Passed"),
        ("violation", "Violated"),
        ("inconclusive", "Inconclusive"),
        ("skipped", "Skipped"),
    ):
        kind = outcome if counts[outcome] else "none"
        yield _tile(word, str(counts[outcome]), "", kind)
    yield _tile("Deselected", str(len(document["deselected"])), "")
    if found := story.longest(document):
        scenario, row = found
        bad = "violation" if row["outcome"] == "violated" else ""
        upper = "never" if row["upper_s"] is None else seconds(row["upper_s"])
        where = f"{row['path']}: {scenario['name']}"
        yield _tile("Longest interruption", upper, where, bad)
    against, within = story.lost(document, allowed=False), story.lost(document, allowed=True)
    if any(scenario["loss"] for scenario in document["scenarios"]):
        small = f"{within:,} more within what was allowed" if within else ""
        yield _tile(
            "Writes lost against a promise", f"{against:,}", small, "violation" if against else ""
        )
    if cost := document["cost"]:
        yield _tile("Cost", f"${cost['usd']:.2f}", f"prices of {cost['prices_of']}")
    if document["leftovers"]:
        yield _tile("Left behind", str(len(document["leftovers"])), "see Environment", "violation")
    yield "</dl>\n"


def _tile(name: str, value: str, small: str, kind: str = "") -> str:
    told = f"<small>{esc(small)}</small>" if small else ""
    return f'<div class="{kind}"><dt>{esc(name)}</dt><dd>{esc(value)}{told}</dd></div>'


def mosaic(document: Json) -> Iterator[str]:
    """Yield a small cell for every scenario, a row for every feature."""
    features = by_feature(document["scenarios"])
    if not features:
        return
    yield '<table class="mosaic"><caption class="hid">Every scenario at a glance</caption>'
    yield '<colgroup><col class="name"><col></colgroup><tbody>'
    for feature, scenarios in features.items():
        yield f'<tr><th scope="row">{esc(feature)}</th><td><ul class="cells">'
        for one in scenarios:
            told = f"{story.OUTCOMES[one['verdict']]}: {one['name']}"
            yield (
                f'<li><a class="{one["verdict"]}" href="#{anchor(one["id"])}" title="{esc(told)}" '
                f'aria-label="{esc(told)}">{story.SIGNS[one["verdict"]]}</a></li>'
            )
        yield "</ul></td></tr>"
    yield "</tbody></table>"


def matrix(document: Json, earlier: Sequence[Json], told: Container[str]) -> Iterator[str]:
    """Yield every scenario against every outcome, with what it was in earlier runs.

    ``told`` are those whose evidence is below; the others are addressed by their line here.
    """
    features = by_feature(document["scenarios"])
    if not features:
        return
    known = [{one["id"]: one["verdict"] for one in run["scenarios"]} for run in reversed(earlier)]
    heads = "".join(
        f'<th scope="col" class="c"><span aria-hidden="true">{story.SIGNS[name]}</span>'
        f'<span class="hid">{word}</span></th>'
        for name, word in story.OUTCOMES.items()
    )
    before = '<th scope="col">Before</th>' if known else ""
    yield '<div class="scroll" role="region" tabindex="0" aria-label="Every scenario by outcome">'
    yield '<table class="matrix"><caption class="hid">Every scenario by outcome</caption><thead><tr>'
    yield f'<th scope="col">Scenario</th>{heads}{before}<th scope="col" class="n time">Took</th></tr></thead>'
    columns = len(story.OUTCOMES) + 2 + bool(known)
    for feature, scenarios in features.items():
        yield f'<tbody><tr class="group"><th scope="rowgroup" colspan="{columns}">{esc(feature)}</th></tr>'
        for one in scenarios:
            if one["id"] in told:
                yield f'<tr><th scope="row">{link(anchor(one["id"]), one["name"])}</th>'
            else:
                yield f'<tr id="{anchor(one["id"])}"><th scope="row">{esc(one["name"])}</th>'
            for outcome, word in story.OUTCOMES.items():
                if one["verdict"] == outcome:
                    yield (
                        f'<td class="c {outcome}"><span aria-hidden="true">{story.SIGNS[outcome]}</span>'
                        f'<span class="hid">{word}</span></td>'
                    )
                else:
                    yield '<td class="c"></td>'
            if known:
                yield f"<td>{_marks([run.get(one['id']) for run in known])}</td>"
            yield f'<td class="n time">{seconds(one["took_s"])}</td></tr>'
        yield "</tbody>"
    yield "</table></div>"


def _marks(verdicts: Sequence[str | None]) -> str:
    signs = "".join("·" if one is None else story.SIGNS[one] for one in verdicts)
    words = ", ".join("not run" if one is None else story.OUTCOMES[one].lower() for one in verdicts)
    return (
        f'<span class="marks" aria-hidden="true">{signs}</span>'
        f'<span class="hid">earlier runs, oldest first: {words}</span>'
    )


def by_feature(scenarios: Sequence[Json]) -> dict[str, list[Json]]:
    """Group scenarios by feature, in the order of time."""
    grouped: dict[str, list[Json]] = {}
    for one in scenarios:
        grouped.setdefault(one["feature"], []).append(one)
    return grouped


def longest_span(document: Json) -> str:
    """Return the longest interruption in words, empty where nothing was interrupted."""
    found = story.longest(document)
    return interval(found[1]["lower_s"], found[1]["upper_s"]) if found else ""
