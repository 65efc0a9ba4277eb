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
import contextlib
import math
import random
import time
from dataclasses import dataclass, field

from . import records, wire, workload
from .append import Appender, Lists
from .connect import ConnectFailed, Target, ask, open_session, run
from .records import CONNECT, FAIL, INFO, OK, PACED, PINNED, READ, SCOUT, UNSAFE, WRITE, Recorder
from .wire import Session

_RETRY_S = 0.25
# A statement that is given up leaves its backend behind, waiting for a standby or a lock: the server
# does not notice. Without a bound the probe itself would use up max_connections (100 by default) in
# a long hang and be the next fault. So patience grows while nothing is acknowledged.
_MOST_PATIENT = 16
_ABANDONED = 24
_SENTINELS = 8
_SENTINEL_S = 30.0
_SLOW_S = 1.0


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


class Worker:
    """One client with one session at a time and one counter of its own."""

    def __init__(
        self, path: Path, key: int, session_kind: int, pace_s: float, deadline_s: float | None
    ) -> None:
        self.path = path
        self.key = key
        self.session_kind = session_kind
        self.pace_s = pace_s
        self.deadline_s = deadline_s
        self.client = path.shared.new_client()
        self.busy = False
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._parsed = False
        self._op = 0
        self._invoke = 0
        self._patience = 1
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._loop.create_task(self._open())

    def quit(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._session is not None:
            if self.busy:
                self._session.abort("stopped")
            else:
                self._session.close()

    async def _open(self) -> None:
        path = self.path
        while not path.shared.stopping:
            op, invoke = path.shared.recorder.new_op(), time.monotonic_ns()
            try:
                async with asyncio.timeout(self.deadline_s or 5.0):
                    session = await open_session(
                        path.plan.target, self._gone, lambda n: path.shared.heard(n, self.client)
                    )
                    await path.learn_level(session)
            except TimeoutError:
                code = "deadline"
            except ConnectFailed as failed:
                code = failed.code
            else:
                path.record_connect(op, invoke, self.client, self.session_kind, "")
                self._session, self._parsed = session, False
                self._due = self._loop.time()
                self._begin()
                return
            path.record_connect(op, invoke, self.client, self.session_kind, code)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_S):
                    await path.reachable.wait()

    def _begin(self) -> None:
        session = self._session
        if self.path.shared.stopping or session is None or not session.alive:
            return
        op = self.path.shared.recorder.new_op()
        if self.path.plan.prepared:
            parse, binding = self.path.named
            message = binding.message(self.key, op)
            if not self._parsed:
                message = parse + message
                self._parsed = True
        else:
            parse, binding = self.path.full
            message = parse + binding.message(self.key, op)
        self._op = op
        self.busy = True
        self._invoke = time.monotonic_ns()
        if self.deadline_s is not None:
            self._timer = self._loop.call_later(self.deadline_s * self._patience, self._late)
        session.request(message, self._finish)

    def _late(self) -> None:
        self._patience = min(2 * self._patience, _MOST_PATIENT)
        if self._session is not None:
            self._session.abort("deadline")

    def _finish(self, session: Session) -> None:
        done = time.monotonic_ns()
        if self._timer is not None:
            self._timer.cancel()
        self.busy = False
        outcome, code = self.path.judge(session)
        if outcome in (OK, UNSAFE):
            self._patience = 1
        self.path.record(
            op=self._op,
            times=(self._invoke, self._invoke, done),
            key=self.key,
            client=self.client,
            session_kind=self.session_kind,
            outcome=outcome,
            code=code,
            row=session.rows[0] if session.rows else None,
        )
        if not session.alive:
            self._gone(session)
        elif self.path.shared.stopping:
            session.close()
        elif self.pace_s <= 0:
            self._begin()
        else:
            self._due = max(self._due + self.pace_s, self._loop.time())
            self._tick = self._loop.call_at(self._due, self._begin)

    def _gone(self, session: Session) -> None:
        """React to a session that ended: reconnect, or, if pinned, note when it was known."""
        shared = self.path.shared
        for said in session.notices:
            shared.heard(said, self.client)
        if self._tick is not None:
            self._tick.cancel()
        self._session = None
        if shared.stopping:
            return
        if self.session_kind == PINNED:
            shared.recorder.event(
                "pinned-ended", client=self.client, path=self.path.plan.name, reason=session.lost
            )
            return
        self._task = self._loop.create_task(self._open())


class Scouts:
    """Whole new sessions on a clock."""

    def __init__(self, path: Path) -> None:
        plan = path.plan
        self.path = path
        self.client = path.shared.new_client()
        self.cap = math.ceil(plan.scout_deadline_s / plan.scout_every_s) + 8
        self.skipped = 0
        self._abandoned = 0
        self._sentinels = 0
        self._started = 0.0
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._due = 0.0
        self._tick: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    def start(self) -> None:
        self._due = self._loop.time()
        self._next()

    def quit(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        for task in self._tasks:
            task.cancel()

    def _next(self) -> None:
        if self.path.shared.stopping:
            return
        every = self.path.plan.scout_every_s
        now = self._loop.time()
        enough = self._sentinels >= _SENTINELS and now - self._started < _SLOW_S
        if len(self._tasks) < self.cap and not enough:
            self._started = now
            task = self._loop.create_task(self._scout())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self.skipped += 1
        # A loop that fell behind does not catch up with a burst: that would be load, not a look.
        self._due = max(self._due + every, self._loop.time())
        self._tick = self._loop.call_at(self._due, self._next)

    async def _scout(self) -> None:
        path, plan = self.path, self.path.plan
        op = path.shared.recorder.new_op()
        parse, binding = path.scout_statement
        invoke, sent = time.monotonic_ns(), 0
        session: Session | None = None
        row: bytes | None = None
        ends = self._loop.time() + plan.scout_deadline_s
        try:
            async with asyncio.timeout_at(ends):
                session = await open_session(plan.target)
            sent = time.monotonic_ns()
            await self._ask(session, parse + binding.message(-path.number, op), ends)
            outcome, code = path.judge(session)
            row = session.rows[0] if session.rows else None
        except TimeoutError:
            outcome = INFO if sent and not plan.reads else FAIL
            code = "deadline"
            self._abandoned += sent > 0
        except ConnectFailed as failed:
            outcome, code = FAIL, failed.code
        except asyncio.CancelledError:
            outcome, code = (INFO if sent and not plan.reads else FAIL), "stopped"
        done = time.monotonic_ns()
        path.record(
            op=op,
            times=(invoke, sent, done),
            key=-path.number,
            client=self.client,
            session_kind=SCOUT,
            outcome=outcome,
            code=code,
            row=row,
        )
        if session is not None:
            session.close()
        if outcome == OK:
            self._abandoned = 0
            path.tell_reachable()

    async def _ask(self, session: Session, message: bytes, ends: float) -> None:
        """Run the statement; in a long hang stay as a sentinel, to see its end at once.

        Sentinels replace most new attempts: the statements they would leave behind pile up.
        """
        sentinel = self._abandoned >= _ABANDONED and self._sentinels < _SENTINELS
        self._sentinels += sentinel
        try:
            async with asyncio.timeout_at(ends + _SENTINEL_S if sentinel else ends):
                await run(session, message)
        finally:
            self._sentinels -= sentinel
