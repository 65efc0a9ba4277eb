"""A real control plane with the stand-in's nodes, network and operator attached to it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tools.real_kubernetes.binaries import find
from tools.real_kubernetes.control_plane import Broken

_ROOT = Path(__file__).parents[2]
_UP_S, _DOWN_S = 120.0, 30.0
_LOOK_S = 0.1
_STANDIN = (sys.executable, "-m", "pytest_pgo_eks.local")


def up(directory: Path, *, owner_pid: int) -> dict[str, Any]:
    """Start both below ``directory``; return what the stand-in says of itself.

    They end with the process ``owner_pid``, or by :func:`down`.

    :raises NotHere: there is no control plane to be had on this machine.
    :raises Broken: one of them did not come up.
    """
    find()
    directory.mkdir(parents=True, exist_ok=True)
    plane = _control_plane(directory, owner_pid)
    name = f"real-{owner_pid}"
    done = subprocess.run(
        [
            *_STANDIN,
            "up",
            f"--name={name}",
            f"--state-dir={directory / 'standin'}",
            f"--owner-pid={owner_pid}",
            f"--apiserver={plane['url']}",
            f"--kubeconfig={plane['kubeconfig']}",
            f"--egress={plane['egress']}",
            "--json",
        ],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_UP_S,
        check=False,
    )
    if done.returncode:
        os.kill(plane["pid"], signal.SIGTERM)
        raise Broken(done.stderr.strip() or done.stdout.strip())
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "control_plane_pid": plane["pid"]}


def down(found: dict[str, Any]) -> None:
    """End what :func:`up` started."""
    subprocess.run(
        [*_STANDIN, "down", f"--state-dir={found['state_dir']}"],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_DOWN_S,
        check=True,
    )
    watched = os.pidfd_open(found["control_plane_pid"])
    os.kill(found["control_plane_pid"], signal.SIGTERM)
    ends = time.monotonic() + _DOWN_S
    while time.monotonic() < ends:
        # A child of a process that is gone is nobody's to wait for: its pidfd says when it ended.
        if _ended(watched):
            return
    raise Broken(f"process {found['control_plane_pid']} did not end within {_DOWN_S:.0f} s")


def _control_plane(directory: Path, owner_pid: int) -> dict[str, Any]:
    answer, complaint = directory / "plane.json", directory / "plane.err"
    with answer.open("wb") as out, complaint.open("wb") as err:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tools.real_kubernetes",
                "up",
                str(directory / "plane"),
                f"--owner-pid={owner_pid}",
            ],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    ends = time.monotonic() + _UP_S
    while time.monotonic() < ends:
        text = answer.read_text("utf-8")
        if text.endswith("\n"):
            # It outlives us, and Python would complain of a child that nobody waited for.
            pid, process.returncode = process.pid, 0
            return {**json.loads(text), "pid": pid}
        if process.poll() is not None:
            break
        time.sleep(_LOOK_S)
    process.terminate()
    raise Broken(complaint.read_text("utf-8").strip() or "the control plane said nothing")


def _ended(watched: int) -> bool:
    return bool(select.select([watched], [], [], _LOOK_S)[0])
