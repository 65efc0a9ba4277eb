"""Faults of a PostgreSQL server: a killed backend, a replica held back, an archive that fails."""

from __future__ import annotations

from pytest_pgo_eks.errors import FaultNotProven, NotFound
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.faults.processes import Process, Processes, ProcessFrozen
from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.postgres import ServerView
from pytest_pgo_eks.postgres.sql import lsn_bytes

_PROVE_S = 30.0
_MIB = 1024 * 1024
# The archiver tries three times, a second apart, before it lets a minute pass.
_ARCHIVE_S = 90.0
_ARCHIVE_POLL_S = 1.0

_BACKEND = (
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
    "AND pid <> pg_backend_pid() ORDER BY usename = 'postgres', backend_start LIMIT 1"
)


class BackendKilled:
    """SIGKILL to one session's server process, an application's where there is one.

    The postmaster cannot know what the process did to shared memory, so it ends every other
    process and starts them anew: proven by another checkpointer under the same postmaster.
    (``pg_terminate_backend`` is an orderly end and would harm nobody else.)
    """

    kind = "backend-killed"

    def __init__(self, processes: Processes, server: ServerView) -> None:
        self.target = f"a backend in {processes.pod}"
        self._processes = processes
        self._server = server
        self._pid = 0
        self._postmaster: Process | None = None
        self._checkpointer: Process | None = None

    def inject(self) -> None:
        self._postmaster = self._processes.find("postmaster")
        self._checkpointer = self._processes.find("checkpointer")
        if self._postmaster is None or self._checkpointer is None:
            raise FaultNotProven(f"PostgreSQL in {self._processes.pod} is not running")
        rows = self._server.query(_BACKEND)
        if not rows:
            raise FaultNotProven(f"{self._processes.pod} has no session whose backend could die")
        self._pid = int(rows[0]["pid"])
        self._processes.run(f"kill -KILL {self._pid}")

    def prove(self) -> Proof:
        before, postmaster = self._checkpointer, self._postmaster
        assert before is not None
        assert postmaster is not None

        def look() -> tuple[Process | None, Process | None]:
            return self._processes.find("postmaster"), self._processes.find("checkpointer")

        def restarted(seen: tuple[Process | None, Process | None]) -> bool:
            return seen[1] is not None and _identity(seen[1]) != _identity(before)

        head, now = eventually(
            look,
            accept=restarted,
            within_s=_PROVE_S,
            what=f"the postmaster in {self._processes.pod} to start its processes anew",
            successes=1,
        )
        assert now is not None
        kept = head is not None and _identity(head) == _identity(postmaster)
        return Proof(
            f"backend {self._pid} in {self._processes.pod} was killed; checkpointer {before.pid} "
            f"gave way to {now.pid} under {'the same' if kept else 'another'} postmaster",
            {"pid": self._pid, "checkpointer": now.pid, "same_postmaster": kept},
        )

    def undo(self) -> None:
        """Nothing to take back: the postmaster has started everything again."""


class ReplicaHeldBack:
    """A replica that receives no WAL any more, and a primary that wrote ``behind_mib`` since.

    Its walreceiver is frozen, so what it lacks is nowhere on it: a replica whose *replay* is
    paused has everything and may well be promoted. Proven by the received position.
    """

    kind = "replica-held-back"

    def __init__(
        self, processes: Processes, replica: ServerView, primary: ServerView, *, behind_mib: int = 4
    ) -> None:
        self.target = processes.pod
        self._receiver = ProcessFrozen(processes, "walreceiver")
        self._replica = replica
        self._primary = primary
        self._behind_mib = behind_mib

    def inject(self) -> None:
        self._receiver.inject()
        self._receiver.prove()
        # Not transactional, so it waits for no standby; it is in the WAL and in no table.
        text = f"repeat('x', {_MIB})"
        self._primary.run(
            f"SELECT count(pg_logical_emit_message(false, 'pytest-pgo-eks', {text})) "  # noqa: S608
            f"FROM generate_series(1, {self._behind_mib});"
        )

    def prove(self) -> Proof:
        behind = eventually(
            self._behind,
            accept=lambda seen: seen >= self._behind_mib * _MIB // 2,
            within_s=_PROVE_S,
            what=f"{self.target} to be {self._behind_mib / 2:g} MiB behind",
            successes=1,
        )
        return Proof(
            f"{self.target} receives nothing (its walreceiver is in state T) and lacks "
            f"{behind / _MIB:.1f} MiB of WAL",
            {"behind_bytes": behind},
        )

    def undo(self) -> None:
        self._receiver.undo()

    def _behind(self) -> int:
        written = lsn_bytes(str(self._primary.value("SELECT pg_current_wal_flush_lsn()")))
        received = lsn_bytes(
            self._replica.value(
                "SELECT coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
            )
        )
        return (written or 0) - (received or 0)


