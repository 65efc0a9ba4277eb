"""``python -m tools.real_kubernetes build | up DIRECTORY [--owner-pid PID]``.

``up`` prints one line of JSON (url, kubeconfig, egress) when the API server is ready and serves until
it is interrupted or ``PID`` ends.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path

from tools.real_kubernetes.binaries import NotHere, build, cache, find
from tools.real_kubernetes.control_plane import Broken, running

_LOOK_S = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.real_kubernetes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help=f"build into {cache()}")
    up = commands.add_parser("up", help="run a control plane")
    up.add_argument("directory", type=Path)
    up.add_argument("--owner-pid", type=int, help="end when this process ends")
    options = parser.parse_args()
    try:
        if options.command == "build":
            print(build(cache()))
            return 0
        return _up(options.directory.absolute(), options.owner_pid)
    except (NotHere, Broken) as problem:
        print(problem, file=sys.stderr)
        return 1


def _up(directory: Path, owner: int | None) -> int:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    watched = os.pidfd_open(owner) if owner else None
    with running(directory, find(), directory / "volumes") as plane:
        answer = {
            "url": plane.url,
            "kubeconfig": str(plane.kubeconfig),
            "egress": str(plane.egress),
        }
        print(json.dumps(answer), flush=True)
        if watched is None:
            ended.wait()
        else:
            while not ended.is_set() and not select.select([watched], [], [], _LOOK_S)[0]:
                pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
