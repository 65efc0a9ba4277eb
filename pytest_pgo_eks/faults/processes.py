"""Faults of processes inside an instance: signals to Patroni, the postmaster and its children.

Everything goes through exec into the ``database`` container, which needs nothing but bash and
``/proc``. PGO's instance pods share one process namespace, so the processes of all containers are
in sight; the postmaster and Patroni are found by what they are, never by a remembered pid.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pytest_pgo_eks.errors import ExecProblem, FaultNotProven, NotFound, WaitTimeout
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.wait import eventually

CONTAINER = "database"
_PROVE_S = 15.0
_UNDO_S = 30.0
_MISSING = 3
_KILLED = 137

# Prints "pid state start-time" of the process that $1 names, nothing if there is none. Start time
# is field 22 of stat, counted behind the command's closing bracket because a name may hold spaces.
_FIND = r"""
find_one() {
    case $1 in
    postmaster) candidate=$(head -n 1 "$PGDATA/postmaster.pid" 2>/dev/null) ;;
    patroni)
        for entry in /proc/[0-9]*; do
            line=$(tr '\0' ' ' 2>/dev/null <"$entry/cmdline") || continue
            case $line in *patroni\ /etc/patroni*)
                case $line in *bash*|sh\ *) ;; *) candidate=${entry#/proc/}; break ;; esac ;;
            esac
        done ;;
    main)
        # Its parent is outside the pod, it shares our mounts (so it is of our container), and it
        # was there before this shell: pids of one namespace do not tell, start times do.
        here=$(readlink /proc/self/ns/mnt)
        oldest=
        for entry in /proc/[0-9]*; do
            [ "$(readlink "$entry/ns/mnt" 2>/dev/null)" = "$here" ] || continue
            stat=$(cat "$entry/stat" 2>/dev/null) || continue
            rest=${stat##*) }
            set -- $rest
            [ "$2" = 0 ] || continue
            [ -n "$oldest" ] && [ "${20}" -ge "$oldest" ] && continue
            oldest=${20} candidate=${entry#/proc/}
        done ;;
    *)
        for entry in /proc/[0-9]*; do
            line=$(tr '\0' ' ' 2>/dev/null <"$entry/cmdline") || continue
            case $line in postgres:*"$1"*) candidate=${entry#/proc/}; break ;; esac
        done ;;
    esac
    [ -n "${candidate:-}" ] && [ -r "/proc/$candidate/stat" ] || return 0
    stat=$(cat "/proc/$candidate/stat" 2>/dev/null) || return 0
    rest=${stat##*) }
    set -- $rest
    echo "$candidate $1 ${20}"
}
"""
_PRINTED = re.compile(r"^(\d+) (\S) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Process:
    """A process in an instance's pod: pid there, state letter, start in ticks since boot."""

    pid: int
    state: str
    started: int


class Processes:
    """The processes of one pod, seen and signalled through one of its containers."""

    def __init__(self, kube: Kube, namespace: str, pod: str, *, container: str = CONTAINER) -> None:
        self.pod = pod
        self.container = container
        self._kube = kube
        self._namespace = namespace

    def find(self, name: str) -> Process | None:
        """Return the ``postmaster``, ``patroni``, or the first server process with that title.

        ``main`` is the container's own main process.
        """
        found = _PRINTED.search(self._bash(f"{_FIND}\nfind_one {name}"))
        return Process(int(found[1]), found[2], int(found[3])) if found else None

    def signal(self, name: str, number: str) -> Process:
        """Send a signal and return the process as it was before.

        Finding and signalling are one command, so the pid cannot be reused in between. Who kills
        ``main`` ends the container and itself in it; that it is killed too is then no failure.

        :raises FaultNotProven: there is no such process.
        """
        before = self.find(name) if name == "main" else None
        script = f'{_FIND}\nfound=$(find_one {name})\n[ -n "$found" ] || exit {_MISSING}\necho "$found"\n'
        also = {_MISSING, _KILLED} if name == "main" else {_MISSING}
        printed = self._bash(f'{script}kill -{number} "${{found%% *}}"', also)
        found = _PRINTED.search(printed)
        if not found and before:
            return before  # what the shell had said went with it
        if not found:
            raise FaultNotProven(f"no {name} process runs in {self.pod}")
        return Process(int(found[1]), found[2], int(found[3]))

    def run(self, script: str) -> str:
        """Run a bash script in the container and return what it prints."""
        return self._bash(script)

    def _bash(self, script: str, also: Collection[int] = ()) -> str:
        done = self._kube.exec(
            self._namespace,
            self.pod,
            ["bash", "-c", script],
            container=self.container,
            deadline_s=20.0,
        )
        if done.exit_status and done.exit_status not in also:
            raise ExecProblem(
                f"bash in {self.pod} ended with {done.exit_status}: "
                f"{done.stderr.decode('utf-8', 'replace').strip()[-400:]}"
            )
        return done.stdout.decode("utf-8", "replace")


class ProcessKilled:
    """SIGKILL to one process; proven by its absence or by another start time."""

    kind = "process-killed"

    def __init__(self, processes: Processes, name: str) -> None:
        self.target = f"{name} in {processes.pod}"
        self._processes = processes
        self._name = name
        self._before: Process | None = None

    def inject(self) -> None:
        self._before = self._processes.signal(self._name, "KILL")

    def prove(self) -> Proof:
        before = self._before
        assert before is not None

        def gone(now: Process | None) -> bool:
            return now is None or (now.pid, now.started) != (before.pid, before.started)

        now = _seen(lambda: self._processes.find(self._name), gone, f"{self.target} to be gone")
        after = f"pid {now.pid} took its place" if now else "nothing has taken its place yet"
        return Proof(f"{self.target} (pid {before.pid}) is gone, {after}", {"pid": before.pid})

    def undo(self) -> None:
        """Nothing to take back: Patroni or the kubelet starts it again."""


class ProcessFrozen:
    """SIGSTOP to one process, SIGCONT as undo; proven by state T."""

    kind = "process-frozen"

    def __init__(self, processes: Processes, name: str) -> None:
        self.target = f"{name} in {processes.pod}"
        self._processes = processes
        self._name = name
        self._before: Process | None = None

    def inject(self) -> None:
        self._before = self._processes.signal(self._name, "STOP")

    def prove(self) -> Proof:
        before = self._before
        assert before is not None
        _seen(
            lambda: self._processes.find(self._name),
            lambda now: now is not None and now.state in "Tt" and now.pid == before.pid,
            f"{self.target} to be stopped",
        )
        return Proof(f"{self.target} (pid {before.pid}) is in state T", {"pid": before.pid})

    def undo(self) -> None:
        """Let it run again, unless the kubelet has replaced it meanwhile (its own liveness kill).

        While it is being replaced nobody can look into its container: that passes. A container that
        cannot be looked into for longer is down, and nothing in it is frozen.
        """

        def let_run() -> bool:
            try:
                now = self._processes.find(self._name)
                if now and now.state in "Tt":
                    self._processes.signal(self._name, "CONT")
            except (FaultNotProven, NotFound):
                pass  # the process, or its pod, was replaced
            return True

        with contextlib.suppress(WaitTimeout):
            eventually(
                let_run,
                accept=bool,
                within_s=_UNDO_S,
                what=f"{self.target} to be let run",
                successes=1,
            )


class StandbyStopped:
    """A standby that stays away: Patroni frozen first, so that it does not start PostgreSQL again.

    Until the kubelet's liveness probe notices the frozen Patroni (about one lease) the pod stays
    as it is. Undo lets Patroni run, which starts PostgreSQL.
    """

    kind = "standby-stopped"

    def __init__(self, processes: Processes) -> None:
        self.target = processes.pod
        self._processes = processes
        self._patroni = ProcessFrozen(processes, "patroni")

    def inject(self) -> None:
        self._patroni.inject()
        self._patroni.prove()
        self._processes.run('pg_ctl stop --wait --mode=immediate --pgdata="$PGDATA" >/dev/null')

    def prove(self) -> Proof:
        _seen(
            lambda: self._processes.find("postmaster"),
            lambda now: now is None,
            f"PostgreSQL in {self.target} to be stopped",
        )
        return Proof(f"{self.target} runs no PostgreSQL and its Patroni is frozen")

    def undo(self) -> None:
        self._patroni.undo()


def _seen(
    look: Callable[[], Process | None], accept: Callable[[Process | None], bool], what: str
) -> Process | None:
    return eventually(look, accept=accept, within_s=_PROVE_S, what=what, successes=1)
