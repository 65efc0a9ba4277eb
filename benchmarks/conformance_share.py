"""How long a conformance run took against the waits that no harness can avoid.

    python benchmarks/conformance_share.py reports/latest/verdict.json

Two kinds of waiting are told apart, each as spans on the scenario's clock that are counted once
where they overlap:

* **Due**: what a sentence or a setting makes everybody wait for. Times that are watched ("for 5
  seconds"). From a fault until writes went through again, as the clients saw it (upper bound: a lease
  that has to run out, 15 s in which PgBouncer remembers a failed login), and the calm that proves that
  an outage is over. Where a path was never interrupted, the whole budget: an outage could still come.
* **The cluster's own**: steps that wait, "within" a budget, for PostgreSQL, Patroni or the operator to
  have done something: elect, rewind, restart server after server, take a configuration in the next
  loop, end a pod, carry out a switchover. A little of the harness is in there: the look that sees it, at most a third of a second after.

Everything else, creation, preparation, proofs of health and clean-up included, is ours to shorten.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytest_pgo_eks.history.recovery import CALM_S, RULE

Span = tuple[float, float]


def covered_s(spans: Iterable[Span]) -> float:
    """Return the seconds that lie in at least one span."""
    total, end = 0.0, float("-inf")
    for begins, ends in sorted(spans):
        total += max(0.0, ends - max(begins, end))
        end = max(end, ends)
    return total


def faults(scenario: dict[str, Any]) -> list[float]:
    """Return when each fault began, by the scenario's clock: its proof came later."""
    return sorted(
        float(one["began_s"])
        - float(one["numbers"].get("inject_s") or 0.0)
        - float(one["numbers"].get("prove_s") or 0.0)
        for one in scenario["faults"]
    )


def due(scenario: dict[str, Any]) -> list[Span]:
    """Return the spans in which a scenario had to wait, whatever the cluster is like."""
    began = faults(scenario)
    ends = max((one["began_s"] + one["took_s"] for one in scenario["steps"]), default=0.0)
    spans = []
    asked = [one["numbers"] for one in scenario["findings"] if one["rule"] == RULE]
    # The clients' clock is another one; equal moments of it are the same fault, in the same order.
    moments = sorted({one.get("since_ns", 0) for one in asked})
    for one in asked:
        place = moments.index(one.get("since_ns", 0))
        at = began[place] if len(began) == len(moments) else began[-1] if began else None
        if "after_s" in one:  # counted from a mark, not from a fault: the step is what waited
            continue
        if at is not None:
            upper_s = float(one.get("upper_s") or 0.0) or float(one.get("budget_s") or 0.0)
            spans.append((at, min(at + upper_s + CALM_S, ends)))
    leases = [f["numbers"] for f in scenario["findings"] if f["rule"] == "another-leads"]
    for step in scenario["steps"]:
        if step["text"].startswith("another instance leads within a lease") and leases:
            lease_s = float(leases.pop(0).get("lease_s") or 0.0)
            spans.append((step["began_s"], step["began_s"] + min(step["took_s"], lease_s)))
    watched = sum(float(one["numbers"].get("for_s") or 0.0) for one in scenario["findings"])
    # Watched while nothing else is waited for: a span of its own, before all others.
    return [*spans, (-1e9, watched - 1e9)]


def own(scenario: dict[str, Any]) -> list[Span]:
    """Return the spans of steps that wait for the cluster to have done something."""
    waiting = [
        (one["began_s"], one["began_s"] + one["took_s"])
        for one in scenario["steps"]
        if (" within " in one["text"] and "acknowledged again" not in one["text"])
        or "after a standby is back" in one["text"]
    ]
    # A fault is told when it is proven: a pod has to end, a switchover to be carried out.
    proving = [
        (one["began_s"] - float(one["numbers"].get("prove_s") or 0.0), one["began_s"])
        for one in scenario["faults"]
    ]
    return waiting + proving


def main(path: Path) -> None:
    """Print the share of the run and of the scenarios in which most of it is ours."""
    verdict = json.loads(path.read_text("utf-8"))
    scenarios = verdict["scenarios"]
    rows = []
    for one in scenarios:
        had_to = covered_s(due(one))
        rows.append((one, had_to, covered_s([*due(one), *own(one)]) - had_to))
    took_s = float(verdict["took_s"])
    due_s, own_s = sum(row[1] for row in rows), sum(row[2] for row in rows)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {len(scenarios)} scenarios")
    print(f"whole run {took_s:.0f} s, inside scenarios {sum(s['took_s'] for s in scenarios):.0f} s")
    print(f"due waits {due_s:.0f} s: the run is {took_s / due_s:.2f} × them")
    both_s = due_s + own_s
    print(f"with the cluster's own {own_s:.0f} s: the run is {took_s / both_s:.2f} × both")
    print("where most of it is ours:")
    for one, had_to, its in sorted(rows, key=lambda row: -(row[0]["took_s"] - row[1] - row[2]))[
        :12
    ]:
        ours_s = one["took_s"] - had_to - its
        print(
            f"{ours_s:7.1f} of {one['took_s']:6.1f} s (due {had_to:5.1f}, the cluster's {its:5.1f})"
            f"  {one['name']}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
