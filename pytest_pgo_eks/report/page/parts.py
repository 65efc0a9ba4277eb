"""The page's smallest parts. Everything that goes into HTML goes through :func:`esc` here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePosixPath
from urllib.parse import quote

from pytest_pgo_eks.report.links import safe_url
from pytest_pgo_eks.report.story import OUTCOMES, SIGNS
from pytest_pgo_eks.report.text import plain

MOST_ROWS = 1500
"""Of a table; beyond that nobody reads on, and a phone would not open the page."""
# As the findings have them, in the outcomes' colours.
FINDINGS = {
    "holds": ("pass", "holds"),
    "violated": ("violation", "violated"),
    "unknown": ("inconclusive", "not decided"),
    "expected": ("skipped", "expected"),
}


def esc(text: object) -> str:
    """Return ``text`` for an element or an attribute in double quotes."""
    return escape(plain(str(text)), quote=True)


def badge(outcome: str, word: str = "") -> str:
    """Return an outcome as a coloured word with its sign."""
    kind = outcome if outcome in SIGNS else "skipped"
    sign = f"{SIGNS[outcome]} " if outcome in SIGNS else ""
    return f'<span class="badge {kind}">{sign}{esc(word or OUTCOMES.get(outcome, outcome))}</span>'


def finding_badge(outcome: str) -> str:
    """Return a finding's outcome as a coloured word."""
    kind, word = FINDINGS.get(outcome, ("skipped", outcome))
    return badge(kind, word)


def link(href: str, text: str) -> str:
    """Return a link to a place on this page."""
    return f'<a href="#{esc(href)}">{esc(text)}</a>'


def file_link(path: str, text: str | None = None) -> str:
    """Return a link to a file beside the page; the bare name where the path leads elsewhere."""
    shown = esc(text or PurePosixPath(path).name)
    parts = PurePosixPath(path).parts
    # A scheme, a root or a way up would lead out of the run's folder.
    if not parts or path.startswith("/") or ".." in parts or ":" in parts[0] or "\\" in path:
        return shown
    return f'<a href="{esc(quote(plain(path)))}">{shown}</a>'


def url_link(url: str | None, text: str) -> str:
    """Return a link into the web, or only its text where that would be no plain web page."""
    safe = safe_url(url)
    if safe is None:
        return esc(text)
    return f'<a href="{esc(safe)}" rel="noreferrer noopener">{esc(text)}</a>'


def section(name: str, title: str, lead: str, content: Iterable[str]) -> Iterator[str]:
    """Yield a section with its heading; nothing at all where it has no content."""
    inner = "".join(content)
    if not inner:
        return
    yield f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{esc(title)}</h2>'
    if lead:
        yield f'<p class="lead">{esc(lead)}</p>'
    yield inner
    yield "</section>\n"


@dataclass(frozen=True)
class Cell:
    """One cell of a table; ``html`` is ready, ``kind`` its classes."""

    html: str
    kind: str = ""


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    numbers: Iterable[int] = (),
) -> str:
    """Return a table whose rows become cards on a phone; the first cell of a row is its heading.

    ``numbers`` are columns that are aligned right. Empty without rows.
    """
    right = set(numbers)
    every = list(rows)
    body = [_row(heads, cells, right) for cells in every[:MOST_ROWS]]
    if not body:
        return ""
    more = len(every) - len(body)
    note = f'<p class="lead">… and {more:,} more in verdict.json.</p>' if more else ""
    head = "".join(
        f'<th scope="col"{_kind("n" if i in right else "")}>{esc(name)}</th>'
        for i, name in enumerate(heads)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{esc(caption)}">'
        f'<table class="wide"><caption class="hid">{esc(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{note}"
    )


def _row(heads: Sequence[str], cells: Sequence[Cell], right: set[int]) -> str:
    first, *others = cells
    parts = [f'<tr><th scope="row"{_kind(first.kind)}>{first.html}</th>']
    for number, cell in enumerate(others, start=1):
        kind = " ".join(filter(None, ["n" if number in right else "", cell.kind]))
        parts.append(f'<td{_kind(kind)} data-label="{esc(heads[number])}">{cell.html}</td>')
    return "".join(parts) + "</tr>"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def facts(pairs: Mapping[str, str]) -> str:
    """Return a list of names and values (which are HTML already), without those that are empty."""
    inner = "".join(
        f"<dt>{esc(name)}</dt><dd>{value}</dd>" for name, value in pairs.items() if value
    )
    return f'<dl class="facts">{inner}</dl>' if inner else ""
