"""The clients of a scenario: they write while something happens, and remember every answer."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pytest_pgo_eks.errors import BrokenHistory, Inconclusive, WaitTimeout
from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.history import History
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.history.matrix import Mode
from pytest_pgo_eks.history.recovery import ALL, CALM_S, FAULT_BEGINS, RULE, calm, in_time
from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.probe.control import Installed, Probe
from pytest_pgo_eks.probe.plan import Login, PathSpec
from pytest_pgo_eks.scenario.targets import Targets

PRIMARY = "the primary Service"
POOLED = "PgBouncer"
REPLICAS = "the replicas Service"
MANY_HOSTS = "all hosts, whoever takes writes"
READS = "reads through the primary Service"
POOLED_READS = "reads through PgBouncer"
TRANSACTIONS = "transactions on the primary"

# Four paced writers and twenty new sessions a second: with TLS and SCRAM a new session costs the
# server about 6 ms of CPU, so a denser clock would load two cores more than the fault does.
_WORKERS = 4
_APPENDERS = 4
_PACE_S = 0.02
_READ_PACE_S = 0.05
_SLOW_S = 0.05
# How long libpq would try one host of several; its own least is 2 s, ours can be sharper.
_HOST_S = 1.0
_SCOUT_EVERY_S = 0.05
_FIRST_ACK_S = 20.0
_ROUTED_S = 60.0
_LOOK_S = 0.5
# PgBouncer's own default of server_login_retry, which PGO leaves: a planned switchover cost 4 s
# through the primary Service and 16 s through PgBouncer there.
LOGIN_RETRY_S = 15.0


class Clients:
    """Writers that run until they are stopped; afterwards their history can be judged.

    The runner talks to them through exec only; every time in the history is of the probe's clock.
    ``hosts`` are the instances' pods that one more client names in its DSN, all of them, asking for
    one that takes writes: it needs no Service, and is measured and told beside the others.
    """

    def __init__(
        self,
        installed: Installed,
        targets: Targets,
        mode: Mode,
        file: Path,
        isolation: str | None = None,
        *,
        hosts: Sequence[str] = (),
        seed: int | None = None,
    ) -> None:
        self._hosts = tuple(hosts)
        self._seed = seed
        self.mode: Mode = mode
        self.file = file
        self._isolation = isolation
        self._installed = installed
        self._targets = targets
        self._probe: Probe | None = None
        self._history: History | None = None
        self._disturbed: tuple[int, float] | None = None

    def start(self) -> None:
        """Make the tables, start writing, and return once a write was acknowledged.

        :raises WaitTimeout: none was.
        """
        login = self._targets.from_secret()
        # Roles may have moved a moment ago, in a scenario before this one: begin in a known state.
        eventually(
            lambda: self._installed.ask(login, "SELECT pg_is_in_recovery()")[0],
            accept=lambda answer: answer.ok and answer.rows[0][0] == "f",
            within_s=_ROUTED_S,
            what=f"{PRIMARY} to lead to a server that takes writes",
        )
        self._installed.prepare(login)
        paths = [
            PathSpec(
                PRIMARY,
                login,
                workers=_WORKERS,
                pace_s=_PACE_S,
                scout_every_s=_SCOUT_EVERY_S,
                deadline_s=2.0,
                scout_deadline_s=1.0,
                pinned=1,
            ),
            PathSpec(
                REPLICAS,
                self._targets.service("replicas"),
                reads=True,
                workers=1,
                pace_s=_READ_PACE_S,
                deadline_s=2.0,
            ),
            self._reads(READS, login),
        ]
        if self._hosts:
            several = self._targets.instances(self._hosts, attributes="read-write", host_s=_HOST_S)
            paths.append(PathSpec(MANY_HOSTS, several, workers=1, pace_s=_SLOW_S, deadline_s=2.0))
        if self._targets.has_pgbouncer:
            pooled = self._targets.from_secret(pooled=True)
            paths.append(PathSpec(POOLED, pooled, workers=1, pace_s=_PACE_S, deadline_s=2.0))
            paths.append(self._reads(POOLED_READS, pooled))
        if self._isolation:
            transactions = PathSpec(
                TRANSACTIONS,
                login,
                appenders=_APPENDERS,
                isolation=self._isolation,
                append_pace_s=_READ_PACE_S,
                deadline_s=2.0,
            )
            paths.append(transactions)
        watch = {
            "namespace": self._targets.namespace,
            "labels": f"{names.CLUSTER}={self._targets.cluster}",
        }
        if self._installed.namespace != self._targets.namespace:
            watch = {}  # its service account may look at its own namespace only
        self._probe = self._installed.start(
            paths, self.file, settings={"mode": self.mode, "seed": self._seed}, watch=watch
        )
        began = self.mark("clients are writing")
        self._probe.wait_for_ack(PRIMARY, began, _FIRST_ACK_S)

    @staticmethod
    def _reads(name: str, login: Login) -> PathSpec:
        """Return readers of the primary: one that never looks elsewhere, one that comes back."""
        return PathSpec(
            name,
            login,
            reads=True,
            workers=1,
            pace_s=_READ_PACE_S,
            deadline_s=2.0,
            pinned=1,
            pinned_pace_s=_READ_PACE_S,
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that are written through."""
        return (PRIMARY, POOLED) if self._targets.has_pgbouncer else (PRIMARY,)

    def mark(self, name: str) -> int:
        """Stamp a moment; a mark that begins with ``fault begins`` starts the clock of budgets.

        Returns nanoseconds of the probe's clock. A mark after the end is ignored.
        """
        if self._probe is None or self._history is not None:
            return 0
        at = self._probe.mark(name)
        if name.startswith(FAULT_BEGINS):
            self._disturbed = (at, time.monotonic())
        return at

    def acknowledged_again(
        self,
        within_s: float,
        paths: Iterable[str] | None = None,
        sessions: Sequence[int] = ALL,
        *,
        login_retry_s: float | None = None,
    ) -> list[Finding]:
        """Wait until writes go through again on ``paths`` (all that are written through).

        ``sessions`` are the kinds of sessions that have to: new ones, and clients that reconnect
        when they lose theirs. The latter stay where they are while a server only refuses writes.

        Through PgBouncer :data:`LOGIN_RETRY_S` comes on top: that is how long it goes on telling
        everybody of a log-in that failed once, before it tries again. Where no log-in may fail,
        ``login_retry_s`` 0 allows it nothing more than the others.

        The budget counts from the begin of the last fault to the *end* of the last outage behind
        it. Returns as soon as an outage is over and writes went on for :data:`CALM_S`, or when the
        budget is used up.

        :raises Inconclusive: no fault was injected while the clients wrote.
        """
        if self._disturbed is None:
            raise Inconclusive("no fault was injected while clients were writing")
        since, at = self._disturbed
        wanted = tuple(paths or self.paths)
        retry_s = LOGIN_RETRY_S if login_retry_s is None else login_retry_s
        budgets = {path: within_s + retry_s * (path == POOLED) for path in wanted}
        longest_s = max(budgets.values())

        def settled(history: History) -> bool:
            used_s = time.monotonic() - at
            return used_s > longest_s + CALM_S or all(
                calm(history, path, since, sessions) for path in wanted
            )

        history = eventually(
            self.so_far,
            accept=settled,
            within_s=max(longest_s + CALM_S + 5.0 - (time.monotonic() - at), 1.0),
            what="writes to be acknowledged again",
            successes=1,
            poll_s=_LOOK_S,
            show=lambda seen: f"{len(seen.ops)} operations",
        )
        return [in_time(history, path, since, budgets[path], sessions) for path in wanted]

    def so_far(self) -> History:
        """Return the history as far as it has come."""
        if self._history is not None:
            return self._history
        return History.of(self._running().lines())

    def acknowledged_from_now(self, within_s: float) -> list[Finding]:
        """Wait until a write *begun* from now on is acknowledged through the primary Service."""
        probe, since = self._running(), self.mark("from here on writes have to be acknowledged")
        at = probe.wait_for_ack(PRIMARY, since, within_s)
        after_s = round((at - since) / 1e9, 3)
        sentence = f"writes through {PRIMARY} were acknowledged again after {after_s:.2f} s"
        numbers: dict[str, Number] = {"budget_s": within_s, "after_s": after_s, "path": PRIMARY}
        return [Finding(RULE, "holds", sentence, numbers)]

    def nothing_acknowledged(self, for_s: float) -> Finding:
        """Watch that no write *begun* from now on is acknowledged for ``for_s`` seconds.

        :raises Inconclusive: the clients did not try.
        """
        probe = self._running()
        since = self.mark("from here on nothing may be acknowledged")
        rule = "strict-mode-blocks"
        try:
            at = probe.wait_for_ack(PRIMARY, since, for_s)
        except WaitTimeout:
            seen = History.of(probe.lines())
            tried = int((seen.ops.invoke > since).sum()) if len(seen.ops) else 0
            if not tried:
                raise Inconclusive("no client tried to write in that time") from None
            sentence = f"no write begun in {for_s:g} s was acknowledged; {tried} were tried"
            return Finding(rule, "holds", sentence, {"for_s": for_s, "tried": tried})
        after_s = (at - since) / 1e9
        return Finding(
            rule,
            "violated",
            f"a write was acknowledged after {after_s:.3f} s",
            {"after_s": after_s},
        )

    def finish(self, pods: Collection[str]) -> History:
        """Stop writing, read back what is there on every pod, and return the history.

        :raises BrokenHistory: the history has a hole.
        :raises Inconclusive: no server could be read back.
        """
        if self._history is not None:
            return self._history
        probe = self._running()
        probe.quiet()
        failed = []
        for pod in pods:
            try:
                probe.read_back(pod, self._targets.instance(pod))
            except Inconclusive as error:
                failed.append(f"{pod}: {error}")
        if len(failed) == len(pods):
            raise Inconclusive(f"no server could be read back: {'; '.join(failed)}")
        probe.stop()
        self._history = History.load(self.file)
        if not self._history.is_complete:
            raise BrokenHistory(f"{self.file} has a hole: operations began that left no record")
        return self._history

    @property
    def history(self) -> History | None:
        """The finished history, None while clients write or if it could not be finished."""
        return self._history

    def judged(self, pods: Collection[str]) -> list[Finding]:
        """Finish and judge everything that the declared replication mode promises."""
        return judge(self.finish(pods), self.mode)

    def stop(self) -> None:
        """Stop writing, whatever happened; a history that cannot be finished stays as a part."""
        if self._probe is not None and self._history is None:
            self._probe.stop()
            if self.file.exists():
                self._history = History.load(self.file)

    def _running(self) -> Probe:
        if self._probe is None:
            raise Inconclusive("no clients are writing")
        return self._probe


def named(findings: Sequence[Finding], *rules: str) -> list[Finding]:
    """Return the findings of these rules.

    :raises Inconclusive: a rule was not judged at all.
    """
    missing = set(rules) - {finding.rule for finding in findings}
    if missing:
        raise Inconclusive(f"not judged: {', '.join(sorted(missing))}")
    return [finding for finding in findings if finding.rule in rules]
