"""Identity-tagged acknowledgements per second, and what they cost, beside pgbench in the same run.

    python benchmarks/acknowledgements.py [--seconds 3] [--rounds 3]

The probe's write is an UPDATE and an INSERT in one statement and returns value, LSN, timeline and the
server's identity; pgbench runs prepared, 8 connections, first a plain insert, then the probe's own statement.
Rounds take turns; medians are told. fsync is on, as in production.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "probe"))

import local_postgres
from shell_here import Local

from pytest_pgo_eks.history.history import OK, WRITE, History
from pytest_pgo_eks.probe.agent import workload
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login, PathSpec
from pytest_pgo_eks.secrets import Secret

_TICKS = os.sysconf("SC_CLK_TCK")


def pgbench(server: local_postgres.Server, script: Path, connections: int, seconds: int) -> float:
    command = ["pgbench", "-n", "-M", "prepared", "-c", str(connections), "-j", "1"]
    command += ["-T", str(seconds), "-f", str(script), "-h", "127.0.0.1"]
    command += ["-p", str(server.port), "-U", "open", "app"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"tps = ([\d.]+)", out)
    assert found is not None, out
    return float(found.group(1))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def probe(agent: Installed, path: PathSpec, file: Path, seconds: int) -> tuple[float, float]:
    """Return acknowledgements per second and the share of one core that the probe used."""
    pause = threading.Event()
    with agent.start([path], file) as running:
        pid = int((Path(running.directory) / "pid").read_text())
        running.wait_for_ack(path.name, running.mark("begin"), 10)
        before, begin = cpu_s(pid), running.mark("measure")
        pause.wait(seconds)
        after, end = cpu_s(pid), running.mark("measured")
    history = History.load(file)
    ops = history.ops
    counted = (ops.kind == WRITE) & (ops.outcome == OK) & (ops.done >= begin) & (ops.done < end)
    assert np.all(ops.server[counted] > 0)
    span_s = (end - begin) / 1e9
    return float(counted.sum()) / span_s, (after - before) / span_s


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--where", default="/var/tmp", help="a real disk, for a real fsync")
    given = options.parse_args()
    found = local_postgres.binaries()
    if found is None:
        print("no PostgreSQL server programs on this machine")
        return 2
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    with (
        tempfile.TemporaryDirectory() as directory,
        local_postgres.server(found, Path(given.where)) as server,
    ):
        home = Path(directory)
        server.sql("ALTER SYSTEM SET fsync = on")
        server.reload()
        login = Login.at(
            "127.0.0.1",
            server.port,
            user="app",
            database="app",
            password=Secret("app-secret"),
            tls="disable",
        )
        agent = Installed(Local(), "here", "this", python=sys.executable, home=str(home / "pod"))
        agent.install()
        agent.prepare(login, counters=64)
        plain, same = home / "plain.sql", home / "same.sql"
        plain.write_text("INSERT INTO pgo_probe.log VALUES (1, 1, 1, '0/0', '');\n")
        text = workload.COUNT.replace("$1", ":client_id").replace("$2", "1")
        same.write_text(" ".join(text.split()) + ";\n")
        results: dict[str, list[float]] = {}
        for _ in range(given.rounds):
            for name, script in (("pgbench, one insert", plain), ("pgbench, same statement", same)):
                results.setdefault(name, []).append(pgbench(server, script, 8, given.seconds))
            fast = PathSpec("primary", login, workers=8, pace_s=0.0)
            rate, cpu = probe(agent, fast, home / "h.gz", given.seconds)
            results.setdefault("probe, as fast as it can", []).append(rate)
            results.setdefault("  of one core", []).append(cpu)
            paced = PathSpec("primary", login, workers=8, pace_s=0.008)
            rate, cpu = probe(agent, paced, home / "h.gz", given.seconds)
            results.setdefault("probe, paced", []).append(rate)
            results.setdefault("  of one core, paced", []).append(cpu)
        agent.close()
    medians = {name: statistics.median(values) for name, values in results.items()}
    for name, value in medians.items():
        print(f"  {name:<28} {value:10.2f}" + ("" if "core" in name else " acknowledgements/s"))
    insert, equal = medians["pgbench, one insert"], medians["pgbench, same statement"]
    fast_rate = medians["probe, as fast as it can"]
    print(f"  probe against pgbench's single insert: {fast_rate / insert:.2f} (goal 0.65)")
    print(f"  probe against pgbench with the same statement: {fast_rate / equal:.2f}")
    per_thousand = medians["  of one core, paced"] / medians["probe, paced"] * 1000
    print(f"  paced: {per_thousand:.3f} of one core for 1,000/s (goal 0.1)")
    print(json.dumps({name: round(value, 3) for name, value in medians.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
