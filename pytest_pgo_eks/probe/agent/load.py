"""The clients: paced workers, pinned sessions, and scouts that start on a clock.

All of them are callbacks and timers in one event loop; nothing blocks, so one monotonic clock
stamps every client and every watch event.

* A **paced** worker owns one counter, keeps its session, reconnects when it loses it.
* A **pinned** session is opened before the fault and never again: what a connection pool holds.
* A **scout** is a whole new session every ``cadence``: name, connect, TLS, log-in, statement,
  answer. It starts whether or not the earlier ones came back, so a black hole is seen as sharply
  as a refusal. The cap on those under way is never below deadline over cadence.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

from . import records, wire, workload
from .append import Appender, Lists
from .connect import Target, ask
from .records import CONNECT, FAIL, INFO, OK, PACED, PINNED, READ, UNSAFE, WRITE, Recorder
from .scouts import Scouts
from .wire import Session
from .workers import Worker


@dataclass(frozen=True)
class PathPlan:
    """What to do on one path; seconds, and 0 means "none of these"."""

    name: str
    target: Target
    reads: bool = False
    workers: int = 0
    pace_s: float = 0.01
    scout_every_s: float = 0.0
    pinned: int = 0
    pinned_pace_s: float = 0.05
    deadline_s: float = 1.0
    scout_deadline_s: float = 0.5
    pinned_deadline_s: float | None = None
    appenders: int = 0
    isolation: str = "serializable"
    append_pace_s: float = 0.01
    prepared: bool = True
    """Named statements. A pooler in transaction mode may not keep them: then False."""
    first_key: int = 0
    """Counters ``first_key`` … belong to this path's workers and pinned sessions, one each."""


@dataclass
class Clients:
    """What all clients share."""

    recorder: Recorder
    stopping: bool = False
    clients: int = 0
    paths: list[str] = field(default_factory=list)
    lists: Lists = field(default_factory=lambda: Lists(random.Random()))  # noqa: S311 -- load, no secret

    def new_client(self) -> int:
        self.clients += 1
        return self.clients

    def server(self, raw: bytes) -> int:
        known = self.recorder.servers.known(raw)
        if known is not None:
            return known
        return self.recorder.servers.add(raw, workload.identity(raw))

    def heard(self, said: wire.Fields, client: int) -> None:
        """Keep a notice that came outside of a statement."""
        self.recorder.event(
            "notice", client=client, code=said.get("C", ""), text=said.get("M", "")[:200]
        )


