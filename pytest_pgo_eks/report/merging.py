"""Runs over a matrix of versions as one answer: PGO × PostgreSQL by Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from pytest_pgo_eks import __version__
from pytest_pgo_eks.report.page.parts import Cell, badge, esc, section, table
from pytest_pgo_eks.report.page.style import POLICY, STYLE
from pytest_pgo_eks.report.text import line
from pytest_pgo_eks.report.verdict import disclaimer
from pytest_pgo_eks.secrets import masked

SCHEMA = "pytest-pgo-eks/matrix/1"
FILE = "matrix.json"
Run = Mapping[str, Any]
Json = dict[str, Any]
_RANK = ("pass", "inconclusive", "violation")
_SIGNS = {"pass": "✅", "violation": "❌", "inconclusive": "❔"}


def merged(runs: Sequence[Run], expected: int | None = None, unread: Sequence[str] = ()) -> Json:
    """Return the runs as one document; fewer runs than ``expected``, or one unread, cannot pass.

    A job that died before its verdict leaves no file, and what is not there is easily overlooked.
    """
    missing = max((expected or 0) - len(runs), 0)
    verdict = max((run["verdict"] for run in runs), key=_RANK.index, default="inconclusive")
    if (missing or unread) and verdict == "pass":
        verdict = "inconclusive"
    cells: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        cells.setdefault(_place(run), []).append(run)
    document: Json = masked(
        {
            "schema": SCHEMA,
            "suite": {"name": "pytest-pgo-eks", "version": __version__},
            "verdict": verdict,
            "expected": expected,
            "missing": missing,
            "unread": list(unread),
            "disclaimer": disclaimer(stand_in=any(run["subject"]["stand_in"] for run in runs)),
            "cells": [_cell(place, mine) for place, mine in sorted(cells.items())],
            "scenarios": list(_scenarios(runs)),
        }
    )
    return document


def _place(run: Run) -> tuple[str, str, str]:
    subject = run["subject"]
    kubernetes = re.match(r"v?(\d+\.\d+)", str(subject["kubernetes"] or ""))
    postgres = re.match(r"\d+(\.\d+)?", str(subject["postgresql"] or ""))
    return (
        str(subject["pgo"] or "unknown"),
        postgres[0] if postgres else "unknown",
        f"{kubernetes[1] if kubernetes else 'unknown'} on {subject['provider']}",
    )


def _cell(place: tuple[str, str, str], runs: Sequence[Run]) -> Json:
    return {
        "pgo": place[0],
        "postgresql": place[1],
        "kubernetes": place[2],
        "verdict": max((run["verdict"] for run in runs), key=_RANK.index),
        "counts": {
            name: sum(run["counts"][name] for run in runs)
            for name in ("pass", "violation", "inconclusive", "skipped")
        },
        "runs": [run["run"] for run in runs],
    }


def _scenarios(runs: Sequence[Run]) -> Iterator[Json]:
    """Yield scenarios that did not pass everywhere, each with what it was where."""
    seen: dict[tuple[str, str], list[Json]] = {}
    for run in runs:
        for one in run["scenarios"]:
            pgo, postgresql, kubernetes = _place(run)
            place = {"pgo": pgo, "postgresql": postgresql, "kubernetes": kubernetes}
            told = {**place, "run": run["run"], "verdict": one["verdict"], "reason": one["reason"]}
            seen.setdefault((one["feature"], one["name"]), []).append(told)
    for (feature, name), outcomes in seen.items():
        if any(one["verdict"] in ("violation", "inconclusive") for one in outcomes):
            yield {"feature": feature, "name": name, "outcomes": outcomes}


def markdown(document: Json) -> str:
    """Return the matrix for a job's summary."""
    columns = sorted({cell["kubernetes"] for cell in document["cells"]})
    lines = [f"## {_SIGNS[document['verdict']]} Matrix: {document['verdict']}", ""]
    if document["missing"]:
        lines += [f"**{_missing(document)}**", ""]
    lines += [f"**not read: {_md(one)}**\n" for one in document["unread"]]
    lines.append("| PGO | PostgreSQL | " + " | ".join(map(_md, columns)) + " |")
    lines.append("|---" * (2 + len(columns)) + "|")
    for (pgo, postgresql), cells in _rows(document).items():
        told = [_md_cell(cells[one]) if one in cells else "–" for one in columns]
        lines.append(f"| {_md(pgo)} | {_md(postgresql)} | " + " | ".join(told) + " |")
    if document["scenarios"]:
        lines += ["", "| Scenario | where | what | why |", "|---|---|---|---|"]
        lines += [
            f"| {_md(one['feature'])} – {_md(one['name'])} | {_md(_where(told))} | "
            f"{told['verdict']} | {_md(line(told['reason'], 160))} |"
            for one, told in _broken(document)
        ]
    if document["disclaimer"]:
        lines += ["", f"> {document['disclaimer']}"]
    return "\n".join(lines) + "\n"


