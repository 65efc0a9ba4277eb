"""``python -m pytest_pgo_eks.history FILE``: judge and draw a recorded history again, offline."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TypeVar

from pytest_pgo_eks.errors import BrokenHistory
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.history.history import History
from pytest_pgo_eks.history.judge import judge, measure
from pytest_pgo_eks.history.matrix import LEVELS, MODES
from pytest_pgo_eks.history.outage import every_outage
from pytest_pgo_eks.history.phases import explain
from pytest_pgo_eks.history.timeline import facts, svg

T = TypeVar("T")
_SHOWN = 12
_SIGNS = {"holds": "✓", "violated": "✗", "expected": "·", "unknown": "?"}


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 nothing violated, 1 a violation, 2 not judged, 4 bad input (one line)."""
    parser = argparse.ArgumentParser(
        prog="python -m pytest_pgo_eks.history",
        description="Judge a recorded history again and draw its timeline.",
    )
    parser.add_argument("file", type=Path, help="a history (*.jsonl.gz) from a report directory")
    parser.add_argument("--mode", choices=MODES, help="replication mode (default: as recorded)")
    parser.add_argument("--level", choices=LEVELS, help="synchronous_commit (default: as recorded)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the timeline here")
    parser.add_argument("--json", action="store_true", help="print facts and findings as JSON")
    given = parser.parse_args(argv)
    try:
        history = History.load(given.file)
        mode = given.mode or _recorded(history, "mode", MODES, "async")
        level = given.level or _recorded(history, "level", LEVELS, "on")
        found = every_outage(history)
        longest = sorted(found, key=lambda o: -o.lower_s)[:3]
        findings = [*judge(history, mode, level), *measure(history)]
        findings += [explain(history, outage) for outage in longest if outage.lower_s > 0]
        if given.svg:
            given.svg.write_text(svg(history, given.file.name, found), encoding="utf-8")
    except (BrokenHistory, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    if given.json:
        told = {"mode": mode, "level": level, **facts(history, found)}
        told["findings"] = [_document(f) for f in findings]
        json.dump(told, sys.stdout, indent=1, ensure_ascii=False)
        print()
    else:
        print(f"{history.run}: {len(history.ops)} operations, judged as {mode}, {level}")
        shown = sorted(found, key=lambda o: -o.upper_s)[:_SHOWN]
        for outage in shown:
            what = "reads" if outage.reads else "writes"
            print(
                f"  {outage.path}, {outage.session}: no {what} for {outage.lower_s:.3f} to "
                f"{outage.upper_s:.3f} s{'' if outage.over else ', not over'}"
            )
        if len(found) > len(shown):
            print(f"  … and {len(found) - len(shown)} shorter interruptions")
        for finding in findings:
            print(f"{_SIGNS[finding.outcome]} {finding}")
    if any(f.outcome == "violated" for f in findings):
        return 1
    return 2 if any(f.outcome == "unknown" for f in findings) else 0


def _recorded(history: History, name: str, known: tuple[T, ...], default: T) -> T:
    told = history.settings.get(name, default)
    if told not in known:
        raise BrokenHistory(f"{history.source}: recorded under an unknown {name}: {told!r}")
    return told  # type: ignore[no-any-return]


def _document(finding: Finding) -> dict[str, object]:
    return {
        "rule": finding.rule,
        "outcome": finding.outcome,
        "sentence": finding.sentence,
        "numbers": dict(finding.numbers),
        "operations": list(finding.operations),
    }


def run() -> int:
    """Run from the command line; a reader that has seen enough (``| head``) is no error."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


if __name__ == "__main__":
    sys.exit(run())
