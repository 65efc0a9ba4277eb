"""The two commands that are called often: they import next to nothing, so they start in 20 ms."""

from __future__ import annotations

import os
import socket
import sys
import time

_STEP_S = 0.05


def control(directory: str, command: str) -> int:
    """Pass one line to the agent's socket and print its answer.

    A refusal is an answer like any other: the status is 0. It is 1 when nobody listens.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(f"{directory}/control")
        except OSError as error:
            print(f"no probe runs in {directory}: {error}", file=sys.stderr)
            return 1
        sock.sendall(command.encode())
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
    sys.stdout.write(answer.decode())
    return 0


def follow(directory: str, offset: int) -> int:
    """Copy the stream from byte ``offset`` to standard output until the agent is gone.

    Ends with status 0 when the stream has ended well or its writer is dead: the reader tells the
    two apart by the last line.
    """
    with open(f"{directory}/pid", encoding="ascii") as file:  # noqa: PTH123 -- pathlib is slow to import
        pid = int(file.read())
    stream = os.open(f"{directory}/stream.jsonl", os.O_RDONLY)
    os.lseek(stream, offset, os.SEEK_SET)
    seen = 0.0
    while True:
        alive = runs(pid)
        if time.monotonic() - seen >= 1.0:
            seen = time.monotonic()
            os.utime(f"{directory}/pid")  # somebody listens: the agent stops when nobody does
        while chunk := os.read(stream, 1 << 16):
            while chunk:
                chunk = chunk[os.write(1, chunk) :]
        if not alive:
            return 0
        time.sleep(_STEP_S)


def runs(pid: int) -> bool:
    """Tell whether ``pid`` runs; a zombie (a pod's PID 1 may never reap) does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            stat = file.read()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def main(argv: list[str]) -> int | None:
    """Run a light command; None if ``argv`` is none."""
    match argv:
        case ["ctl", directory]:
            return control(directory, sys.stdin.readline())
        case ["follow", directory, offset]:
            return follow(directory, int(offset))
    return None
