"""What the probe records: columns from the start, cut into numbered batches.

A stream is text lines. Line 0 is the header: format, version, run, the columns of every table, the
configuration, and one pair of wall clock and monotonic clock. Every later line is one batch::

    {"q": 17,               number of the batch, no gaps
     "k": 2774183010,       CRC-32 of the line before, so that a spliced or edited stream shows
     "m": 81273…,  "w": …   monotonic and wall clock when the batch was cut, nanoseconds
     "hi": 4711,            every operation number below this one had begun
     "t": {"ops": [120, "eJx…"], …},   per table: rows, base64 of zlib of the columns one after another
     "s": [[3, {…}], …],    servers met for the first time, by number
     "c": [[5, "57P01"], …] words met for the first time (SQLSTATEs and reasons), by number
     "e": [{…}, …],         events
     "open": [[4709, …]],   operations still under way (only in an end batch)
     "end": "stopped"}      only in the last batch of a run that ended well

Times are nanoseconds of the pod's monotonic clock. 0 means "never". Numbers are little-endian.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from array import array
from typing import Any

FORMAT = "pgo-probe"
VERSION = 1

# Column name and array type code. q/Q are eight bytes, i/I four, H two, B one.
TABLES: dict[str, tuple[tuple[str, str], ...]] = {
    "ops": (
        ("op", "q"),
        ("invoke", "q"),  # the attempt began
        ("sent", "q"),  # the statement was handed to the socket; 0: it never was
        ("done", "q"),  # the outcome was known
        ("value", "q"),  # counter after the write; number of cells for a read
        ("lsn", "Q"),  # insert position in the statement (primary), replay position (standby)
        ("timeline", "i"),  # of the WAL written; 0: not told (a standby does not tell)
        ("key", "i"),  # counter; -1: insert-only row of a scout
        ("client", "H"),
        ("code", "H"),
        ("server", "H"),
        ("kind", "B"),
        ("session", "B"),
        ("path", "B"),
        ("outcome", "B"),
        ("level", "B"),  # synchronous_commit of the session
        ("recovery", "B"),  # 1: the server said that it was in recovery
    ),
    # The cells that a read returned.
    "cells": (("op", "q"), ("value", "q"), ("key", "i")),
    # One look at one server by the monitor.
    "looks": (
        ("asked", "q"),
        ("told", "q"),
        ("lsn", "Q"),
        ("monitor", "H"),
        ("server", "H"),
        ("timeline", "i"),
        ("recovery", "B"),
        ("sync", "B"),  # standbys in state sync or quorum that stream
        ("streaming", "B"),
        ("names", "H"),  # word: synchronous_standby_names; 0: empty
        ("who", "H"),  # word: application names of the synchronous standbys, sorted; 0: none
    ),
    # list-append: one row per micro-operation.
    "micro": (
        ("op", "q"),
        ("value", "q"),
        ("at", "q"),
        ("key", "i"),
        ("count", "i"),
        ("kind", "B"),
    ),
    # The elements of the lists that reads in "micro" returned, in order.
    "elements": (("value", "q"),),
    # What is really there at the end: the log and the counters, per server.
    "rows": (
        ("op", "q"),
        ("value", "q"),
        ("lsn", "Q"),
        ("timeline", "i"),
        ("key", "i"),
        ("source", "H"),
    ),
}

WRITE, READ, CONNECT, TXN = range(4)
KINDS = ("write", "read", "connect", "txn")
OK, UNSAFE, FAIL, INFO = range(4)
OUTCOMES = ("ok", "unsafe", "fail", "info")
PACED, SCOUT, PINNED = range(3)
SESSIONS = ("paced", "scout", "pinned")
LEVELS = ("unknown", "off", "local", "remote_write", "on", "remote_apply")

Row = tuple[int, ...]


class Table:
    """Rows as tuples while they are few, cut into columns once per batch.

    Appending one tuple costs a tenth of appending to seventeen arrays; the cut is done per batch.
    """

    def __init__(self, columns: tuple[tuple[str, str], ...]) -> None:
        self.columns = columns
        self.rows: list[Row] = []

    def cut(self) -> list[Any] | None:
        if not self.rows:
            return None
        # The list stays the same object: somebody may hold on to it across an await.
        rows = self.rows.copy()
        self.rows.clear()
        blob = b"".join(
            array(code, column).tobytes()
            for (_, code), column in zip(self.columns, zip(*rows, strict=True), strict=True)
        )
        return [len(rows), base64.b64encode(zlib.compress(blob, 1)).decode()]


class Words:
    """Numbers for strings and servers, told once each."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._fresh: list[list[Any]] = []

    def number(self, word: str) -> int:
        known = self._numbers.get(word)
        return known if known is not None else self.add(word, word)

    def known(self, key: object) -> int | None:
        return self._numbers.get(key)

    def add(self, key: object, meaning: object) -> int:
        number = len(self._numbers) + 1
        if number > 65_000:
            return 65_535
        self._numbers[key] = number
        self._fresh.append([number, meaning])
        return number

    def cut(self) -> list[list[Any]]:
        fresh, self._fresh = self._fresh, []
        return fresh


