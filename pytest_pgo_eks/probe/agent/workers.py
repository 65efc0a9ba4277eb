"""Clients that keep a session: paced workers, which reconnect, and pinned sessions, which do not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from .connect import ConnectFailed, open_session
from .records import OK, PINNED, UNSAFE
from .wire import Session

if TYPE_CHECKING:
    from .load import Path

_RETRY_S = 0.25
# A statement that is given up leaves its backend behind, waiting for a standby or a lock: the server
# does not notice. Without a bound the probe itself would use up max_connections (100 by default) in
# a long hang and be the next fault. So patience grows while nothing is acknowledged.
_MOST_PATIENT = 16


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
                        path.plan.target, notice=lambda n: path.shared.heard(n, self.client)
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
                # From here on, and not before: while it is being opened, we are the ones who
                # notice its end and open another. Two at once would share this worker's counter.
                session.attend(self._gone)
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
        invoke = time.monotonic_ns()
        # Refused while another request is under way: that one keeps its number and its times, and
        # this one leaves a hole in the history, which is then no proof of anything.
        session.request(message, self._finish)
        self._op, self._invoke = op, invoke
        self.busy = True
        if self.deadline_s is not None:
            self._timer = self._loop.call_later(self.deadline_s * self._patience, self._late)

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
        if session is not self._session:
            return  # one of before: another has taken its place, or is about to
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
