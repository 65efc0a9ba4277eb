"""``diff``: what changed between two runs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from pytest_pgo_eks.report.bundle.verifying import document_of
from pytest_pgo_eks.report.comparing import differences
from pytest_pgo_eks.report.text import line
from pytest_pgo_eks.secrets import filtered, masked

HELP = "what changed between two runs: versions, manifest, settings, verdicts, figures"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, metavar="RUN_A", help="a bundle or a run's folder")
    parser.add_argument("after", type=Path, metavar="RUN_B", help="the one to compare with it")
    parser.add_argument("--json", action="store_true", help="print the differences as JSON")


def execute(arguments: argparse.Namespace) -> int:
    before, after = document_of(arguments.before), document_of(arguments.after)
    found = list(differences(before, after))
    if arguments.json:
        told = {
            "before": {"run": before["run"], "verdict": before["verdict"]},
            "after": {"run": after["run"], "verdict": after["verdict"]},
            "differences": [asdict(one) for one in found],
        }
        print(json.dumps(masked(told), indent=1, ensure_ascii=False))
        return 0
    for run in (before, after):
        print(filtered(line(f"{run['run']}: {run['verdict']}, {run['began']}")))
    about = ""
    for one in found:
        if one.about != about:
            about = one.about
            print(f"{about}:")
        print(f"  {filtered(line(str(one)))}")
    if not found:
        print("nothing differs")
    return 0
