"""``gate``: compare what ran with what a policy requires."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, date, datetime
from pathlib import Path

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.bundle.verifying import document_of, verify
from pytest_pgo_eks.report.gate.catalogue import scenarios_below
from pytest_pgo_eks.report.gate.deciding import decide
from pytest_pgo_eks.report.gate.decision import FILE, lines
from pytest_pgo_eks.report.gate.policy import load
from pytest_pgo_eks.report.store import kept_at
from pytest_pgo_eks.report.views import written
from pytest_pgo_eks.secrets import filtered

HELP = "say whether runs meet a policy: status 0 met, 1 violation, 6 inconclusive, 7 not met"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="bundles or folders of runs: the repeats"
    )
    parser.add_argument(
        "--policy", required=True, metavar="FILE", help="a policy, or smoke, nightly, release"
    )
    parser.add_argument(
        "--baseline", metavar="PLACE", help="earlier runs: a folder or s3://bucket/prefix"
    )
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="feature files of your own that the policy may name",
    )
    parser.add_argument(
        "--today", type=_day, metavar="DATE", help="judge expiry as of this day (YYYY-MM-DD)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"where {FILE} goes")
    parser.add_argument("--json", action="store_true", help="print gate.json instead of sentences")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="judge the raw histories of folders again, too, as is always done with bundles",
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: YYYY-MM-DD") from None


def execute(arguments: argparse.Namespace) -> int:
    policy = load(arguments.policy)
    for place in arguments.features:
        if not place.exists():
            raise UsageProblem(f"--features: there is no {place}")
    unverified = [
        f"{place.name}: its verdict does not follow from its evidence: {wrong[0]}"
        for place in arguments.runs
        if (place.is_file() or arguments.verify) and (wrong := verify(place).wrong)
    ]
    runs = [document_of(place) for place in arguments.runs]
    told = [(run["run"], run["began"]) for run in runs]
    if twice := [one for one in told if told.count(one) > 1]:
        raise UsageProblem(f"run {twice[0][0]} is given twice; a repeat is another run")
    baseline = arguments.baseline or policy.baseline
    earlier = kept_at(baseline) if baseline else None
    decision = decide(
        policy,
        runs,
        today=arguments.today or datetime.now(UTC).date(),
        earlier=earlier.runs if earlier else None,
        known=list(scenarios_below(arguments.features)),
        unverified=unverified,
    )
    text = json.dumps(decision, indent=1, ensure_ascii=False) + "\n"
    if to := arguments.output or _beside(arguments.runs):
        written(to, text)
    for line in earlier.unread if earlier else ():
        print(f"note: not read: {line}")
    if arguments.json:
        print(text, end="")
    else:
        for line in lines(decision):
            print(filtered(line))
    return int(decision["exit_status"])


def _beside(runs: list[Path]) -> Path | None:
    """Return where the decision goes by itself: into the folder of a single run."""
    return runs[0] / FILE if len(runs) == 1 and runs[0].is_dir() else None