class Path:
    """One way to the database, with everything that runs on it."""

    def __init__(self, plan: PathPlan, shared: Clients) -> None:
        self.plan = plan
        self.shared = shared
        shared.paths.append(plan.name)
        self.number = len(shared.paths)
        self.level = 0
        options = dict(plan.target.options)
        if (level := options.get("synchronous_commit")) in records.LEVELS:
            self.level = records.LEVELS.index(level)
        self.level_known = self.level != 0
        self.reachable = asyncio.Event()
        sql = workload.LOOK if plan.reads else workload.COUNT
        self.full = wire.parse(sql), wire.Binding("", 2)
        self.named = wire.parse(sql, "w"), wire.Binding("w", 2)
        self.scout_statement = (
            wire.parse(workload.LOOK if plan.reads else workload.APPEND),
            wire.Binding("", 2),
        )
        self.workers: list[Worker] = []
        self.scouts: Scouts | None = None
        self.appenders: list[Appender] = []
        self._next_key = plan.first_key

    def start(self) -> None:
        """Open everything; ``pinned`` sessions first, they have to be there before a fault."""
        self.pin(self.plan.pinned)
        for _ in range(self.plan.workers):
            self._add(PACED, self.plan.pace_s, self.plan.deadline_s)
        for _ in range(self.plan.appenders):
            self.appenders.append(
                Appender(self, self.shared.lists, self.plan.isolation, self.plan.append_pace_s)
            )
        if self.plan.scout_every_s > 0:
            self.scouts = Scouts(self)
            self.scouts.start()

    def pin(self, count: int) -> None:
        """Open ``count`` more sessions that are never opened again."""
        for _ in range(count):
            self._add(PINNED, self.plan.pinned_pace_s, self.plan.pinned_deadline_s)

    def _add(self, session: int, pace_s: float, deadline_s: float | None) -> None:
        worker = Worker(self, self._next_key, session, pace_s, deadline_s)
        self._next_key += 1
        self.workers.append(worker)
        worker.start()

    def tell_reachable(self) -> None:
        """Wake the workers that wait to reconnect: one scout found the way for all of them."""
        self.reachable.set()
        self.reachable.clear()

    def busy(self) -> int:
        single = sum(w.busy for w in self.workers) + sum(a.busy for a in self.appenders)
        return single + (self.scouts.under_way if self.scouts else 0)

    def quit(self) -> None:
        """Close every session at once; what was under way ends as ``info``."""
        for worker in self.workers:
            worker.quit()
        for appender in self.appenders:
            appender.quit()
        if self.scouts:
            self.scouts.quit()

    async def learn_level(self, session: Session) -> None:
        """Ask once which synchronous_commit sessions of this path have."""
        if self.level_known or self.plan.reads:
            return
        rows = await ask(session, "SHOW synchronous_commit")
        said = rows[0][0] if rows else None
        if said in records.LEVELS:
            self.level = records.LEVELS.index(said)
            self.level_known = True

    def judge(self, session: Session) -> tuple[int, str]:
        """Return outcome and code of the request that ``session`` has just finished."""
        error = session.error
        if session.lost is not None:
            said = error or next(iter(session.notices[-1:]), None)
            code = session.lost if said is None else said.get("C", "?????")
            if error is not None and workload.definite(error):
                return FAIL, code
            return (FAIL if self.plan.reads else INFO), code
        if error is not None:
            code = error.get("C", "?????")
            return (FAIL if self.plan.reads or workload.definite(error) else INFO), code
        if not session.rows:
            return FAIL, "no-row"
        if not self.plan.reads and workload.unsafe(session.notices):
            return UNSAFE, next(n.get("C", "") for n in session.notices)
        return OK, ""

    def record(
        self,
        *,
        op: int,
        times: tuple[int, int, int],
        key: int,
        client: int,
        session_kind: int,
        outcome: int,
        code: str,
        row: bytes | None,
    ) -> None:
        """Add one operation; ``times`` are invoke, sent, done."""
        recorder = self.shared.recorder
        value = lsn = timeline = server = recovery = 0
        if row is not None and outcome in (OK, UNSAFE):
            answer = workload.looked(row) if self.plan.reads else workload.wrote(row)
            value, lsn, timeline = answer.value, answer.lsn, answer.timeline
            server = self.shared.server(answer.identity)
            recovery = int(self.plan.reads and timeline == 0)
            for cell_key, cell in workload.unpack_cells(answer.blob):
                recorder.cells.rows.append((op, cell, cell_key))
        recorder.ops.rows.append(
            (
                op,
                *times,
                value,
                lsn,
                timeline,
                key,
                client,
                recorder.words.number(code) if code else 0,
                server,
                READ if self.plan.reads else WRITE,
                session_kind,
                self.number,
                outcome,
                self.level,
                recovery,
            )
        )

    def record_connect(
        self, op: int, invoke: int, client: int, session_kind: int, code: str
    ) -> None:
        recorder = self.shared.recorder
        number = recorder.words.number(code) if code else 0
        outcome = FAIL if code else OK
        recorder.ops.rows.append(
            (
                *(op, invoke, 0, time.monotonic_ns(), 0, 0, 0, -1, client, number, 0, CONNECT),
                *(session_kind, self.number, outcome, self.level, 0),
            )
        )
