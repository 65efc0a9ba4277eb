"""``merge``: the runs of a matrix as one report."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.merging import FILE, markdown, merged, page
from pytest_pgo_eks.report.store import kept_at
from pytest_pgo_eks.report.verdict import exit_status
from pytest_pgo_eks.report.views import written

HELP = "merge the runs of a matrix; status 0 pass, 1 violation, 6 inconclusive or too few runs"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "places", nargs="+", metavar="DIR", help="folders with runs or bundles, at any depth"
    )
    parser.add_argument(
        "--to", type=Path, default=Path(), metavar="DIR", help="where matrix.{html,md,json} go"
    )
    parser.add_argument(
        "--expect", type=int, metavar="N", help="how many runs there have to be: fewer cannot pass"
    )


def execute(arguments: argparse.Namespace) -> int:
    if arguments.expect is not None and arguments.expect < 1:
        raise UsageProblem("--expect: at least 1")
    found = [kept_at(place) for place in arguments.places]
    unread = [line for one in found for line in one.unread]
    by_name = {(run["run"], run["began"]): run for one in found for run in one.runs}
    runs = [by_name[key] for key in sorted(by_name, key=lambda key: (key[1], key[0]))]
    if not runs and arguments.expect is None:
        raise UsageProblem(f"{arguments.places[0]}: there is no run here")
    document = merged(runs, arguments.expect, unread)
    told = markdown(document)
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    print(written(arguments.to / FILE, text))
    print(written(arguments.to / "matrix.md", told))
    print(written(arguments.to / "matrix.html", page(document)))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(told)
    for line in unread:
        print(f"note: not read: {line}")
    print(f"{document['verdict']}: {len(runs)} runs over {len(document['cells'])} combinations")
    if document["missing"]:
        print(f"{document['missing']} of the {document['expected']} expected runs left no verdict")
    if document["disclaimer"]:
        print(document["disclaimer"])
    return exit_status(document["verdict"])
