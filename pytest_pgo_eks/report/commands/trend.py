"""``trend``: how figures went over many runs, since when they are otherwise, and who flickers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.store import kept_at
from pytest_pgo_eks.report.text import line
from pytest_pgo_eks.report.trend import document, page
from pytest_pgo_eks.report.trend.changes import CONFIDENCE
from pytest_pgo_eks.report.views import written
from pytest_pgo_eks.secrets import filtered

HELP = "series, changes and flicker over earlier runs, as a page and as JSON"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "place", metavar="PLACE", help="earlier runs: a folder or s3://bucket/prefix"
    )
    parser.add_argument(
        "--to", type=Path, default=Path(), metavar="DIR", help="where trend.html and trend.json go"
    )
    parser.add_argument(
        "--newest", type=int, default=200, metavar="N", help="only so many runs (200)"
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=CONFIDENCE,
        help="of a change that is told (0.95)",
    )


def execute(arguments: argparse.Namespace) -> int:
    if not 0.5 <= arguments.confidence < 1:
        raise UsageProblem("--confidence: between 0.5 and 1, e.g. 0.95")
    if arguments.newest < 1:
        raise UsageProblem("--newest: at least 1")
    kept = kept_at(arguments.place, newest=arguments.newest)
    if not kept.runs:
        told = f": {kept.unread[0]}" if kept.unread else ""
        raise UsageProblem(f"{arguments.place}: there is no run here{told}")
    found = document.trend(kept.runs, kept.unread, arguments.confidence)
    text = json.dumps(document.as_json(found), indent=1, ensure_ascii=False) + "\n"
    print(written(arguments.to / page.FILE, page.page(found)))
    print(written(arguments.to / document.FILE, text))
    for one in found.series:
        if change := found.changes.get(one.key):
            word = "worse" if change.worse else "better"
            told = (
                f"{word}: {one.feature} – {one.scenario}: {one.name} {change.before:.4g} → "
                f"{change.after:.4g} since {change.since} (confidence {change.confidence:.2%})"
            )
            print(filtered(line(told)))
    for unread in kept.unread:
        print(f"note: not read: {line(unread)}")
    if found.disclaimer:
        print(found.disclaimer)
    return 0
