"""How fast and how large the report is: one scenario of 10,000 operations, a run of 500 scenarios.

    python benchmarks/report_page.py [--scenarios 500]

The goals: a scenario with the picture of 10,000 operations in 200 KiB and 0.1 s, picture and page
together; every view of 500 scenarios, forty of them with a picture, in 2 s. Each figure is the best of
five, in seconds of CPU, with the size of what was written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from checkers import generate

from pytest_pgo_eks.history import timeline
from pytest_pgo_eks.report.document import Run, Subject, build
from pytest_pgo_eks.report.page.whole import page
from pytest_pgo_eks.report.views import VIEWS
from pytest_pgo_eks.secrets import masked, register

TIMES = 5
PICTURES = 40


def scenario(number: int, *, disruptive: bool) -> dict[str, Any]:
    """Return a scenario with ten steps and twelve findings, as the shipped ones have."""
    name = f"scenario-{number}"
    numbers = {"lower_s": 1.5, "upper_s": 1.75, "budget_s": 30.0, "path": "the primary Service"}
    rules = ["acknowledged-again-in-time", *(f"rule-{n}" for n in range(11))]
    return {
        "id": f"features/area/feature-{number // 10}.feature::Scenario {number}",
        "feature": f"Feature {number // 10}",
        "rule": "What holds, holds",
        "name": f"Scenario {number}",
        "tags": ["failover", "level-2", "C2"],
        "line": number,
        "level": 2,
        "requirements": ["C2"],
        "verdict": "pass",
        "reason": "",
        "began": datetime(2026, 11, 23, tzinfo=UTC).isoformat(),
        "took_s": 20.0,
        "steps": [
            {"kind": "then", "text": f"step {n}", "began_s": n, "took_s": 1.0, "outcome": "passed"}
            for n in range(10)
        ],
        "faults": [
            {"kind": "pod-deleted", "target": "a", "proof": "gone", "began_s": 2.0, "numbers": {}}
        ]
        * disruptive,
        "findings": [
            {
                "rule": rule,
                "outcome": "holds",
                "sentence": f"{rule} holds for {name}",
                "numbers": numbers,
                "operations": ["op 1, 0.1…0.2 s, scout write through the primary Service, ok"] * 4,
                "evidence": None,
            }
            for rule in rules
        ],
        "attachments": [f"scenarios/{name}/timeline.svg"] * disruptive,
        "folder": f"scenarios/{name}",
        "outages": [],
        "seed": number,
        "replication": "sync",
    }


def document(count: int, pictures: int) -> dict[str, Any]:
    """Return a run of ``count`` scenarios, of which ``pictures`` have one."""
    run = Run(Subject("local", stand_in=True), datetime(2026, 11, 23, tzinfo=UTC), "pytest")
    return build(run, [scenario(n, disruptive=n < pictures) for n in range(count)])


def best(action: Callable[[], object]) -> float:
    """Return the shortest of some times, in seconds of CPU: other programs' turns are not ours."""
    took = []
    for _ in range(TIMES):
        began = time.process_time()
        action()
        took.append(time.process_time() - began)
    return min(took)


def keep(folder: Path, count: int, picture: str) -> None:
    for number in range(count):
        place = folder / "scenarios" / f"scenario-{number}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "timeline.svg").write_text(picture, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenarios", type=int, default=500)
    count = parser.parse_args().scenarios
    for number in range(40):
        register(f"a-password-of-the-cluster-{number}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        history = generate(10_000)
        one = document(1, 1)

        def draw_and_write() -> str:
            keep(folder, 1, timeline.svg(history, "ten thousand operations"))
            return page(one, folder)

        took_s, size = best(draw_and_write), len(draw_and_write().encode())
        print(f"one scenario of 10,000 operations: {took_s:.3f} s, {size / 1024:.0f} KiB")
        keep(folder, PICTURES, timeline.svg(generate(2_000), "two thousand operations"))
        many = document(count, PICTURES)
        whole_s = best(lambda: masked(many))
        print(f"{count} scenarios, secrets hidden: {whole_s:.3f} s")
        for view in VIEWS:
            took_s, size = best(lambda v=view: v.text(many, folder)), len(view.text(many, folder))  # type: ignore[misc]
            whole_s += took_s
            print(f"{count} scenarios, {view.file}: {took_s:.3f} s, {size / 1024:.0f} KiB")
        print(f"{count} scenarios, every view: {whole_s:.3f} s")


if __name__ == "__main__":
    main()
