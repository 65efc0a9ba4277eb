"""Reading the tables back at the end: what is really there, on each server.

The server packs ten thousand rows into one value, so a million rows cross in a second and this
side only slices.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

from . import wire, workload
from .connect import ConnectFailed, Target, ask, open_session, run
from .records import Recorder

if TYPE_CHECKING:
    from .load import Clients

_PACK = struct.Struct(">qiqQ8s")
_LOG = f"""SELECT string_agg(int8send(op) || int4send(k) || int8send(v) || pg_lsn_send(lsn)
        || convert_to(tli, 'UTF8'), '')
    FROM (SELECT op, k, v, lsn, tli, row_number() OVER () / 10000 AS part
        FROM {workload.SCHEMA}.log) AS rows GROUP BY part"""  # noqa: S608
_WHO = """SELECT pg_is_in_recovery(), (pg_control_system()).system_identifier::text,
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text
        ELSE pg_current_wal_insert_lsn()::text END,
    CASE WHEN pg_is_in_recovery() THEN (pg_control_checkpoint()).timeline_id::text
        ELSE ('x' || left(pg_walfile_name(CASE WHEN pg_is_in_recovery() THEN NULL
            ELSE pg_current_wal_insert_lsn() END), 8))::bit(32)::int::text END"""


async def read_back(
    recorder: Recorder, shared: Clients, name: str, target: Target, within_s: float
) -> dict[str, Any]:
    """Record every log row and counter of the server behind ``target`` as source ``name``.

    Log rows have their operation number; counters come as rows with operation 0.
    """
    try:
        async with asyncio.timeout(within_s):
            session = await open_session(target)
            try:
                return await _read(recorder, shared, name, session)
            finally:
                session.close()
    except TimeoutError:
        return {"error": f"{name}: not read back within {within_s:g} s"}
    except ConnectFailed as failed:
        return {"error": f"{name}: {failed.code}: {failed}"}


async def _read(
    recorder: Recorder, shared: Clients, name: str, session: wire.Session
) -> dict[str, Any]:
    # One snapshot for log and counters, or a running writer would look like a lost row.
    await ask(session, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    (who,) = await ask(session, _WHO)
    source = recorder.words.number(f"source:{name}")
    await run(session, wire.parse(_LOG) + wire.Binding("", 0).message())
    _raise(session)
    count = 0
    rows = recorder.final.rows
    for row in session.rows:
        blob = wire.cells(row)[0] or b""
        for op, key, value, lsn, tli in _PACK.iter_unpack(blob):
            rows.append((op, value, lsn, int(tli, 16), key, source))
            count += 1
    await run(
        session,
        wire.parse(workload.LOOK) + wire.Binding("", 2).message(0, 0),
    )
    _raise(session)
    answer = workload.looked(session.rows[0])
    for key, value in workload.unpack_cells(answer.blob):
        rows.append((0, value, answer.lsn, answer.timeline, key, source))
    told = {
        "name": name,
        "source": source,
        "server": shared.server(answer.identity),
        "in_recovery": who[0] == "t",
        "system_identifier": who[1],
        "lsn": who[2],
        "timeline": int(who[3] or 0),
        "rows": count,
        "counters": answer.value,
    }
    recorder.event("read-back", **told)
    return told


def _raise(session: wire.Session) -> None:
    if session.error is not None:
        raise ConnectFailed(session.error.get("C", ""), session.error.get("M", ""))
    if session.lost is not None:
        raise ConnectFailed("lost", session.lost)
