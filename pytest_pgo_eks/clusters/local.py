"""The stand-in cluster on this machine, started as a program of its own."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry, Swept, note_intent
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.progress import Phase, Progress
from pytest_pgo_eks.settings import Settings

PROGRAM = (sys.executable, "-m", "pytest_pgo_eks.local")
_UP_S = 120.0
_DOWN_S = 60.0
_LOOK_S = 20.0
_USAGE = 4


class LocalProvider:
    """Runs ``python -m pytest_pgo_eks.local`` and believes only what it prints as JSON."""

    name = "local"
    never: Mapping[str, str] = {
        "real-pgo": "--cluster=local runs a stand-in of the operator",
        "real-kubernetes": "--cluster=local runs a stand-in of Kubernetes",
        "real-eks": "--cluster=local runs on this machine",
    }

    def preflight(self, settings: Settings) -> None:
        if not sys.platform.startswith("linux"):
            raise UsageProblem(
                "--cluster=local needs Linux (its pods are Linux namespaces); "
                "use --cluster=kind, k3s, kubeconfig or eks here"
            )
        command = [*PROGRAM, "preflight"]
        if settings.postgres_version is not None:
            command += ["--postgres-version", str(settings.postgres_version)]
        done = _run(command, _LOOK_S)
        if done.returncode:
            raise UsageProblem(_complaint(done))

    def create(self, settings: Settings, progress: Progress, ledger: Path) -> ClusterHandle:
        owner = LedgerEntry.read(ledger).owner_pid
        name = f"run-{owner}-{secrets.token_hex(2)}"
        place = _place(settings, name)
        note_intent(ledger, name=name, remove=_removal(name), state_dir=place)
        command = [*PROGRAM, "up", "--name", name, "--json"]
        if place:
            command += ["--state-dir", str(place)]
        if not settings.keep:
            command += ["--owner-pid", str(owner)]
        if settings.postgres_version is not None:
            command += ["--postgres-version", str(settings.postgres_version)]
        if settings.install.source not in (None, "installed"):
            command.append("--no-operator")
        with progress.phase("stand-in cluster comes up", expected_s=4) as phase:
            return _handle(_up(command, phase), settings)

    def adopt(self, settings: Settings, progress: Progress) -> ClusterHandle:
        with progress.phase(f"looking for stand-in cluster {settings.reuse}"):
            rows = {row["name"]: row for row in _status()}
        row = rows.get(settings.reuse or "")
        if row is None or row["state"] != "running":
            running = [name for name, each in rows.items() if each["state"] == "running"]
            raise UsageProblem(
                f"--pgo-reuse: no stand-in cluster {settings.reuse!r} is running; "
                f"running are: {', '.join(running) or 'none'}"
            )
        ready = json.loads((Path(row["state_dir"]) / "ready.json").read_text("utf-8"))
        return _handle(ready, settings)

    def destroy(self, handle: ClusterHandle, progress: Progress) -> None:
        with progress.phase("stand-in cluster goes away", expected_s=2):
            done = _run(shlex.split(_removal(handle.name)), _DOWN_S)
        if done.returncode:
            raise ClusterProblem(_complaint(done))

    def sweep(self, entry: LedgerEntry, progress: Progress) -> Swept:
        # A cluster with an owner removes itself when that one dies, so mostly nothing is left.
        if entry.name not in {row["name"] for row in _status()}:
            return "absent"
        with progress.phase(f"removing stand-in cluster {entry.name}"):
            done = _run(shlex.split(entry.remove), _DOWN_S)
        return "left" if done.returncode else "removed"


def _place(settings: Settings, name: str) -> Path | None:
    return settings.state_dir.absolute() / "local" / name if settings.state_dir else None


def _removal(name: str) -> str:
    return shlex.join([*PROGRAM, "down", "--name", name])


def _status() -> list[dict[str, Any]]:
    done = _run([*PROGRAM, "status", "--json"], _LOOK_S)
    if done.returncode:
        raise ClusterProblem(_complaint(done))
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def _handle(found: Mapping[str, Any], settings: Settings) -> ClusterHandle:
    kubeconfig = Path(found["kubeconfig"])
    name, namespace = str(found["name"]), settings.namespace
    kubectl = f"kubectl --kubeconfig {shlex.quote(str(kubeconfig))} -n {namespace}"
    primary = "postgres-operator.crunchydata.com/role=master"
    return ClusterHandle(
        name=name,
        provider="local",
        kubeconfig=kubeconfig,
        capabilities=frozenset(found["capabilities"]),
        kubernetes_version=found.get("kubernetes_version"),
        operator_version=found.get("operator_version"),
        state_dir=Path(found["state_dir"]),
        hints=(
            f"{kubectl} get pods,services,postgresclusters",
            f"{kubectl} exec -it -c database $({kubectl} get pod -l {primary} -o name) -- psql",
            _removal(name),
        ),
        stand_in=True,
    )


def _up(command: list[str], phase: Phase) -> Mapping[str, Any]:
    """Run ``up`` and return its JSON line; what it says before is shown as the phase's detail."""
    result: Mapping[str, Any] | None = None
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        with _child(command, complaints) as process:
            assert process.stdout is not None
            for line in map(str.strip, process.stdout):
                if line.startswith("{"):
                    result = json.loads(line)
                elif line:
                    phase.say(line)
            status = process.wait(_DOWN_S)
        complaints.seek(0)
        complaint = complaints.read().strip() or f"it ended with status {status} and no word"
    if status == _USAGE:
        raise UsageProblem(complaint.splitlines()[0])
    if status or result is None:
        raise ClusterProblem(complaint)
    return result


@contextmanager
def _child(command: list[str], complaints: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """Start ``command``; end it when the block ends or time is up.

    It gets a session of its own: Ctrl-C in the terminal reaches pytest, which ends it in order.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        start_new_session=True,
    ) as process:
        alarm = threading.Timer(_UP_S, process.terminate)
        alarm.start()
        try:
            yield process
        finally:
            alarm.cancel()
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _run(command: list[str], within_s: float) -> subprocess.CompletedProcess[str]:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            said, complained = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            raise ClusterProblem(f"{shlex.join(command)} did not end in {within_s:.0f} s") from None
        finally:
            # After Ctrl-C ``subprocess.run`` waits a quarter of a second for what it killed, which
            # on a busy machine leaves a process behind and a warning instead of the run's summary.
            if process.poll() is None:
                process.kill()
                process.wait()
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line in which the program says what is wrong."""
    lines = [line for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    if not lines:
        return f"{shlex.join(done.args)} failed with status {done.returncode} and said nothing"
    return lines[0].strip()
