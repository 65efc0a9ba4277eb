"""How long a conformance run took against the waits that no harness can avoid.

    python benchmarks/conformance_share.py reports/latest/verdict.json

Unavoidable are: what the cluster itself needed until writes went through again after a fault (upper
bound, as clients saw it), the calm that proves that an outage is over, and times a sentence asks to
be watched (“for 5 seconds”). Everything else, creation and clean-up included, is ours to shorten.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from pytest_pgo_eks.scenario.clients import CALM_S


def unavoidable_s(scenario: dict[str, Any]) -> float:
    """Return the seconds of one scenario that had to pass."""
    findings = scenario["findings"]
    again = [
        float(finding["numbers"].get("upper_s") or 0.0)
        for finding in findings
        if finding["rule"] == "acknowledged-again-in-time"
    ]
    watched = sum(float(finding["numbers"].get("for_s") or 0.0) for finding in findings)
    return watched + (max(again) + CALM_S if again else 0.0)


def main(path: Path) -> None:
    """Print the share of the run and of its slowest scenarios."""
    verdict = json.loads(path.read_text("utf-8"))
    scenarios = verdict["scenarios"]
    waits = sum(map(unavoidable_s, scenarios))
    inside = sum(float(scenario["took_s"]) for scenario in scenarios)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {len(scenarios)} scenarios")
    print(f"whole run {verdict['took_s']:.0f} s, inside scenarios {inside:.0f} s")
    print(f"unavoidable waits {waits:.0f} s: the run is {verdict['took_s'] / waits:.2f} × them")
    for scenario in sorted(scenarios, key=lambda one: -one["took_s"])[:10]:
        print(
            f"{scenario['took_s']:7.1f} s, waits {unavoidable_s(scenario):6.1f} s  {scenario['name']}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
