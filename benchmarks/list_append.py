"""How fast a million list-append transactions are checked, and in how much memory.

    python benchmarks/list_append.py [--transactions 1000000] [--shape short|elle] [--real-time]

short: up to 32 appends per key; elle: 1 to 5 operations, 100 live keys, 100 appends per key, as in
Elle's paper. The history is generated as columns by a serial model, each shape in a process of its own so
that its peak memory is its own; a few stale reads are planted and have to be found.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import subprocess
import sys
import time
from array import array
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pytest_pgo_eks.history.history import OK, TXN, Column, History, Table
from pytest_pgo_eks.history.isolation import find_anomalies

SHAPES = {"short": (8, 32, 3), "elle": (100, 100, 5)}
PLANTED = 5


def generate(transactions: int, shape: str) -> tuple[History, int]:
    """Make a serializable history of ten clients, with a few reads that miss the newest elements.

    Returns the history and how many such reads there are; what such a read comes to (G-single,
    G2-item, or nothing but real time) depends on what else its transaction did.
    """
    live, limit, most = SHAPES[shape]
    chance = random.Random(1)
    lists: dict[int, array[int]] = {k: array("q") for k in range(live)}
    keys = list(range(live))
    next_key, value = live, 0
    op, at, key_column, value_column, count, kind = (array(c) for c in "qqiqiB")
    elements = array("q")
    stale = set(range(transactions // 4, transactions, transactions // (4 * PLANTED) * 3))
    planned = len(stale)
    for number in range(1, transactions + 1):
        for step in range(chance.randrange(1, most + 1)):
            place = int(chance.random() * live)
            key = keys[place]
            op.append(number)
            at.append(step)
            key_column.append(key)
            if chance.random() < 0.5:
                value += 1
                lists[key].append(value)
                kind.append(0)
                value_column.append(value)
                count.append(0)
                if len(lists[key]) >= limit:
                    del lists[key]
                    keys[place] = next_key
                    lists[next_key] = array("q")
                    next_key += 1
            else:
                seen = lists[key]
                if stale and number >= min(stale) and len(seen) > 3:
                    seen = seen[:-3]
                    stale.discard(min(stale))
                kind.append(1)
                value_column.append(0)
                count.append(len(seen))
                elements.extend(seen)
    moment = np.arange(1, transactions + 1) * 100_000
    jitter = np.random.default_rng(1)
    ops: dict[str, Column] = {
        "op": np.arange(1, transactions + 1),
        "invoke": moment - jitter.integers(1, 500_000, transactions),
        "done": moment + jitter.integers(1, 500_000, transactions),
        "kind": np.full(transactions, TXN, np.uint8),
        "outcome": np.full(transactions, OK, np.uint8),
    }
    micro: dict[str, Column] = {
        "op": np.frombuffer(op, np.int64),
        "at": np.frombuffer(at, np.int64),
        "key": np.frombuffer(key_column, np.int32),
        "value": np.frombuffer(value_column, np.int64),
        "count": np.frombuffer(count, np.int32),
        "kind": np.frombuffer(kind, np.uint8),
    }
    history = History(
        ops=Table(ops),
        micro=Table(micro),
        elements=Table({"value": np.frombuffer(elements, np.int64)}),
    )
    return history, planned - len(stale)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(transactions: int, shape: str, real_time: bool) -> None:
    history, planted = generate(transactions, shape)
    before = peak_mib()
    began, cpu = time.perf_counter(), time.process_time()
    found = find_anomalies(history, real_time=real_time)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"{shape:>6}{' real time' if real_time else '':10} {transactions:>9,} txns  "
        f"{len(history.elements):>11,} elements  {found.edges:>10,} edges  {took:6.2f} s "
        f"({cpu:.2f} s of one core)  {transactions / took / 1e3:6.0f} k txn/s  peak {peak_mib():6.0f} MiB "
        f"(history itself {before:.0f})  found {found.counts} of {planted} planted"
    )


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--transactions", type=int, default=1_000_000)
    options.add_argument("--shape", choices=SHAPES)
    options.add_argument("--real-time", action="store_true")
    given = options.parse_args()
    if given.shape:
        measure(given.transactions, given.shape, given.real_time)
        return 0
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, one process, one core"
    )
    for shape in SHAPES:
        for extra in ((), ("--real-time",)):
            command = [sys.executable, __file__, "--transactions", str(given.transactions)]
            subprocess.run([*command, "--shape", shape, *extra], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
