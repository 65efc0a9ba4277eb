"""Looking at one server on a clock: what it is, and who confirms its commits."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from . import wire, workload
from .connect import ConnectFailed, Target, open_session, run
from .wire import Session

if TYPE_CHECKING:
    from .load import Clients

_DEADLINE_S = 1.0
_RETRY_S = 0.5
_SQL = f"""SELECT pg_is_in_recovery(),
    CASE WHEN pg_is_in_recovery()
        THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver), 0)
        ELSE ('x' || left(pg_walfile_name(CASE WHEN pg_is_in_recovery() THEN NULL
            ELSE pg_current_wal_insert_lsn() END), 8))::bit(32)::int END,
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
    r.streaming, r.sync, coalesce(r.who, ''), current_setting('synchronous_standby_names'),
    {workload.IDENTITY}
    FROM (SELECT count(*) FILTER (WHERE state = 'streaming') AS streaming,
        count(*) FILTER (WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')) AS sync,
        string_agg(application_name, ',' ORDER BY application_name)
            FILTER (WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')) AS who
        FROM pg_stat_replication) AS r"""  # noqa: S608 -- a constant


class Monitor:
    """Keeps one session to one server; a look that fails leaves no row, only a gap."""

    def __init__(self, shared: Clients, name: str, target: Target, every_s: float) -> None:
        self._shared = shared
        self._target = target
        self._every_s = every_s
        self._number = shared.recorder.words.number(f"monitor:{name}")
        self._message = wire.parse(_SQL) + wire.Binding("", 0).message()

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        session: Session | None = None
        try:
            while True:
                due = loop.time() + self._every_s
                try:
                    async with asyncio.timeout(_DEADLINE_S):
                        if session is None or not session.alive:
                            session = await open_session(self._target)
                        await self._look(session)
                except (TimeoutError, ConnectFailed):
                    due = loop.time() + _RETRY_S
                await asyncio.sleep(max(due - loop.time(), 0))
        finally:
            if session is not None:
                session.close()

    async def _look(self, session: Session) -> None:
        asked = time.monotonic_ns()
        await run(session, self._message)
        told = time.monotonic_ns()
        if session.error is not None or not session.rows:
            return
        recovery, timeline, lsn, streaming, sync, who, names, *_ = wire.cells(session.rows[0])
        identity = workload.identity_part(session.rows[0], 7)
        words = self._shared.recorder.words
        self._shared.recorder.looks.rows.append(
            (
                asked,
                told,
                int.from_bytes(lsn or b"", "big"),
                self._number,
                self._shared.server(identity),
                int.from_bytes(timeline or b"", "big"),
                int(recovery == b"\x01"),
                min(int.from_bytes(sync or b"", "big"), 255),
                min(int.from_bytes(streaming or b"", "big"), 255),
                words.number(names.decode()) if names else 0,
                words.number(who.decode()) if who else 0,
            )
        )
