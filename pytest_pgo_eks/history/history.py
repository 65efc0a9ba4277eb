"""A recorded run as columns.

The file is what the probe's agent wrote, line by line (``*.jsonl.gz``), with one line of the runner
behind it; ``docs/history-format.md`` describes it. Its header names the columns, so an
older or newer probe can be read as long as what a checker needs is there.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_pgo_eks.errors import BrokenHistory

FORMAT = "pgo-probe"
VERSION = 1

WRITE, READ, CONNECT, TXN = range(4)
OK, UNSAFE, FAIL, INFO = range(4)
PACED, SCOUT, PINNED = range(3)
OUTCOMES = ("ok", "unsafe", "fail", "info")
SESSIONS = ("paced", "scout", "pinned")
LEVELS = ("unknown", "off", "local", "remote_write", "on", "remote_apply")

Column = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

# Sixty million operations. A history may come from anywhere, and a few bytes may unpack to more.
_MOST_BYTES = 4 << 30

_TYPES = {"q": "<i8", "Q": "<u8", "i": "<i4", "I": "<u4", "H": "<u2", "B": "u1"}
_KNOWN: dict[str, tuple[tuple[str, str], ...]] = {
    "ops": (
        *((name, "q") for name in ("op", "invoke", "sent", "done", "value")),
        ("lsn", "Q"),
        ("timeline", "i"),
        ("key", "i"),
        *((name, "H") for name in ("client", "code", "server")),
        *((name, "B") for name in ("kind", "session", "path", "outcome", "level", "recovery")),
    ),
    "cells": (("op", "q"), ("value", "q"), ("key", "i")),
    "looks": (
        ("asked", "q"),
        ("told", "q"),
        ("lsn", "Q"),
        ("monitor", "H"),
        ("server", "H"),
        ("timeline", "i"),
        ("recovery", "B"),
        ("sync", "B"),
        ("streaming", "B"),
        ("names", "H"),
        ("who", "H"),
    ),
    "micro": (
        ("op", "q"),
        ("value", "q"),
        ("at", "q"),
        ("key", "i"),
        ("count", "i"),
        ("kind", "B"),
    ),
    "elements": (("value", "q"),),
    "rows": (
        ("op", "q"),
        ("value", "q"),
        ("lsn", "Q"),
        ("timeline", "i"),
        ("key", "i"),
        ("source", "H"),
    ),
}


class Table:
    """Columns of equal length, reached as attributes; see the module of the agent for meanings."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = dict(columns)
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) > 1:
            raise BrokenHistory(f"columns of unequal length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getattr__(self, name: str) -> Column:
        try:
            return self.columns[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, which: Mask | npt.NDArray[np.intp] | slice) -> Table:
        return Table({name: column[which] for name, column in self.columns.items()})

    @classmethod
    def empty(cls, name: str) -> Table:
        return cls({column: np.empty(0, _TYPES[code]) for column, code in _KNOWN[name]})

    @classmethod
    def rows(cls, name: str, rows: Sequence[Mapping[str, int]]) -> Table:
        """Build a table from dicts; missing columns are 0 (for tests and small histories)."""
        return cls(
            {
                column: np.array([row.get(column, 0) for row in rows], _TYPES[code])
                for column, code in _KNOWN[name]
            }
        )


@dataclass(frozen=True)
class History:
    """One run. Times are nanoseconds of the probe's monotonic clock.

    ``ops`` holds every operation that ended, ``under_way_from`` the number of the first operation
    that may have begun and left no record (None: the run ended well, every operation is here).
    ``rows`` is what was read back at the end: log rows with their operation's number, counters with
    number 0; ``sources`` tells which server each came from.
    """

    ops: Table
    cells: Table = field(default_factory=lambda: Table.empty("cells"))
    looks: Table = field(default_factory=lambda: Table.empty("looks"))
    micro: Table = field(default_factory=lambda: Table.empty("micro"))
    elements: Table = field(default_factory=lambda: Table.empty("elements"))
    rows: Table = field(default_factory=lambda: Table.empty("rows"))
    events: tuple[Mapping[str, Any], ...] = ()
    words: Mapping[int, str] = field(default_factory=dict)
    servers: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    paths: Mapping[int, str] = field(default_factory=dict)
    reading_paths: frozenset[int] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    end: str | None = "stopped"
    began: int = 0
    wall_offset: int = 0
    """Add to a time of this history to get nanoseconds of Unix time (the pod's clock)."""
    under_way_from: int | None = None
    source: str = ""
    """The file this was read from."""

    # -- reading

    @classmethod
    def load(cls, file: Path | str) -> History:
        """Read a history file.

        :raises BrokenHistory: not one, truncated, with a hole, or of another version; one line.
        """
        path = Path(file)
        try:
            if path.suffix == ".gz":
                with gzip.open(path, "rb") as stream:
                    raw = stream.read()
            else:
                raw = path.read_bytes()
        except (OSError, EOFError, zlib.error) as error:
            raise BrokenHistory(f"{path}: cannot be read: {error}") from error
        if not raw.strip():
            raise BrokenHistory(f"{path}: empty")
        try:
            history = cls.of(raw.splitlines(keepends=True))
        except BrokenHistory as error:
            raise BrokenHistory(f"{path}: {error}") from error
        return replace(history, source=path.name)

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> History:
        """Make a history of the probe's lines, header first, as far as they go.

        :raises BrokenHistory: a line is damaged or missing, or no header begins it.
        """
        return _Reader().read(lines)

    def with_read_back(self, other: History) -> History:
        """Return this run judged by what another run read back (its probe died before it could)."""
        words = dict(self.words)
        base = max(words, default=0)
        rows = other.rows.columns | {"source": other.rows.source + np.uint16(base)}
        events = [
            {**e, "source": e["source"] + base} for e in other.events if e["kind"] == "read-back"
        ]
        return replace(self, rows=Table(rows), events=(*self.events, *events))

    # -- looking

    @cached_property
    def is_complete(self) -> bool:
        """Whether the run ended well, so that an operation without a record never began."""
        return self.under_way_from is None

    def word(self, number: int) -> str:
        return self.words.get(int(number), "")

    def server(self, number: int) -> str:
        """Return a printable identity of a server."""
        told = self.servers.get(int(number))
        if not told:
            return "?"
        return str(told.get("name") or f"{told.get('addr')}:{told.get('port')}")

    def path(self, number: int) -> str:
        return self.paths.get(int(number), f"path {number}")

    def path_number(self, name: str) -> int:
        """Return the number of the path called ``name``.

        :raises BrokenHistory: there is none.
        """
        for number, known in self.paths.items():
            if known == name:
                return number
        raise BrokenHistory(
            f"no path {name!r} was measured; there are {sorted(self.paths.values())}"
        )

    def seconds(self, at: int) -> float:
        """Return ``at`` as seconds since the run began."""
        return (int(at) - self.began) / 1e9

    def marks(self, prefix: str = "") -> list[Mapping[str, Any]]:
        """Return the marks whose name begins with ``prefix``, in time order."""
        found = [
            e for e in self.events if e["kind"] == "mark" and str(e["name"]).startswith(prefix)
        ]
        return sorted(found, key=lambda e: e["at"])

    @cached_property
    def sources(self) -> dict[int, Mapping[str, Any]]:
        """The servers that were read back, by the number in ``rows.source``."""
        return {e["source"]: e for e in self.events if e["kind"] == "read-back"}

    def primary_source(self) -> Mapping[str, Any] | None:
        """Return the read-back that decides what survived: the primary's of the highest timeline."""
        primaries = [s for s in self.sources.values() if not s["in_recovery"]]
        return max(primaries, key=lambda s: (s["timeline"], s["at"]), default=None)

    def describe(self, index: int) -> str:
        """Return operation number ``index`` of the table as one line for a person."""
        o = self.ops
        kind = ("write", "read", "connect", "transaction")[o.kind[index]]
        what = f"counter {o.key[index]} = {o.value[index]}" if o.key[index] >= 0 else "row"
        outcome = OUTCOMES[o.outcome[index]]
        code = self.word(o.code[index])
        parts = [
            f"op {o.op[index]}",
            f"{self.seconds(o.invoke[index]):.3f}…{self.seconds(o.done[index]):.3f} s",
            f"{SESSIONS[o.session[index]]} {kind} through {self.path(o.path[index])}",
        ]
        if o.outcome[index] in (OK, UNSAFE):
            where = f"{self.server(o.server[index])} timeline {o.timeline[index]}"
            parts += [what, f"on {where} at {lsn_text(o.lsn[index])}"]
        parts.append(f"{outcome}{f' ({code})' if code else ''}")
        return ", ".join(parts)


def lsn_text(lsn: int) -> str:
    """Return a WAL position as PostgreSQL prints it."""
    return f"{int(lsn) >> 32:X}/{int(lsn) & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """Undo :func:`lsn_text`."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


class _Reader:
    """Reads lines into columns; one use."""

    def __init__(self) -> None:
        self.header: dict[str, Any] = {}
        self.parts: dict[str, dict[str, list[Column]]] = {}
        self.events: list[dict[str, Any]] = []
        self.words: dict[int, str] = {}
        self.servers: dict[int, dict[str, Any]] = {}
        self.end: str | None = None
        self.next_op = 1
        self.expected = 0
        self.crc = 0
        self.unpacked = 0

    def read(self, lines: Iterable[bytes]) -> History:
        for number, line in enumerate(lines):
            if not line.endswith(b"\n"):
                raise BrokenHistory(f"line {number + 1} is cut off")
            try:
                content = json.loads(line)
            except ValueError as error:
                raise BrokenHistory(f"line {number + 1} is no JSON: {error}") from error
            if not isinstance(content, dict):
                raise BrokenHistory(f"line {number + 1} is no JSON object")
            if "runner" in content and "q" not in content:
                self.end = content["runner"].get("end")
                continue
            self._line(content, line, number)
        if not self.header:
            raise BrokenHistory("no header: not a history of the probe")
        return self._history()

    def _line(self, content: dict[str, Any], line: bytes, number: int) -> None:
        if number == 0:
            if content.get("format") != FORMAT:
                raise BrokenHistory("not a history of the probe")
            if content.get("version") != VERSION:
                raise BrokenHistory(
                    f"format version {content.get('version')}; this program reads {VERSION}"
                )
            self.header = content
        if content.get("q") != self.expected or content.get("k") != self.crc:
            raise BrokenHistory(
                f"a hole: line {number + 1} should be number {self.expected} of the stream and is "
                f"{content.get('q')}" + ("" if content.get("q") != self.expected else ", edited")
            )
        self.expected += 1
        self.crc = zlib.crc32(line)
        if number == 0:
            return
        try:
            for name, blob in content.get("t", {}).items():
                self._columns(name, blob)
        except (KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
            raise BrokenHistory(f"line {number + 1}: damaged columns: {error}") from error
        self.words.update(dict(content.get("c", ())))
        self.servers.update(dict(content.get("s", ())))
        self.events.extend(content.get("e", ()))
        self.next_op = content.get("hi", self.next_op)
        self.end = content.get("end", self.end)

    def _columns(self, name: str, blob: Sequence[Any]) -> None:
        count, text = blob
        width = sum(np.dtype(_TYPES[code]).itemsize for _, code in self.header["tables"][name])
        self.unpacked += count * width
        if count < 0 or self.unpacked > _MOST_BYTES:
            raise ValueError(f"{count} rows in {name} are too many")
        # One byte more than is told, by which too many are noticed.
        raw = zlib.decompressobj().decompress(base64.b64decode(text), count * width + 1)
        at = 0
        into = self.parts.setdefault(name, {})
        for column, code in self.header["tables"][name]:
            data = np.frombuffer(raw, _TYPES[code], count, at)
            into.setdefault(column, []).append(data)
            at += data.nbytes
        if at != len(raw):
            raise ValueError(f"{len(raw) - at} bytes too many in {name}")

    def _table(self, name: str) -> Table:
        parts = self.parts.get(name)
        if not parts:
            return Table.empty(name)
        table = {column: np.concatenate(data) for column, data in parts.items()}
        if missing := [column for column, _ in _KNOWN[name] if column not in table]:
            raise BrokenHistory(f"table {name} lacks {', '.join(missing)}")
        return Table(table)

    def _history(self) -> History:
        paths = {e["number"]: e["name"] for e in self.events if e["kind"] == "path"}
        reading = frozenset(
            e["number"] for e in self.events if e["kind"] == "path" and e.get("reads")
        )
        ops = self._table("ops")
        ended = any(e["kind"] == "load-ended" and not e["under_way"] for e in self.events)
        # Without a proper end, what had begun and left no record may have happened. Records come
        # in the order in which operations ended, so only the oldest unrecorded number is certain.
        under_way = None if ended else _first_missing(ops.op, self.next_op)
        config = self.header.get("config", {})
        return History(
            ops=ops,
            cells=self._table("cells"),
            looks=self._table("looks"),
            micro=self._table("micro"),
            elements=self._table("elements"),
            rows=self._table("rows"),
            events=tuple(sorted(self.events, key=lambda e: e["at"])),
            words=self.words,
            servers=self.servers,
            paths=paths,
            reading_paths=reading,
            settings=config.get("settings", {}),
            config=config,
            run=str(self.header.get("run", "")),
            end=self.end,
            began=int(self.header["m"]),
            wall_offset=int(self.header["w"]) - int(self.header["m"]),
            under_way_from=under_way,
        )


def _first_missing(ops: Column, next_op: int) -> int:
    seen = np.zeros(next_op + 1, np.bool_)
    seen[0] = True
    seen[ops[ops <= next_op]] = True
    return int(np.argmin(seen))
