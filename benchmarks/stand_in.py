"""What the stand-in cluster costs: time to start and stop, memory, and processor time when idle.

    python benchmarks/stand_in.py [IDLE_SECONDS]

Starts a cluster of its own, lets the shipped three-instance PostgresCluster come up in it (on the
newest PostgreSQL installed here, with the stand-in's shorter lease), waits for the first backup,
and then leaves it alone for a while. "stand-in" is the supervisor: API server, controllers,
kubelets, network. The operator is a pod of its own; databases are not counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.local.apiclient import ApiClient, Cache
from pytest_pgo_eks.local.objects import JOB, POD, POSTGRES_CLUSTER, Obj
from pytest_pgo_eks.local.preflight import postgres_versions

MANIFEST = Path(__file__).parent.parent / "fixtures" / "postgres" / "cluster.yaml"
INSTANCE = "postgres-operator.crunchydata.com/instance"
ROLE = "postgres-operator.crunchydata.com/role"
READY_S = 180.0
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def local(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "pytest_pgo_eks.local", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return sorted(found)


def busy_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def operator_pid(supervisor: int) -> int:
    """Return the operator's interpreter: below the supervisor, with its module on the command line."""
    waiting = children(supervisor)
    while waiting:
        pid = waiting.pop()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"pytest_pgo_eks.local.operator" in command and b"bwrap" not in command[0]:
            return pid
        waiting += children(pid)
    raise SystemExit("the operator is not there")


def definition() -> Obj:
    manifest: Obj = yaml.safe_load(MANIFEST.read_text())
    manifest["spec"]["postgresVersion"] = postgres_versions()[-1]
    manifest["spec"]["patroni"] |= {"leaderLeaseDurationSeconds": 20, "syncPeriodSeconds": 2}
    return manifest


async def until(client: ApiClient, accept: Any) -> float:
    """Return how long it took until the pods and jobs of the namespace were accepted."""
    began = time.monotonic()
    changed = asyncio.Event()
    caches = [
        Cache(client, kind, "postgres-operator", changed=lambda _type, _obj: changed.set())
        for kind in (POD, JOB)
    ]
    tasks = [asyncio.create_task(cache.run()) for cache in caches]
    try:
        async with asyncio.timeout(READY_S):
            while not accept(*(list(cache.items.values()) for cache in caches)):
                changed.clear()
                await changed.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return time.monotonic() - began


def serving(pods: list[Obj], _jobs: list[Obj]) -> bool:
    ready = [p for p in pods if INSTANCE in p["metadata"]["labels"] and is_ready(p)]
    roles = sorted(p["metadata"]["labels"].get(ROLE, "") for p in ready)
    return roles == ["master", "replica", "replica"]


def is_ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def backed_up(_pods: list[Obj], jobs: list[Obj]) -> bool:
    return any((job.get("status") or {}).get("succeeded") for job in jobs)


async def measure(ready: Obj, config: Obj, idle_s: float) -> None:
    url, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
    state = Path(ready["state_dir"])
    async with ApiClient(url, ca_file=state / "pki" / "ca.crt", token=token) as client:
        await client.create(POSTGRES_CLUSTER, definition())
        print(f"three instances ready        {await until(client, serving):8.2f} s")
        print(f"first backup after that      {await until(client, backed_up):8.2f} s")
    unshare = json.loads((state / "cluster.json").read_text())["pid"]
    (init,) = children(unshare)
    supervisor = children(init)[0]
    operator = operator_pid(supervisor)
    before = {pid: busy_s(pid) for pid in (supervisor, operator)}
    await asyncio.sleep(idle_s)
    for name, pid in (("stand-in", supervisor), ("operator", operator)):
        percent = (busy_s(pid) - before[pid]) / idle_s * 100
        print(f"{name} idle                {percent:8.2f} % of one core")
        print(f"{name} memory              {memory_mib(pid):8.0f} MiB")


def main() -> None:
    idle_s = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(f"{os.cpu_count()} cores, load {load:.1f}, PostgreSQL {postgres_versions()[-1]}")
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_STATE_HOME"] = directory
        began = time.monotonic()
        owner = str(os.getpid())
        out = local("up", "--name", "benchmark", "--owner-pid", owner, "--json")
        print(f"up, with operator            {time.monotonic() - began:8.2f} s")
        try:
            ready = json.loads(out.splitlines()[-1])
            config = yaml.safe_load(Path(ready["kubeconfig"]).read_text())
            asyncio.run(measure(ready, config, idle_s))
        finally:
            began = time.monotonic()
            local("down", "--name", "benchmark")
            print(f"down                         {time.monotonic() - began:8.2f} s")


if __name__ == "__main__":
    main()
