"""``render``: write every view of a verdict again, from ``verdict.json`` alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pgo_eks.report.reading import load, verdict_file
from pytest_pgo_eks.report.views import write_views

HELP = "write every view (HTML, Markdown, JUnit, CTRF, metrics) again from verdict.json"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "place", metavar="DIR_OR_FILE", type=Path, help="a run's folder, or its verdict.json"
    )
    parser.add_argument(
        "--to", metavar="DIR", type=Path, help="write there instead of beside verdict.json"
    )


def execute(arguments: argparse.Namespace) -> int:
    document = load(arguments.place)
    run_dir = verdict_file(arguments.place).parent
    for path in write_views(document, run_dir, arguments.to or run_dir):
        print(path)
    return 0