class Recorder:
    """Collects rows and events and cuts them into lines."""

    def __init__(self, run: str, config: dict[str, Any]) -> None:
        self.run = run
        self.ops = Table(TABLES["ops"])
        self.cells = Table(TABLES["cells"])
        self.looks = Table(TABLES["looks"])
        self.micro = Table(TABLES["micro"])
        self.elements = Table(TABLES["elements"])
        self.final = Table(TABLES["rows"])
        self.words = Words()
        self.servers = Words()
        self.events: list[dict[str, Any]] = []
        self.next_op = 1
        self._number = 0
        self._crc = 0
        self._config = config
        self._tables = {
            "ops": self.ops,
            "cells": self.cells,
            "looks": self.looks,
            "micro": self.micro,
            "elements": self.elements,
            "rows": self.final,
        }

    def new_op(self) -> int:
        op = self.next_op
        self.next_op = op + 1
        return op

    def event(self, kind: str, **details: Any) -> None:
        """Note that something happened now (``at``: nanoseconds of the monotonic clock)."""
        self.events.append({"at": time.monotonic_ns(), "kind": kind, **details})

    def header(self) -> bytes:
        return self._line(
            {
                "format": FORMAT,
                "version": VERSION,
                "run": self.run,
                "tables": {
                    name: [list(column) for column in columns] for name, columns in TABLES.items()
                },
                "names": {
                    "kind": KINDS,
                    "outcome": OUTCOMES,
                    "session": SESSIONS,
                    "level": LEVELS,
                },
                "config": self._config,
                "m": time.monotonic_ns(),
                "w": time.time_ns(),
            }
        )

    def cut(self, **extra: Any) -> bytes | None:
        """Return the next line, or None if nothing happened since the last one."""
        tables = {name: blob for name, table in self._tables.items() if (blob := table.cut())}
        events, self.events = self.events, []
        servers, words = self.servers.cut(), self.words.cut()
        if not (tables or events or servers or words or extra):
            return None
        batch: dict[str, Any] = {"m": time.monotonic_ns(), "w": time.time_ns(), "hi": self.next_op}
        told = {"t": tables, "s": servers, "c": words, "e": events}
        return self._line(batch | {name: value for name, value in told.items() if value} | extra)

    def _line(self, content: dict[str, Any]) -> bytes:
        line = json.dumps({"q": self._number, "k": self._crc} | content, separators=(",", ":"))
        raw = line.encode() + b"\n"
        self._number += 1
        self._crc = zlib.crc32(raw)
        return raw


def columns(table: str, blob: list[Any]) -> dict[str, array[int]]:
    """Undo :meth:`Table.cut` without NumPy."""
    count, text = blob
    raw = zlib.decompress(base64.b64decode(text))
    out: dict[str, array[int]] = {}
    at = 0
    for name, code in TABLES[table]:
        column = array(code)
        size = column.itemsize * count
        column.frombytes(raw[at : at + size])
        out[name] = column
        at += size
    return out
