"""The SQL of the load and how its answers are read.

k counters with one writer each, and an insert-only log row per write. The writer knows what it was
told last, so the first value after a failover says exactly what was lost; the same value
acknowledged twice for one counter on two timelines is two primaries, proven without comparing
clocks. Every answer carries the identity of the server that gave it: address, port, start of the
postmaster. Through a pooler that may change between any two statements, so it is never cached.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from . import wire

SCHEMA = "pgo_probe"
IDENTITY = "inet_server_addr(), inet_server_port(), pg_postmaster_start_time()"


def prepare_sql(counters: int, role: str | None) -> str:
    """Return the DDL of a fresh workload, to be run by an owner of the database."""
    grant = (
        f'GRANT USAGE ON SCHEMA {SCHEMA} TO "{role}";'
        f'GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {SCHEMA} TO "{role}";'
        if role
        else ""
    )
    return f"""
        BEGIN;
        DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
        CREATE SCHEMA {SCHEMA};
        CREATE TABLE {SCHEMA}.counter (k int PRIMARY KEY, v bigint NOT NULL) WITH (fillfactor = 50);
        INSERT INTO {SCHEMA}.counter SELECT k, 0 FROM generate_series(0, {counters} - 1) k;
        CREATE TABLE {SCHEMA}.log (op bigint NOT NULL, k int NOT NULL, v bigint NOT NULL,
            lsn pg_lsn NOT NULL, tli text NOT NULL, server inet,
            at timestamptz NOT NULL DEFAULT clock_timestamp());
        CREATE TABLE {SCHEMA}.list (k int PRIMARY KEY, v text NOT NULL);
        {grant}
        COMMIT;
    """  # noqa: S608 -- names are ours, the role is quoted


_TOLD = f"lsn, tli, {IDENTITY}"
_HERE = "pg_current_wal_insert_lsn(), left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"

COUNT = f"""WITH c AS (UPDATE {SCHEMA}.counter SET v = v + 1 WHERE k = $1::bigint RETURNING v),
    l AS (INSERT INTO {SCHEMA}.log (op, k, v, lsn, tli, server)
        SELECT $2::bigint, $1::bigint, v, {_HERE}, inet_server_addr() FROM c
        RETURNING v, lsn, tli)
    SELECT v, {_TOLD} FROM l"""  # noqa: S608
APPEND = f"""INSERT INTO {SCHEMA}.log (op, k, v, lsn, tli, server)
    SELECT $2::bigint, $1::bigint, $2::bigint, {_HERE}, inet_server_addr()
    RETURNING v, {_TOLD}"""
LOOK = f"""SELECT (SELECT string_agg(int4send(k) || int8send(v), '' ORDER BY k) FROM {SCHEMA}.counter),
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
    CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(
        CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END), 8) END,
    {IDENTITY}
    WHERE $1::bigint = $1::bigint AND $2::bigint = $2::bigint"""  # noqa: S608

_HEAD = struct.Struct(">hiqiQi")  # columns, value, lsn, length of the timeline's text


class Answer:
    """One answer taken apart: ``value``, ``lsn``, ``timeline`` (0: in recovery), ``identity``."""

    __slots__ = ("blob", "identity", "lsn", "timeline", "value")

    def __init__(
        self, value: int, lsn: int, timeline: int, identity: bytes, blob: bytes = b""
    ) -> None:
        self.value = value
        self.lsn = lsn
        self.timeline = timeline
        self.identity = identity
        self.blob = blob


def wrote(row: bytes) -> Answer:
    """Read the answer of COUNT or APPEND."""
    _, _, value, _, lsn, _ = _HEAD.unpack_from(row)
    return Answer(value, lsn, int(row[30:38], 16), row[38:])


def looked(row: bytes) -> Answer:
    """Read the answer of LOOK; ``blob`` holds (int4 key, int8 value) big-endian, twelve bytes each."""
    cells = wire.cells(row)
    blob = cells[0] or b""
    lsn = int.from_bytes(cells[1] or b"", "big")
    timeline = int(cells[2], 16) if cells[2] else 0
    return Answer(len(blob) // 12, lsn, timeline, identity_part(row, 3), blob)


def identity_part(row: bytes, column: int) -> bytes:
    """Return the raw end of a DataRow from ``column`` on: the server's identity, as a key."""
    at = 2
    for _ in range(column):
        (length,) = struct.unpack_from(">i", row, at)
        at += 4 + max(length, 0)
    return row[at:]


def unpack_cells(blob: bytes) -> list[tuple[int, int]]:
    return list(struct.iter_unpack(">iq", blob))


def identity(raw: bytes) -> dict[str, Any]:
    """Turn the identity part of an answer into ``addr``, ``port``, ``started_us`` (Unix time)."""
    cells = wire.cells(struct.pack(">h", 3) + raw)
    addr, port, started = cells
    text = ""
    if addr:
        family = socket.AF_INET if addr[0] == 2 else socket.AF_INET6
        text = socket.inet_ntop(family, addr[4:])
    return {
        "addr": text,
        "port": int.from_bytes(port or b"", "big"),
        "started_us": int.from_bytes(started or b"", "big") + 946_684_800_000_000,
    }


# -- outcomes (an acknowledgement is a command tag without a SyncRep notice)

DEFINITE = frozenset({"25006", "40001", "40P01", "57P03", "23505", "23503", "23514"})
"""SQLSTATEs that say for certain that nothing was committed. Every operation has a number of its
own and is never retried, so 23505 is definite here."""


def unsafe(notices: list[wire.Fields]) -> bool:
    """Tell whether a commit came back without its standby.

    PostgreSQL says so with a WARNING of SQLSTATE 01000 ("canceling wait for synchronous
    replication …") or 57P01. The text is translated, so the code and the untranslated severity
    decide; a warning of that code for another reason makes the write unsafe, never the reverse.
    """
    return any(
        n.get("V", n.get("S")) == "WARNING" and n.get("C") in {"01000", "57P01"} for n in notices
    )


def definite(error: wire.Fields) -> bool:
    """Tell whether ``error`` proves that the statement was not committed."""
    code = error.get("C", "")
    if error.get("V", error.get("S")) != "ERROR":
        return code == "57P03"
    return code in DEFINITE or code[:2] in {"42", "22", "28", "3D", "3F", "53"}
