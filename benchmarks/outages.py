"""How well the probe measures outages whose truth is known, beside two clients of the usual kind.

A TCP proxy in front of a real PostgreSQL injects outages of random length: connections refused, or
a black hole that accepts and swallows. The same outages are seen by the probe (scouts every 10 ms
beside paced workers), by a client that polls every second with a new connection, and by one that
retries every 500 ms from its first error (and, having no time-out, hangs in a black hole).

    python benchmarks/outages.py [--count 100] [--tls] [--every SECONDS]

With TLS a new session costs both sides a key exchange: on two cores, a hundred of them a second leave
nothing for anything else. Scouts then start every 50 ms, as they do in scenarios.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "probe"))

import local_postgres
from shell_here import Local
from wire_proxy import Mode, Proxy, proxy

from pytest_pgo_eks.history.history import PACED, SCOUT, History
from pytest_pgo_eks.history.outage import Outage, outages
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login, PathSpec
from pytest_pgo_eks.secrets import Secret

_EVERY_S = 0.01
_TLS_EVERY_S = 0.05


class Poller:
    """A new connection and an insert every ``every_s``; its outages are gaps between successes."""

    def __init__(self, dsn: str, every_s: float, connect_timeout: int | None) -> None:
        self.acks: list[int] = []
        self._dsn = dsn + (f" connect_timeout={connect_timeout}" if connect_timeout else "")
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    connection.execute("SELECT 1")
                self.acks.append(time.monotonic_ns())
            except psycopg.Error:
                continue

    def stop(self) -> None:
        self._stop.set()

    def measured(self, began: int, ended: int) -> float | None:
        """Return the gap around an outage, in seconds, or None if it saw nothing of it."""
        before = [a for a in self.acks if a <= began]
        after = [a for a in self.acks if a > ended]
        if not before or not after:
            return None
        return (after[0] - before[-1]) / 1e9


class Retrier:
    """Holds a session, writes, and from its first error on reconnects every 500 ms."""

    def __init__(self, dsn: str) -> None:
        self.outages: list[tuple[int, int]] = []
        self._dsn = dsn
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        failed: int | None = None
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    if failed is not None:
                        self.outages.append((failed, time.monotonic_ns()))
                        failed = None
                    while not self._stop.wait(0.01):
                        connection.execute("SELECT 1")
            except psycopg.Error:
                failed = failed or time.monotonic_ns()
                self._stop.wait(0.5)

    def stop(self) -> None:
        self._stop.set()

    def measured(self, began: int, ended: int) -> float | None:
        for first, last in self.outages:
            if first >= began - 5_000_000 and first <= ended:
                return (last - first) / 1e9
        return None


def inject(running: Proxy, mode: Mode, count: int, seed: int) -> None:
    pause, chance = threading.Event(), random.Random(seed)
    pause.wait(1.5)
    for number in range(count):
        running.outage(mode, chance.uniform(0.4, 1.4), pause)
        pause.wait(chance.uniform(0.8, 1.3))
        print(f"\r  {mode}: {number + 1} of {count}", end="", file=sys.stderr)
    print(file=sys.stderr)
    pause.wait(1.0)


def matched(found: list[Outage], began: int, ended: int) -> Outage | None:
    """Return the measured outage that shares most time with the injected one.

    Not the first that touches it: on a busy machine a silence of its own may end as another begins.
    """

    def shared(one: Outage) -> int:
        return min(one.ended[1], ended) - max(one.began[0], began)

    best = max(found, key=shared, default=None)
    return best if best is not None and shared(best) > 0 else None


def line(who: str, errors: list[float], missed: int, note: str = "") -> None:
    if not errors:
        print(f"  {who:<34} never reported ({missed} missed)")
        return
    spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
    print(
        f"  {who:<34} mean {statistics.mean(errors) * 1e3:+8.1f} ms  |mean| "
        f"{statistics.mean(map(abs, errors)) * 1e3:7.1f}  sd {spread * 1e3:6.1f}  "
        f"min {min(errors) * 1e3:+8.1f}  max {max(errors) * 1e3:+8.1f}  n {len(errors)}"
        f"  missed {missed}{note}"
    )


def encrypt(server: local_postgres.Server) -> None:
    """Let the server speak TLS, with a key as operators make them (ECDSA, P-256)."""
    key, certificate = server.data / "server.key", server.data / "server.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    server.own()
    server.sql("ALTER SYSTEM SET ssl = on")
    server.reload()


def measure(
    mode: Mode, count: int, every_s: float, *, tls: bool, server: local_postgres.Server
) -> bool:
    login = Login.at(
        "127.0.0.1", 0, user="app", database="app", password=Secret("app-secret"), tls="disable"
    )
    direct = replace(login, hosts=(("127.0.0.1", server.port),))
    with tempfile.TemporaryDirectory() as directory, proxy(server.port) as running:
        home = Path(directory)
        agent = Installed(Local(), "here", "this", python=sys.executable, home=str(home / "pod"))
        agent.install()
        agent.prepare(direct, counters=16)
        through = replace(
            login, hosts=(("127.0.0.1", running.port),), tls="require" if tls else "disable"
        )
        dsn = f"host=127.0.0.1 port={running.port} user=open dbname=app"
        paths = [PathSpec("proxy", through, workers=4, deadline_s=0.5, scout_every_s=every_s)]
        with agent.start(paths, home / "h.jsonl.gz") as probe:
            # Nothing can be measured through a path that never worked.
            probe.wait_for_ack("proxy", probe.mark("begin"), 10.0)
            poller, retrier = Poller(dsn, 1.0, 2), Retrier(dsn)
            inject(running, mode, count, seed=count)
            poller.stop()
            retrier.stop()
            told = probe.status()
        agent.close()
        history = History.load(home / "h.jsonl.gz")
    print(
        f"{mode}, {'TLS and ' if tls else ''}SCRAM, a scout every {every_s * 1e3:g} ms, {len(history.ops)} operations recorded, "
        f"scouts skipped {told['skipped_scouts']}"
    )
    ok = True
    for name, session in (("probe, new sessions", SCOUT), ("probe, paced workers", PACED)):
        found = outages(history, "proxy", session=session)
        errors, upper, widths, missed, outside = [], [], [], 0, 0
        for began, ended in running.outages:
            outage = matched(found, began, ended)
            if outage is None:
                missed += 1
                continue
            truth = (ended - began) / 1e9
            errors.append(outage.estimate_s - truth)
            upper.append(outage.upper_s - truth)
            widths.append(outage.upper_s - outage.lower_s)
            outside += not outage.lower_s - 1e-3 <= truth <= outage.upper_s + 1e-3
        line(name, errors, missed, f"  truth outside the interval: {outside}")
        line("  its upper bound", upper, missed)
        print(
            f"    width of the interval: mean {statistics.mean(widths) * 1e3:.1f} ms, "
            f"max {max(widths) * 1e3:.1f} ms; outages beside the injected: "
            f"{len(found) - (len(running.outages) - missed)}"
        )
        ok &= not outside and not missed
        if session == SCOUT:
            ok &= statistics.mean(map(abs, errors)) <= 0.020 and max(map(abs, errors)) <= 0.050
    for name, other in (("poll every second", poller), ("retry every 500 ms", retrier)):
        seen = [(other.measured(b, e), (e - b) / 1e9) for b, e in running.outages]
        errors = [got - truth for got, truth in seen if got is not None]
        line(name, errors, sum(got is None for got, _ in seen))
    return ok


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--tls", action="store_true")
    options.add_argument("--every", type=float, help="seconds between scouts (0.01, TLS: 0.05)")
    options.add_argument("--modes", nargs="+", default=["refuse", "blackhole"])
    given = options.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    found = local_postgres.binaries()
    if found is None:
        print("no PostgreSQL server programs on this machine")
        return 2
    good = True
    every_s = given.every or (_TLS_EVERY_S if given.tls else _EVERY_S)
    with local_postgres.server(found) as server:
        if given.tls:
            encrypt(server)
        for mode in given.modes:
            good &= measure(mode, given.count, every_s, tls=given.tls, server=server)
    print("goals (mean 20 ms, max 50 ms, truth always inside):", "met" if good else "MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
