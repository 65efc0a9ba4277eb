"""List-append transactions: what isolation checkers want to see.

Every transaction appends unique elements to some lists and reads others, one statement at a time,
so that transactions really interleave. Lists are touched in key order, which keeps deadlocks (and
their second of waiting) away; a list that is long enough is replaced by a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING

from . import wire, workload
from .connect import ConnectFailed, open_session, run
from .records import FAIL, INFO, OK, PACED, TXN, UNSAFE
from .wire import Session

if TYPE_CHECKING:
    from .load import Path

ISOLATION = ("read committed", "repeatable read", "serializable")
_LIVE = 60
_LONGEST = 64
_MOST = 4
_RETRY_S = 0.25

APPEND, LOOK = range(2)
Step = tuple[int, int, int]
"""kind, key, element (0 for a read)"""


class Lists:
    """Which lists are in use, shared by all appenders of a run."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._keys = list(range(_LIVE))
        self._lengths = [0] * _LIVE
        self._next = _LIVE

    def plan(self, op: int) -> list[Step]:
        """Choose the steps of transaction ``op``; elements are unique over the run."""
        places = sorted(self._chance.sample(range(_LIVE), self._chance.randrange(1, _MOST + 1)))
        steps: list[Step] = []
        for place in sorted(places, key=self._keys.__getitem__):
            key = self._keys[place]
            if self._chance.random() < 0.5:
                steps.append((APPEND, key, op * 8 + len(steps)))
                self._lengths[place] += 1
                if self._lengths[place] >= _LONGEST:
                    self._keys[place], self._lengths[place] = self._next, 0
                    self._next += 1
            else:
                steps.append((LOOK, key, 0))
        return steps


class Appender:
    """One client that runs such transactions one after another."""

    def __init__(self, path: Path, lists: Lists, isolation: str, pace_s: float) -> None:
        self._path = path
        self._lists = lists
        self._isolation = ISOLATION.index(isolation)
        self._pace_s = pace_s
        self._client = path.shared.new_client()
        self._session: Session | None = None
        self._task = asyncio.get_running_loop().create_task(self._forever())

    @property
    def busy(self) -> bool:
        return not self._task.done()

    def quit(self) -> None:
        self._task.cancel()

    def _over(self) -> bool:
        return self._path.shared.stopping

    async def _forever(self) -> None:
        path, shared = self._path, self._path.shared
        try:
            while not self._over():
                op, invoke = shared.recorder.new_op(), time.monotonic_ns()
                try:
                    async with asyncio.timeout(path.plan.deadline_s):
                        self._session = await open_session(path.plan.target)
                        await path.learn_level(self._session)
                except (TimeoutError, ConnectFailed) as error:
                    code = error.code if isinstance(error, ConnectFailed) else "deadline"
                    path.record_connect(op, invoke, self._client, PACED, code)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_RETRY_S):
                            await path.reachable.wait()
                    continue
                path.record_connect(op, invoke, self._client, PACED, "")
                while self._session.alive:
                    await self._transaction(self._session)
                    if self._over():
                        return
                    await asyncio.sleep(self._pace_s)
        finally:
            if self._session is not None:
                self._session.close()

    async def _transaction(self, session: Session) -> None:
        shared = self._path.shared
        op = shared.recorder.new_op()
        steps = self._lists.plan(op)
        seen: list[list[int] | None] = [None] * len(steps)
        invoke = time.monotonic_ns()
        committing = 0
        outcome, code = FAIL, ""
        try:
            async with asyncio.timeout(self._path.plan.deadline_s):
                level = ISOLATION[self._isolation].upper()
                await run(session, wire.query(f"BEGIN ISOLATION LEVEL {level}"))
                for number, step in enumerate(steps):
                    if not _went_well(session):
                        break
                    await run(session, wire.query(_sql(step)))
                    if step[0] == LOOK and _went_well(session):
                        seen[number] = _elements(session)
                if _went_well(session):
                    committing = time.monotonic_ns()
                    await run(session, wire.query("COMMIT"))
                outcome, code = _judge(session, committing=bool(committing))
                if session.alive and session.error is not None:
                    await run(session, wire.query("ROLLBACK"))
        except TimeoutError:
            code = code or "deadline"
            outcome = INFO if committing else FAIL
        except asyncio.CancelledError:
            code, outcome = "stopped", INFO if committing else FAIL
            raise
        finally:
            self._record(op, (invoke, committing), (outcome, code), steps, seen)

    def _record(
        self,
        op: int,
        began: tuple[int, int],
        ended: tuple[int, str],
        steps: list[Step],
        seen: list[list[int] | None],
    ) -> None:
        """Add the transaction; ``began``: it and its COMMIT; ``ended``: outcome and code."""
        recorder = self._path.shared.recorder
        outcome, code = ended
        number = recorder.words.number(code) if code else 0
        recorder.ops.rows.append(
            (
                *(op, *began, time.monotonic_ns(), len(steps), 0, 0),
                *(self._isolation, self._client, number, 0, TXN, PACED, self._path.number),
                *(outcome, self._path.level, 0),
            )
        )
        for at, (kind, key, element) in enumerate(steps):
            values = seen[at]
            count = 0 if kind == APPEND else -1 if values is None else len(values)
            recorder.micro.rows.append((op, element, at, key, count, kind))
            recorder.elements.rows.extend((value,) for value in values or ())


def _sql(step: Step) -> str:
    kind, key, element = step
    if kind == LOOK:
        return f"SELECT v FROM {workload.SCHEMA}.list WHERE k = {key}"  # noqa: S608 -- numbers
    return (
        f"INSERT INTO {workload.SCHEMA}.list AS l VALUES ({key}, '{element}') "  # noqa: S608
        "ON CONFLICT (k) DO UPDATE SET v = l.v || ',' || excluded.v"
    )


def _elements(session: Session) -> list[int]:
    if not session.rows:
        return []
    text = wire.cells(session.rows[0])[0] or b""
    return [int(part) for part in text.split(b",") if part]


def _went_well(session: Session) -> bool:
    return session.alive and session.error is None


def _judge(session: Session, *, committing: bool) -> tuple[int, str]:
    """Return outcome and code; nothing is committed before COMMIT is sent, so that is definite."""
    error = session.error
    if session.lost is not None or error is not None:
        said = error or next(iter(session.notices[-1:]), None)
        code = said.get("C", "?????") if said else str(session.lost)
        sure = not committing or (error is not None and workload.definite(error))
        return (FAIL if sure else INFO), code
    if session.tag != "COMMIT":
        return FAIL, "rolled-back"
    if workload.unsafe(session.notices):
        return UNSAFE, next(n.get("C", "") for n in session.notices)
    return OK, ""