class ReplayPaused:
    """A replica that receives WAL and shows none of it: proven by its own lag in bytes.

    Its startup process is frozen, because ``pg_wal_replay_pause()`` does not last under Patroni:
    since PostgreSQL 14 that resumes a paused replay in each of its loops, in case a parameter of
    the primary had caused the pause.
    """

    kind = "replay-paused"

    def __init__(self, processes: Processes, replica: ServerView) -> None:
        self.target = replica.pod
        self._startup = ProcessFrozen(processes, "startup")
        self._replica = replica

    def inject(self) -> None:
        self._startup.inject()
        self._startup.prove()

    def prove(self) -> Proof:
        behind = eventually(
            lambda: int(
                self._replica.value(
                    "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), "
                    "pg_last_wal_replay_lsn())::bigint AS behind"
                )
                or 0
            ),
            accept=lambda seen: seen > 0,
            within_s=_PROVE_S,
            what=f"{self.target} to fall behind with its replay frozen",
            successes=1,
        )
        sentence = f"replay on {self.target} is frozen, {behind} bytes received are not shown"
        return Proof(sentence, {"behind_bytes": behind})

    def undo(self) -> None:
        """Let replay go on; in a server that was restarted meanwhile it does so anyway."""
        self._startup.undo()


class ArchiveFailing:
    """pgBackRest told to do nothing on the primary, so that no WAL segment can be archived.

    ``pgbackrest stop`` is its own means: every command on that host fails at once until ``start``.
    (A repository host whose server is frozen is restarted by its liveness probe in half a minute,
    and pgBackRest waits for a whole one.) Proven by the primary's own count of failed commands
    after a forced segment switch.
    """

    kind = "archive-failing"

    def __init__(self, processes: Processes, primary: ServerView) -> None:
        self.target = processes.pod
        self._processes = processes
        self._primary = primary
        self._failed = 0

    def inject(self) -> None:
        self._failed = self._count()
        self._processes.run("pgbackrest stop")
        self._primary.run(
            "SELECT pg_logical_emit_message(false, 'pytest-pgo-eks', 'segment');"
            "SELECT pg_switch_wal();"
        )

    def prove(self) -> Proof:
        now = eventually(
            self._count,
            accept=lambda seen: seen > self._failed,
            within_s=_ARCHIVE_S,
            what=f"an archive command of {self._primary.pod} to fail",
            successes=1,
            poll_s=_ARCHIVE_POLL_S,
        )
        return Proof(
            f"pgBackRest on {self.target} is stopped and {now - self._failed} of its archive "
            "commands failed",
            {"failed_before": self._failed, "failed": now},
        )

    def undo(self) -> None:
        """Let pgBackRest run again; in a pod that was replaced it was never stopped."""
        try:
            self._processes.run("pgbackrest start")
        except NotFound:
            return

    def _count(self) -> int:
        return int(self._primary.value("SELECT failed_count FROM pg_stat_archiver"))


def _identity(process: Process) -> tuple[int, int]:
    return process.pid, process.started
