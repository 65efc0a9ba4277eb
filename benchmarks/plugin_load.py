"""What the plugin adds to a pytest run that does not use it. Goal: at most 50 ms.

Runs one trivial test with and without the plugin, in turns, and compares the medians of the CPU time
that the children used: wall time on a shared machine says more about its neighbours.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 15


def cpu_s(place: str, *arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "test_it.py"],
        cwd=place,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with_it: list[float] = []
    without: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        Path(place, "test_it.py").write_text("def test_it(): pass\n", "utf-8")
        cpu_s(place)  # writes what is compiled
        for _ in range(ROUNDS):
            with_it.append(cpu_s(place))
            without.append(cpu_s(place, "-p", "no:pgo_eks"))
    added = statistics.median(with_it) - statistics.median(without)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print(f"without the plugin: median {statistics.median(without) * 1000:.0f} ms CPU")
    print(f"with the plugin:    median {statistics.median(with_it) * 1000:.0f} ms CPU")
    print(
        f"added: {added * 1000:.0f} ms (goal 50), best to best {(min(with_it) - min(without)) * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()
