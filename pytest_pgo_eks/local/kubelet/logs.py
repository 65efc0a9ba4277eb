"""Container logs as files in the CRI's format, and reading them back.

``2026-11-23T09:19:53.123456789Z stdout F text``: ``F`` ends a line, ``P`` is a part of a long one.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

# A line longer than this is stored in parts, as containerd does.
_PART = 16 * 1024
_ROTATE_BYTES = 10 * 1024 * 1024
_KEPT = 3


def timestamp(at_ns: int) -> str:
    """Return RFC 3339 with nanoseconds, as the CRI writes it."""
    seconds, nanos = divmod(at_ns, 1_000_000_000)
    whole = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


class LogWriter:
    """One container's log; ``write`` takes what came from a stream, in any pieces.

    It rotates at 10 MiB and keeps two older files (``0.log.1`` the newer of them).
    """

    def __init__(self, path: Path, *, rotate_bytes: int = _ROTATE_BYTES) -> None:
        self.path = path
        self.ended = False
        self._rotate_bytes = rotate_bytes
        self._rest: dict[str, bytes] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()

    def write(self, stream: str, data: bytes) -> None:
        now = timestamp(time.time_ns())
        *lines, rest = (self._rest.get(stream, b"") + data).split(b"\n")
        out = [record for line in lines for record in _records(now, stream, line, b"F")]
        while len(rest) >= _PART:
            out.append(_record(now, stream, b"P", rest[:_PART]))
            rest = rest[_PART:]
        self._rest[stream] = rest
        self._put(b"".join(out))

    def close(self) -> None:
        """Write what is left without a line's end; followers then finish. Idempotent."""
        if self.ended:
            return
        now = timestamp(time.time_ns())
        self._put(b"".join(_record(now, s, b"F", r) for s, r in self._rest.items() if r))
        self.ended = True
        self._file.close()
        self._wake()

    def _put(self, data: bytes) -> None:
        if not data or self.ended:
            return
        if self._size and self._size + len(data) > self._rotate_bytes:
            self._rotate()
        self._file.write(data)
        self._size += len(data)
        self._wake()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(_KEPT - 1, 0, -1):
            older = _rotated(self.path, number - 1)
            if older.exists():
                older.replace(_rotated(self.path, number))
        self._file = self.path.open("ab", buffering=0)
        self._size = 0

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def changed(self) -> None:
        """Wait for the next line, or for the end."""
        if self.ended:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)


@dataclass(frozen=True)
class LogOptions:
    """What ``kubectl logs`` asks for; ``since`` is an RFC 3339 moment in UTC."""

    follow: bool = False
    tail: int | None = None
    since: str | None = None
    timestamps: bool = False
    limit_bytes: int | None = None


async def read_log(
    path: Path, options: LogOptions, writer: LogWriter | None = None
) -> AsyncIterator[bytes]:
    """Yield the log's text; with ``writer`` and ``follow``, until the container ends."""
    budget = options.limit_bytes
    lines = _since(_stored(path), options.since)
    if options.tail is not None:
        lines = iter(_last(list(lines), options.tail))
    position = _end(path)
    async for chunk in _render(lines, path, position, options, writer):
        if budget is not None:
            yield chunk[:budget]
            budget -= len(chunk)
            if budget <= 0:
                return
        else:
            yield chunk


async def _render(
    lines: Iterator[bytes],
    path: Path,
    position: tuple[int, int],
    options: LogOptions,
    writer: LogWriter | None,
) -> AsyncIterator[bytes]:
    ready = b"".join(_text(line, options) for line in lines)
    if ready:
        yield ready
    while options.follow and writer:
        ended = writer.ended
        fresh, position = _read_on(path, position)
        if fresh:
            yield b"".join(_text(line, options) for line in fresh)
        elif ended:
            return
        else:
            await writer.changed()


def _stored(path: Path) -> Iterator[bytes]:
    for number in range(_KEPT - 1, -1, -1):
        file = _rotated(path, number)
        if file.exists():
            yield from file.read_bytes().splitlines()


def _rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _end(path: Path) -> tuple[int, int]:
    """Return (inode, size): where following goes on."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size


def _read_on(path: Path, position: tuple[int, int]) -> tuple[list[bytes], tuple[int, int]]:
    inode, offset = position
    lines: list[bytes] = []
    older = _rotated(path, 1)
    if _end(path)[0] != inode and _end(older)[0] == inode:
        lines += _whole_lines(older, offset)[0]
        offset = 0
    fresh, size = _whole_lines(path, offset)
    return lines + fresh, (_end(path)[0], size)


def _whole_lines(path: Path, offset: int) -> tuple[list[bytes], int]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError:
        return [], offset
    # Records are written whole, by one write call each time.
    return data.splitlines(), offset + len(data)


def _since(lines: Iterator[bytes], moment: str | None) -> Iterator[bytes]:
    if moment is None:
        return lines
    # Stamps have one width and one zone, so that their order is that of their text.
    first = moment.encode()
    return (line for line in lines if line.split(b" ", 1)[0] >= first)


def _last(lines: list[bytes], count: int) -> list[bytes]:
    """Return the last ``count`` lines, the parts of a long line together."""
    if count <= 0:
        return []
    ends = [i for i, line in enumerate(lines) if line.split(b" ", 3)[2:3] == [b"F"]]
    wanted = count + (1 if ends and ends[-1] != len(lines) - 1 else 0)
    return (
        lines if len(ends) < wanted else lines[ends[-wanted - 1] + 1 if len(ends) > wanted else 0 :]
    )


def _text(line: bytes, options: LogOptions) -> bytes:
    stamp, _, rest = line.partition(b" ")
    _stream, _, rest = rest.partition(b" ")
    tag, _, content = rest.partition(b" ")
    head = stamp + b" " if options.timestamps else b""
    return head + content + (b"\n" if tag == b"F" else b"")


def _records(now: str, stream: str, line: bytes, tag: bytes) -> Iterator[bytes]:
    while len(line) > _PART:
        yield _record(now, stream, b"P", line[:_PART])
        line = line[_PART:]
    yield _record(now, stream, tag, line)


def _record(now: str, stream: str, tag: bytes, content: bytes) -> bytes:
    return b" ".join((now.encode(), stream.encode(), tag, content)) + b"\n"


def remove_log(path: Path) -> None:
    for number in range(_KEPT):
        _rotated(path, number).unlink(missing_ok=True)


def newest_first(directory: Path) -> list[Path]:
    """Return the logs of a container's restarts, the newest first."""
    found = [p for p in directory.glob("*.log") if p.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def since_seconds(seconds: float) -> str:
    """Return the moment so many seconds ago, as ``LogOptions.since`` wants it."""
    return timestamp(time.time_ns() - int(seconds * 1e9))


def since_time(text: str) -> str:
    """Return an RFC 3339 moment of any zone as ``LogOptions.since`` wants it.

    :raises ValueError: it is none.
    """
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return timestamp(int(moment.timestamp() * 1e6) * 1000)
