"""Container logs: the CRI's format, rotation, tails, and following."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pytest_pgo_eks.local.kubelet.logs import (
    LogOptions,
    LogWriter,
    newest_first,
    read_log,
    since_time,
    timestamp,
)


def read(path: Path, **options: object) -> str:
    async def all_of() -> bytes:
        return b"".join([part async for part in read_log(path, LogOptions(**options))])  # type: ignore[arg-type]

    return asyncio.run(all_of()).decode()


def test_lines_are_stamped_and_split(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "0.log")
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"bad\n")
    log.write("stdout", b"o\nrest")
    log.close()
    lines = (tmp_path / "0.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "stdout F one",
        "stderr F bad",
        "stdout F two",
        "stdout F rest",
    ]
    assert read(tmp_path / "0.log") == "one\nbad\ntwo\nrest\n"
    assert read(tmp_path / "0.log", tail=2) == "two\nrest\n"
    assert read(tmp_path / "0.log", tail=0) == ""
    assert read(tmp_path / "0.log", limit_bytes=5) == "one\nb"
    stamped = read(tmp_path / "0.log", timestamps=True).splitlines()[0]
    assert stamped.endswith("Z one")


def test_long_lines_are_stored_in_parts_and_read_whole(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "0.log")
    long = b"x" * 40_000
    for start in range(0, len(long), 7000):
        log.write("stdout", long[start : start + 7000])
    log.write("stdout", b"\nshort\n")
    log.close()
    assert max(map(len, (tmp_path / "0.log").read_bytes().splitlines())) < 17_000
    assert read(tmp_path / "0.log") == long.decode() + "\nshort\n"
    assert read(tmp_path / "0.log", tail=2) == long.decode() + "\nshort\n"
    assert read(tmp_path / "0.log", tail=1) == "short\n"


def test_rotation_bounds_the_disk_and_keeps_the_newest(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "0.log", rotate_bytes=1000)
    for i in range(200):
        log.write("stdout", f"line {i:03}\n".encode())
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["0.log", "0.log.1", "0.log.2"]
    assert all(f.stat().st_size <= 1000 for f in files)
    found = read(tmp_path / "0.log").splitlines()
    assert found[-1] == "line 199"
    assert found == [f"line {i:03}" for i in range(200 - len(found), 200)]


def test_following_misses_nothing_across_rotation(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        log = LogWriter(tmp_path / "0.log", rotate_bytes=500)
        log.write("stdout", b"before\n")
        parts: list[bytes] = []

        async def follow() -> None:
            parts.extend([p async for p in read_log(log.path, LogOptions(follow=True), log)])

        task = asyncio.create_task(follow())
        for i in range(50):
            log.write("stdout", f"{i}\n".encode())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        log.close()
        async with asyncio.timeout(5):
            await task
        return b"".join(parts).decode().splitlines()

    assert asyncio.run(scenario()) == ["before", *map(str, range(50))]


def test_since(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(
        b"2026-11-23T09:19:53.000000000Z stdout F old\n2026-11-23T09:19:55.000000000Z stdout F new\n"
    )
    assert read(path, since=since_time("2026-11-23T10:19:54+01:00")) == "new\n"
    assert timestamp(1_500_000_001) == "1970-01-01T00:00:01.500000001Z"
    with pytest.raises(ValueError, match="zone"):
        since_time("2026-11-23T10:19:54")


def test_newest_first(tmp_path: Path) -> None:
    for number in (2, 10, 9):
        (tmp_path / f"{number}.log").touch()
    (tmp_path / "10.log.1").touch()
    assert [p.stem for p in newest_first(tmp_path)] == ["10", "9", "2"]
