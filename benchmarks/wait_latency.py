"""How soon a wait wakes after the event, and what it costs the API: watch against two polls.

    python benchmarks/wait_latency.py [EVENTS]

All three ways take turns in one run against one server process, which stamps each change with the
monotonic clock that all processes share. The change comes at a random time after the wait began.
"woken" is the first look that accepted; "returned" includes the two looks that confirm it.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pgo_eks.kube import Kube, Wakeup, Watcher, eventually

SERVER = Path(__file__).parent.parent / "tests" / "kube" / "chaos_server.py"
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: u, user: {{token: valid-token}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
"""


@dataclass
class Way:
    """One way to wait, and what it measured."""

    name: str
    look: Callable[[], dict[str, Any] | None]
    poll_s: float | None = None
    wake: Wakeup | None = None
    woken_ms: list[float] = field(default_factory=list)
    returned_ms: list[float] = field(default_factory=list)
    requests: int = 0


def one_wait(way: Way, kube: Kube, changer: Kube, number: int) -> None:
    first: list[float] = []

    def accept(pod: dict[str, Any] | None) -> bool:
        good = pod is not None and pod["spec"].get("number") == number
        if good and not first:
            first.append(time.monotonic())
        return good

    timer = threading.Timer(
        random.uniform(0.05, 1.05),
        changer.patch,
        ("Pod", "a", "ns", {"spec": {"number": number}}),
    )
    timer.start()
    before = kube.requests
    pod = eventually(
        way.look,
        accept=accept,
        within_s=10,
        what="the change",
        wake=way.wake,
        poll_s=way.poll_s,
    )
    returned = time.monotonic()
    timer.join()
    assert pod is not None
    at = pod["metadata"]["changedAt"]
    way.woken_ms.append((first[0] - at) * 1000)
    way.returned_ms.append((returned - at) * 1000)
    way.requests += kube.requests - before


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with subprocess.Popen(
        [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kubeconfig"
            path.write_text(KUBECONFIG.format(port=port))
            measure(path, events)
        server.kill()


def measure(path: Path, events: int) -> None:
    with Kube(path) as kube, Kube(path) as changer, Watcher(kube) as watcher:
        changer.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "a", "namespace": "ns"},
                "spec": {},
            }
        )
        began = kube.requests
        feed = watcher.feed("Pod", "ns")
        feed.objects()
        shared = kube.requests - began
        ways = [
            Way("watch", lambda: feed.get("a"), wake=feed),
            Way("poll 50 ms", lambda: kube.get("Pod", "a", "ns"), poll_s=0.05),
            Way("poll 1 s", lambda: kube.get("Pod", "a", "ns"), poll_s=1.0),
        ]
        for number in range(events):
            for index, way in enumerate(ways):
                one_wait(way, kube, changer, number * len(ways) + index)
    ways[0].requests += shared
    print(
        f"{events} events per way; {os.cpu_count()} CPUs, {platform.machine()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"{'way':<12}{'woken p50':>11}{'p99':>9}{'returned p50':>14}{'p99':>9}{'requests/wait':>15}"
    )
    for way in ways:
        print(
            f"{way.name:<12}{statistics.median(way.woken_ms):>8.1f} ms"
            f"{percentile(way.woken_ms, 0.99):>6.1f} ms"
            f"{statistics.median(way.returned_ms):>11.1f} ms"
            f"{percentile(way.returned_ms, 0.99):>6.1f} ms"
            f"{way.requests / events:>15.2f}"
        )


if __name__ == "__main__":
    main()
