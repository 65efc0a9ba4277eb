"""Collecting a probe's stream: whole lines, in order, each on our disk before it counts.

The reader can be cut at any byte; it goes on from the last whole line. Every line has a number and
the checksum of its predecessor, so a hole, a repetition or an edit shows.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import BrokenHistory


class Stream:
    """The lines received so far. ``feed`` is called by one thread, everything else by any."""

    def __init__(self, part: Path) -> None:
        part.parent.mkdir(parents=True, exist_ok=True)
        self.part = part
        self._file = part.open("wb", buffering=0)
        self._rest = b""
        self._crc = 0
        self._changed = threading.Condition()
        self.offset = 0
        """Bytes of whole lines received: where to resume."""
        self.lines: list[bytes] = []
        self.batches: list[dict[str, Any]] = []
        self.end: str | None = None
        """Why the stream is over: the agent's word, or ours (``killed``, ``lost``)."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream.

        :raises BrokenHistory: a line is missing, comes twice, is damaged, or cannot be kept.
        """
        *whole, self._rest = (self._rest + data).split(b"\n")
        fresh = [line + b"\n" for line in whole]
        if not fresh:
            return
        parsed = [self._check(line, len(self.lines) + i) for i, line in enumerate(fresh)]
        try:
            self._file.write(b"".join(fresh))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise BrokenHistory(f"{self.part}: the history cannot be kept: {error}") from error
        with self._changed:
            self.lines.extend(fresh)
            self.batches.extend(parsed)
            self.offset += sum(map(len, fresh))
            if "end" in parsed[-1]:
                self.end = str(parsed[-1]["end"])
            self._changed.notify_all()

    def cut(self) -> int:
        """Forget a half received line and return the offset at which to go on."""
        self._rest = b""
        return self.offset

    def over(self, why: str) -> None:
        """Say that nothing more will come."""
        with self._changed:
            self.end = self.end or why
            self._changed.notify_all()

    def wait(self, seen: int, timeout_s: float) -> int:
        """Return the number of lines as soon as it exceeds ``seen``, the stream is over, or in time."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.lines) > seen or self.end, timeout_s)
            return len(self.lines)

    def close(self) -> None:
        self._file.close()

    def _check(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            batch = json.loads(line)
            told, crc = batch["q"], batch["k"]
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenHistory(
                f"line {number} of the probe's stream is damaged: {error}"
            ) from error
        if told != number or crc != self._crc:
            raise BrokenHistory(
                f"the probe's stream has a hole: after line {number - 1} came line {told}"
                + ("" if told != number else ", which follows another line than the one we have")
            )
        self._crc = zlib.crc32(line)
        return dict(batch)
