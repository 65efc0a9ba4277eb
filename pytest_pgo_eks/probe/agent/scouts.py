"""Whole new sessions on a clock, whether or not the earlier ones came back."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from .connect import ConnectFailed, open_session, run
from .records import FAIL, INFO, OK, SCOUT
from .wire import Session

if TYPE_CHECKING:
    from .load import Path

# As with workers, statements that are given up pile up on the server: after so many, a few scouts
# stay as sentinels and new ones come slowly.
_ABANDONED = 24
_SENTINELS = 8
_SENTINEL_S = 30.0
_SLOW_S = 1.0
# One a second would use up the hundred connections of a default server in a hang of a minute (with
# everybody else's after 19 s): from so many on the pause doubles with each that is given up.
_PLENTY = 36
_SLOWEST_S = 16.0


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
        self._slow_s = _SLOW_S
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
        enough = self._sentinels >= _SENTINELS and now - self._started < self._slow_s
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
            if self._abandoned > _PLENTY:
                self._slow_s = min(2 * self._slow_s, _SLOWEST_S)
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
            self._abandoned, self._slow_s = 0, _SLOW_S
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
