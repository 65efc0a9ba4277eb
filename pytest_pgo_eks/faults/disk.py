"""A data volume without a free byte, filled by a file beside PostgreSQL's directory."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pytest_pgo_eks.errors import ExecProblem, FaultNotProven, Inconclusive, NotFound
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.faults.processes import Processes
from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.postgres import ServerView, SqlProblem

_MIB = 1024 * 1024
# What may be left: file systems round, and PostgreSQL gives back a little while it works.
_LEFT = _MIB
_UNDO_S = 120.0
_POLL_S = 1.0
# Recycled segments of write-ahead log are used up before a new one is asked of the file system.
_SWITCHES = 80
# A file system of the claim's size may be a little larger: units, and what its maker rounds up to.
_LARGER = 1.5

_FILLER = '"$(dirname "$PGDATA")"/pytest-pgo-eks-filler'
_FREE = "df -Pk \"$PGDATA\" | awk 'END { print $2, $4 }'"
_FILL = f"""
fallocate -l "$(( $(df -Pk "$PGDATA" | awk 'END {{ print $4 }}') ))KiB" {_FILLER} 2>/dev/null
dd if=/dev/zero of={_FILLER} bs=1M oflag=append conv=notrunc 2>/dev/null
dd if=/dev/zero of={_FILLER} bs=4k oflag=append conv=notrunc 2>/dev/null
true
"""
_PRINTED = re.compile(r"^(\d+) (\d+)$", re.MULTILINE)
_NEW_PAGES = (
    "CREATE TEMP TABLE pytest_pgo_eks_full AS "
    "SELECT repeat('x', 7000) AS page FROM generate_series(1, 4000);"
)
_DISK_FULL = "53100"
_SAYS = "No space left on device"


@dataclass(frozen=True)
class Space:
    """A file system: how many bytes it has, how many of them are free for PostgreSQL."""

    size: int
    free: int


def space(processes: Processes) -> Space:
    """Return what the data directory's file system has.

    :raises ExecProblem: nobody can say.
    """
    found = _PRINTED.search(processes.run(_FREE))
    if found is None:
        raise ExecProblem(f"df in {processes.pod} says nothing about the data directory")
    return Space(int(found[1]) * 1024, int(found[2]) * 1024)


def is_own(found: Space, claimed: int) -> bool:
    """Say whether a file system is as small as its claim, so that filling it harms nobody else."""
    return found.size <= claimed * _LARGER


class VolumeFull:
    """The data volume filled to the last byte; proven by df and by the server's own refusal.

    A volume that is larger than its claim belongs to others too (a directory of the node, say),
    and is left alone. Behind the proof, segments of write-ahead log are used up until the server
    needs a new one: that it cannot have, and PostgreSQL ends all sessions over it.
    """

    kind = "volume-full"

    def __init__(
        self, processes: Processes, server: ServerView, claimed: Callable[[], int]
    ) -> None:
        self.target = processes.pod
        self._processes = processes
        self._server = server
        self._claimed = claimed
        self._filled = False
        self._said = ""

    def inject(self) -> None:
        found, claimed = space(self._processes), self._claimed()
        if not is_own(found, claimed):
            raise Inconclusive(
                f"the data volume of {self.target} has {found.size // _MIB} MiB and its claim asked "
                f"for {claimed // _MIB} MiB: filling it would harm others"
            )
        self._filled = True
        self._processes.run(_FILL)
        self._said = self._refusal()
        if self._said:
            self._use_up_log()

    def prove(self) -> Proof:
        found = space(self._processes)
        if not self._said:
            raise FaultNotProven(
                f"{self.target} has {found.free} free bytes left and its server takes new pages"
            )
        if found.free > _LEFT:
            raise FaultNotProven(f"{found.free} bytes are free on the data volume of {self.target}")
        return Proof(
            f"the data volume of {self.target} ({found.size // _MIB} MiB) has {found.free} free "
            f"bytes, and its server said: {self._said}",
            {"size_bytes": found.size, "free_bytes": found.free},
        )

    def undo(self) -> None:
        """Remove the file; its container may be about to be started again."""
        if not self._filled:
            return

        def removed() -> str:
            try:
                self._processes.run(f"rm -f {_FILLER}")
            except (ExecProblem, NotFound) as error:
                return str(error)
            return ""

        eventually(
            removed,
            accept=lambda trouble: not trouble,
            within_s=_UNDO_S,
            what=f"the file that fills the data volume of {self.target} to be removed",
            successes=1,
            poll_s=_POLL_S,
        )

    def _refusal(self) -> str:
        """Return what the server says to a statement that needs new pages, empty if it has them."""
        try:
            self._server.run(_NEW_PAGES)
        except SqlProblem as problem:
            if problem.sqlstate == _DISK_FULL or _SAYS in str(problem):
                return str(problem).strip().splitlines()[0]
            raise
        return ""

    def _use_up_log(self) -> None:
        """Switch segments until the server has none left and breaks off."""
        for _ in range(_SWITCHES):
            try:
                self._server.run(
                    "SELECT pg_logical_emit_message(false, 'pytest-pgo-eks', 'segment');"
                    "SELECT pg_switch_wal();"
                )
            except ExecProblem:
                return
