"""From a StatefulSet's creation to its pod on a node, and what the controllers cost when idle.

    python benchmarks/pod_binding.py [SETS]

API server and controllers run in one event loop, as in the stand-in; a second client creates
StatefulSets one after the other and sees on a watch when each pod is bound. Sets without and with a
claim (whose volume is made in between) take turns. The round trip of one write on the same
connection is taken too: a binding costs four of them, with a claim nine.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from local_controllers.conftest import Bed, running_bed
from local_controllers.test_scheduler import claim_template, stateful_set

from pytest_pgo_eks.local.objects import CONFIG_MAP, POD, STATEFUL_SET

IDLE_S = 10.0


async def measure(bed: Bed, sets: int, prefix: str) -> dict[str, list[float]]:
    """Return milliseconds by kind of set, and of one plain write."""
    bound: dict[str, asyncio.Event] = {}
    listed = await bed.client.list(POD)

    async def follow() -> None:
        version = listed.resource_version
        async for event in bed.client.watch(POD, resource_version=version):
            if event.object["spec"].get("nodeName"):
                bound.setdefault(event.object["metadata"]["name"], asyncio.Event()).set()

    watching = asyncio.create_task(follow())
    found: dict[str, list[float]] = {"one write": [], "plain": [], "with a claim": []}
    for number in range(sets):
        begun = time.perf_counter()
        await bed.create(CONFIG_MAP, {"metadata": {"name": f"{prefix}{number}"}})
        found["one write"].append((time.perf_counter() - begun) * 1000)
        for kind, more in (("plain", {}), ("with a claim", {"c": claim_template()})):
            name = f"{prefix}-{kind[0]}{number}"
            made = stateful_set(name, volumeClaimTemplates=list(more.values()))
            waiting = bound.setdefault(f"{name}-0", asyncio.Event())
            begun = time.perf_counter()
            await bed.create(STATEFUL_SET, made)
            async with asyncio.timeout(30):
                await waiting.wait()
            found[kind].append((time.perf_counter() - begun) * 1000)
    watching.cancel()
    return found


async def main(sets: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        async with running_bed(Path(root)) as bed:
            await bed.nodes()
            await measure(bed, 3, "warm")
            found = await measure(bed, sets, "set")
            await asyncio.sleep(1)
            begun = time.process_time()
            await asyncio.sleep(IDLE_S)
            idle = (time.process_time() - begun) / IDLE_S
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, ", end="")
    print(f"Python {platform.python_version()}, {sets} sets of each kind")
    unit = statistics.median(found["one write"])
    for kind, times in found.items():
        median = statistics.median(times)
        worst = max(times)
        print(
            f"{kind:13} median {median:6.1f} ms, worst {worst:6.1f} ms, {median / unit:4.1f} writes"
        )
    print(f"idle, API server and controllers: {idle:.2%} of one core (goal 5 % for everything)")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 30))
