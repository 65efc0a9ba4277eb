"""``python -m tools.real_kubernetes build | up DIRECTORY``.

``up`` prints one line of JSON (url, kubeconfig, egress) when the API server is ready and serves until
its standard input ends or it is interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from pathlib import Path

from tools.real_kubernetes.binaries import NotHere, build, cache, find
from tools.real_kubernetes.control_plane import Broken, running


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.real_kubernetes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help=f"build into {cache()}")
    up = commands.add_parser("up", help="run a control plane")
    up.add_argument("directory", type=Path)
    options = parser.parse_args()
    try:
        if options.command == "build":
            print(build(cache()))
            return 0
        return _up(options.directory.absolute())
    except (NotHere, Broken) as problem:
        print(problem, file=sys.stderr)
        return 1


def _up(directory: Path) -> int:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with running(directory, find(), directory / "volumes") as plane:
        answer = {
            "url": plane.url,
            "kubeconfig": str(plane.kubeconfig),
            "egress": str(plane.egress),
        }
        print(json.dumps(answer), flush=True)

        def read() -> None:
            with contextlib.suppress(OSError):
                sys.stdin.read()
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