def _md_cell(cell: Json) -> str:
    counts = cell["counts"]
    return f"{_SIGNS[cell['verdict']]} {counts['pass']} of {sum(counts.values())}"


def _md(text: str) -> str:
    """Escape for one cell of a Markdown table: no HTML, no link, no new cell."""
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", escape(line(text), quote=False))


def page(document: Json) -> str:
    """Return the matrix as a page in the style of the reports."""
    return "".join(_page(document))


def _page(document: Json) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>Matrix: {esc(document['verdict'])}</title><style>{STYLE}</style></head>\n<body>"
    runs = sum(len(cell["runs"]) for cell in document["cells"])
    yield f'<header class="band {document["verdict"]}"><h1>{esc(document["verdict"].title())}</h1>'
    yield f'<p class="say">{runs} runs over {len(document["cells"])} combinations</p>'
    if document["missing"]:
        yield f'<p class="what">{esc(_missing(document))}</p>'
    for one in document["unread"]:
        yield f'<p class="what">{esc(f"not read: {one}")}</p>'
    if document["disclaimer"]:
        yield f'<p class="stand-in">{esc(document["disclaimer"])}</p>'
    yield '</header>\n<main id="main">'
    columns = sorted({cell["kubernetes"] for cell in document["cells"]})
    rows = [
        [Cell(esc(f"PGO {pgo}, PostgreSQL {postgresql}"))]
        + [Cell(_html_cell(cells.get(one))) for one in columns]
        for (pgo, postgresql), cells in _rows(document).items()
    ]
    heads = ["Judged", *(f"Kubernetes {one}" for one in columns)]
    yield from section("matrix", "Combinations", "", [table("Combinations", heads, rows)])
    troubles = [
        [
            Cell(esc(f"{one['feature']} – {one['name']}")),
            Cell(esc(_where(told))),
            Cell(badge(told["verdict"])),
            Cell(esc(line(told["reason"]))),
        ]
        for one, told in _broken(document)
    ]
    heads = ["Scenario", "Where", "Outcome", "Why"]
    yield from section("broke", "What broke, and where", "", [table("Broken", heads, troubles)])
    yield f"</main>\n<footer><p>pytest-pgo-eks {esc(__version__)}</p></footer></body></html>\n"


def _html_cell(cell: Json | None) -> str:
    if cell is None:
        return "–"
    counts = cell["counts"]
    told = f"{counts['pass']} of {sum(counts.values())} passed"
    return f"{badge(cell['verdict'])} {told}<br><small>{esc(', '.join(cell['runs']))}</small>"


def _rows(document: Json) -> dict[tuple[str, str], dict[str, Json]]:
    found: dict[tuple[str, str], dict[str, Json]] = {}
    for cell in document["cells"]:
        found.setdefault((cell["pgo"], cell["postgresql"]), {})[cell["kubernetes"]] = cell
    return found


def _broken(document: Json) -> list[tuple[Json, Json]]:
    """Return scenarios with what they were in one place, violations first."""
    found = [
        (one, told)
        for one in document["scenarios"]
        for told in one["outcomes"]
        if told["verdict"] in ("violation", "inconclusive")
    ]
    return sorted(found, key=lambda pair: -_RANK.index(pair[1]["verdict"]))


def _where(told: Json) -> str:
    return f"PGO {told['pgo']}, PostgreSQL {told['postgresql']}, Kubernetes {told['kubernetes']}"


def _missing(document: Json) -> str:
    return f"{document['missing']} of the {document['expected']} expected runs left no verdict"
