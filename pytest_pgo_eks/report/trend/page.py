"""The trend as a page: what changed first, then every series. No script, nothing loaded."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from statistics import median

from pytest_pgo_eks import __version__
from pytest_pgo_eks.report.page.parts import Cell, badge, esc, section, table
from pytest_pgo_eks.report.page.style import STYLE as COMMON
from pytest_pgo_eks.report.trend import flicker
from pytest_pgo_eks.report.trend.changes import LEAST
from pytest_pgo_eks.report.trend.document import Trend
from pytest_pgo_eks.report.trend.series import Record, Series
from pytest_pgo_eks.report.trend.sparkline import STYLE as SPARK
from pytest_pgo_eks.report.trend.sparkline import sparkline

FILE = "trend.html"
_STYLE = COMMON + SPARK
POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'"
)
_UNITS = {"rto_s": " s", "lost_writes": "", "staleness_s": " s", "duration_s": " s"}
_SECTIONS = (
    ("rto_s", "Interruptions", "From the fault to writes going on, per path; the truth lies in the stroke."),
    ("lost_writes", "Lost writes", "Acknowledged and gone; expected under asynchronous replication."),
    ("staleness_s", "Stale reads", "The oldest read of a replica."),
    ("duration_s", "Durations", "Of the whole scenario."),
)  # fmt: skip


def page(found: Trend) -> str:
    """Return the page."""
    return "".join([*_head(found), *_band(found), "<main id=main>", *_body(found), *_foot()])


def _head(found: Trend) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield '<meta name="robots" content="noindex"><meta name="referrer" content="no-referrer">'
    yield f"<title>Trend of {len(found.runs)} runs</title><style>{_STYLE}</style></head>\n<body>"


def _band(found: Trend) -> Iterator[str]:
    worse = [one for one in found.changes.values() if one.worse]
    kind, headline = "pass", "Nothing became worse"
    if worse:
        kind = "violation"
        headline = f"{len(worse)} figure{'s' * (len(worse) != 1)} became worse"
    elif not any(len(one.points) >= LEAST for one in found.series):
        kind, headline = "inconclusive", "Too few runs to say"
    yield f'<header class="band {kind}"><h1>{esc(headline)}</h1>'
    if found.runs:
        first, last = found.runs[0]["began"][:10], found.runs[-1]["began"][:10]
        yield f'<p class="say">{len(found.runs)} runs from {esc(first)} to {esc(last)}</p>'
    yield f'<p class="what">{esc(found.method)}</p>'
    if found.disclaimer:
        yield f'<p class="stand-in">{esc(found.disclaimer)}</p>'
    yield "</header>\n"


def _body(found: Trend) -> Iterator[str]:
    yield from section("changes", "What changed", "", [_changes(found)])
    yield from section(
        "flicker",
        "What flickers",
        "Passed and violated on the same versions: the product. Inconclusive: the infrastructure. "
        "Behind each rate the interval that holds the true one with 95 %.",
        [_flicker(found.records)],
    )
    for measure, title, lead in _SECTIONS:
        chosen = [one for one in found.series if one.measure == measure]
        yield from section(measure, title, lead, [_series(chosen, found)])
    if found.unread:
        lines = "".join(f"<li>{esc(line)}</li>" for line in found.unread)
        yield from section("unread", "Not read", "", [f'<ul class="plain">{lines}</ul>'])


def _changes(found: Trend) -> str:
    rows = []
    ordered = sorted(
        (one for one in found.series if one.key in found.changes),
        key=lambda one: (not found.changes[one.key].worse, -found.changes[one.key].confidence),
    )
    for one in ordered:
        change, unit = found.changes[one.key], _UNITS[one.measure]
        word = badge("violation", "worse") if change.worse else badge("pass", "better")
        rows.append(
            (
                Cell(_name(one)),
                Cell(word),
                Cell(f"{change.before:.4g} → {change.after:.4g}{unit}"),
                Cell(esc(change.since)),
                Cell(esc("; ".join(change.together_with) or "nothing that the runs tell")),
                Cell(f"{min(change.confidence, 0.9999):.2%}"),
                Cell(sparkline(one.points, unit, change)),
            )
        )
    heads = ("Figure", "Now", "Median", "Since run", "Changed with it", "Confidence", "Runs")
    return table("Figures whose level changed", heads, rows, numbers=(2, 5))


def _flicker(records: Sequence[Record]) -> str:
    rows = []
    for one in records:
        product, infrastructure = flicker.product(one), flicker.infrastructure(one)
        if not (product.hits or infrastructure.hits or flicker.broken(one)):
            continue
        word = badge("violation", "broken") if flicker.broken(one) else ""
        rows.append(
            (
                Cell(f"{esc(one.feature)} – {esc(one.scenario)} {word}"),
                Cell(esc(one.lane)),
                Cell(_rate(product)),
                Cell(_rate(infrastructure)),
                Cell(f'<span class="marks">{_marks(one)}</span>'),
            )
        )
    heads = ("Scenario", "Where", "Product", "Infrastructure", "Newest last")
    return table("Scenarios that flicker", heads, rows, numbers=(2, 3))


def _rate(rate: flicker.Rate) -> str:
    lower, upper = rate.interval
    return f"{rate.hits} of {rate.of} ({lower:.0%} to {upper:.0%})" if rate.hits else "–"


def _marks(record: Record) -> str:
    signs = {"pass": "✓", "violation": "✗", "inconclusive": "?", "skipped": "–"}
    return "".join(signs[verdict] for _, verdict, _ in record.verdicts[-30:])


def _series(chosen: Sequence[Series], found: Trend) -> str:
    rows = []
    for one in sorted(chosen, key=lambda one: (one.feature, one.scenario, one.name)):
        unit, values = _UNITS[one.measure], [point.middle for point in one.points]
        rows.append(
            (
                Cell(_name(one)),
                Cell(esc(one.lane)),
                Cell(str(len(values))),
                Cell(f"{median(values):.3g}{unit}"),
                Cell(f"{values[-1]:.3g}{unit}"),
                Cell(sparkline(one.points, unit, found.changes.get(one.key))),
            )
        )
    heads = ("Figure", "Where", "Runs", "Median", "Newest", "Over time")
    return table(f"Series of {chosen[0].measure}" if chosen else "", heads, rows, numbers=(2, 3, 4))


def _name(one: Series) -> str:
    path = one.name.partition(", ")[2]
    told = f" <small>{esc(path)}</small>" if path else ""
    return f"{esc(one.feature)} – {esc(one.scenario)}{told}"


def _foot() -> Iterator[str]:
    yield f"</main>\n<footer><p>pytest-pgo-eks {esc(__version__)} · the same as JSON: "
    yield "<code>trend.json</code></p></footer></body></html>\n"
