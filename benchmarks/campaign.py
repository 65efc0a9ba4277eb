"""The mutation campaign: planted anomalies that must be found and named, clean runs without alarm.

    python benchmarks/campaign.py [--mutated 10000] [--clean 1000]

Runs of a simulated PostgreSQL with a failover and every trap of the wait for a standby (writes and
reads), and serial list-append runs (isolation). An anomaly is planted at a random place; it is
found only if every rule that it breaks is violated and names operations, and nothing else is.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from history import lists, simulated

from pytest_pgo_eks.history.isolation import find_anomalies
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.history.matrix import MODES

# A planted anomaly may break a second promise by its nature.
ALSO = {
    "lost": {"writes-are-atomic", "no-counter-steps-back"},
    "overlap": {"no-acknowledged-write-lost"},
    "step back": {"one-primary-at-a-time"},
    "G1b": {"G-single"},
}


def mutated_run(task: tuple[str, int]) -> tuple[str, int, str]:
    """Plant, judge, and return (name, seed, what was wrong)."""
    name, seed = task
    chance = random.Random(seed)
    if name in lists.PLANTS:
        run = lists.serial(seed, length=chance.randrange(10, 60))
        lists.plant(run, name, chance)
        found = find_anomalies(run.history())
        surplus = set(found.counts) - {name} - ALSO.get(name, set())
        if name not in found.counts or not found.examples[name]:
            return name, seed, "missed"
        return name, seed, f"also {sorted(surplus)}" if surplus else ""
    plant, rules = simulated.PLANTS[name]
    model = simulated.simulate(seed, mode="sync", length=chance.randrange(50, 90))
    plant(model, chance)
    broken = {f.rule: f for f in judge(model.history(), "sync") if f.outcome == "violated"}
    if missed := [rule for rule in rules if rule not in broken or not broken[rule].operations]:
        return name, seed, f"missed {missed}"
    surplus = set(broken) - set(rules) - ALSO.get(name, set())
    return name, seed, f"also {sorted(surplus)}" if surplus else ""


def clean_run(seed: int) -> tuple[str, int, str]:
    mode = MODES[seed % len(MODES)]
    if seed % 5 == 4:
        found = find_anomalies(lists.serial(seed).history(), real_time=True)
        return "clean lists", seed, str(found.examples) if found.counts else ""
    findings = judge(simulated.simulate(seed, mode=mode).history(), mode)
    bad = [f.rule for f in findings if f.outcome in {"violated", "unknown"}]
    return f"clean {mode}", seed, str(bad) if bad else ""


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--mutated", type=int, default=10_000)
    options.add_argument("--clean", type=int, default=1_000)
    options.add_argument("--processes", type=int, default=os.cpu_count())
    given = options.parse_args()
    names = [*simulated.PLANTS, *lists.PLANTS]
    tasks = [(names[i % len(names)], i) for i in range(given.mutated)]
    began = time.monotonic()
    with multiprocessing.Pool(given.processes) as pool:
        mutated = pool.map(mutated_run, tasks, chunksize=50)
        clean = pool.map(clean_run, range(given.clean), chunksize=20)
    for title, results in (("mutated", mutated), ("clean", clean)):
        counts = collections.Counter(name for name, _, _ in results)
        wrong = collections.Counter(name for name, _, problem in results if problem)
        print(f"{title}: {len(results)} runs, {sum(wrong.values())} wrong")
        for name, count in counts.items():
            print(f"  {name:<20} {count - wrong[name]:>6} of {count}")
    problems = [r for r in mutated + clean if r[2]]
    for name, seed, problem in problems[:10]:
        print(f"wrong: {name}, seed {seed}: {problem}")
    print(f"{time.monotonic() - began:.0f} s on {given.processes} processes")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
