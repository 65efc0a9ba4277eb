"""How fast a recorded run of a million operations is judged, loaded and drawn.

    python benchmarks/checkers.py [--operations 1000000]

800,000 writes of 8 writers and 200,000 reads of 8 counters, one failover with an outage of four
seconds in the middle, everything read back. "judged" is loss, outage, split brain and staleness
together, the goal being 0.25 s; the goal of the picture is 0.1 s and 200 KiB for 10,000 operations.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pytest_pgo_eks.history.history import OK, READ, SCOUT, WRITE, Column, History, Table
from pytest_pgo_eks.history.outage import every_outage, outages
from pytest_pgo_eks.history.primaries import check_overlap, check_twin_values
from pytest_pgo_eks.history.reads import check_long_fork, check_monotonic, check_staleness
from pytest_pgo_eks.history.timeline import svg
from pytest_pgo_eks.history.writes import check_counters, check_lost, check_present

WRITERS = 8


def generate(operations: int) -> History:
    """Make a clean run as columns."""
    chance = np.random.default_rng(1)
    writes = operations * 8 // 10
    reads = operations - writes
    span_ns = operations * 100_000
    ops: dict[str, Column] = {}
    kind = np.repeat([WRITE, READ], [writes, reads])
    begin = np.concatenate(
        (np.sort(chance.integers(0, span_ns, writes)), np.sort(chance.integers(0, span_ns, reads)))
    )
    half = span_ns // 2
    begin[begin >= half] += 4_000_000_000
    key = np.concatenate((np.arange(writes) % WRITERS, np.full(reads, -1)))
    ops["op"] = np.arange(1, operations + 1)
    ops["invoke"] = begin
    ops["sent"] = begin
    ops["done"] = begin + chance.integers(300_000, 3_000_000, operations)
    ops["kind"] = kind.astype(np.uint8)
    ops["key"] = key.astype(np.int32)
    ops["value"] = np.concatenate((np.arange(writes) // WRITERS + 1, np.full(reads, WRITERS)))
    ops["lsn"] = (0x3000000 + np.arange(operations) * 200).astype(np.uint64)
    after = begin >= half
    ops["timeline"] = np.where(kind == WRITE, 1 + after, 0).astype(np.int32)
    ops["server"] = np.where(kind == WRITE, 1 + after, 3).astype(np.uint16)
    ops["recovery"] = (kind == READ).astype(np.uint8)
    ops["outcome"] = np.full(operations, OK, np.uint8)
    ops["path"] = np.where(kind == WRITE, 1, 2).astype(np.uint8)
    ops["session"] = np.where(np.arange(operations) % 10 == 0, SCOUT, 0).astype(np.uint8)
    ops["session"][kind == READ] = 0
    ops["level"] = np.full(operations, 4, np.uint8)
    ops["client"] = np.where(kind == WRITE, key, 90).astype(np.uint16)
    ops["code"] = np.zeros(operations, np.uint16)
    # A read sees what had been written 5 ms before it began.
    seen = np.searchsorted(ops["done"][:writes], begin[writes:] - 5_000_000)
    cells = {
        "op": np.repeat(ops["op"][writes:], WRITERS),
        "key": np.tile(np.arange(WRITERS, dtype=np.int32), reads),
        "value": ((seen[:, None] - np.arange(WRITERS)) // WRITERS).clip(0).ravel(),
    }
    rows = {name: ops[name][:writes] for name in ("op", "value", "lsn", "timeline", "key")}
    rows = {name: np.append(column, [0] * WRITERS) for name, column in rows.items()}
    rows["key"][-WRITERS:] = np.arange(WRITERS)
    rows["value"][-WRITERS:] = np.bincount(key[:writes], minlength=WRITERS)
    rows["source"] = np.ones(writes + WRITERS, np.uint16)
    event = {"kind": "read-back", "at": 1, "source": 1, "in_recovery": False, "timeline": 2}
    return History(
        ops=Table(ops),
        cells=Table(cells),
        rows=Table(rows),
        events=(event,),
        paths={1: "primary", 2: "replicas"},
        reading_paths=frozenset({2}),
        servers={n: {"name": f"server {n}"} for n in (1, 2, 3)},
    )


def fresh(history: History) -> History:
    """Return the same run without anything that an earlier checker prepared for it."""
    return replace(history, ops=Table(history.ops.columns))


def timed(what: str, call: Callable[[], Any]) -> tuple[float, Any]:
    best, result = 1e9, None
    for _ in range(3):
        began = time.process_time()
        result = call()
        best = min(best, time.process_time() - began)
    print(f"  {what:<34} {best * 1e3:8.1f} ms of one core")
    return best, result


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--operations", type=int, default=1_000_000)
    given = options.parse_args()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}; best of 3"
    )
    history = generate(given.operations)
    print(f"{len(history.ops):,} operations, {len(history.cells):,} cells read:")
    total = 0.0
    for what, call in (
        ("lost writes", lambda: check_lost(history, allowed=False)),
        ("outages, one path", lambda: outages(history, "primary")),
        ("two primaries: overlap", lambda: [check_overlap(history)]),
        ("staleness", lambda: [check_staleness(fresh(history))]),
    ):
        took, found = timed(what, call)
        total += took
        for one in found:
            print(f"    {one if not hasattr(one, 'sentence') else one.sentence}"[:150])
    print(f"  together {total * 1e3:.0f} ms (goal 250 ms for a million)")
    print("beyond the goal's four:")
    timed("counters", lambda: check_counters(history, allowed=False))
    timed("two primaries: twin values", lambda: check_twin_values(history, allowed=False))
    timed("rows: nowhere, twice, failed, torn", lambda: check_present(history))
    timed("monotonic reads", lambda: check_monotonic(history))
    timed("long forks", lambda: check_long_fork(history))
    timed("every outage", lambda: every_outage(history))
    for count in (10_000, 100_000, given.operations):
        small = generate(count)
        found = every_outage(small)
        _, picture = timed(f"picture of {count:,}", functools.partial(svg, small, "x", found))
        print(f"    {len(picture.encode()) / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
