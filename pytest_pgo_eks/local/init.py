"""The first process of a cluster's pid namespace: starts the supervisor and buries the dead.

Orphans of the whole cluster come to process 1, and only it may wait for them without taking other
people's children away. When the supervisor ends, process 1 ends, and with it the kernel ends
everything in the namespace, however it was started. It imports next to nothing: it stays at a few
MiB for the cluster's whole life.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    supervisor = os.fork()
    if supervisor == 0:
        from pytest_pgo_eks.local import supervisor as program

        return program.main(sys.argv[1])

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(supervisor, number)

    # Process 1 gets only the signals that it handles.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    while True:
        ended, status = os.wait()
        if ended == supervisor:
            return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(main())
