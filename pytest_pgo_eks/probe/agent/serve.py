"""One process that answers command after command, because most of a command is its start.

``serve`` reads JSON lines ``{"id", "do", "stdin", "directory"}`` from standard input and answers each
with a line ``{"id", "answers"}`` or ``{"id", "failed"}``, in the order in which they finish. Every
``ask`` still is a new session: only the process lives on. A spare for the next run waits with
everything imported. The end of the input ends it all, and so does a quarter of an hour of silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Any

from . import oneshot, relay, workload

_LINE_BYTES = 1 << 24
_SILENCE_S = 900.0


class Server:
    """The process behind one standard input."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._spare: asyncio.subprocess.Process | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LINE_BYTES)
        pipe = os.fdopen(0, "rb", buffering=0)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        _say({"ready": os.getpid()})
        self._spare = await _new_spare()
        try:
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    line = await reader.readline()
                if not line:
                    return 0
                task = loop.create_task(self._answer(json.loads(line)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except TimeoutError:
            return 0
        finally:
            for task in self._tasks:
                task.cancel()
            await self._end_spare()
            oneshot.forget_files()

    async def _answer(self, wanted: dict[str, Any]) -> None:
        told: dict[str, Any] = {"id": wanted.get("id")}
        try:
            told["answers"] = await self._do(wanted)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other side must hear of it
            told["failed"] = f"{type(error).__name__}: {error}"
        _say(told)

    async def _do(self, wanted: dict[str, Any]) -> list[Any]:
        given = wanted.get("stdin") or {}
        match wanted["do"]:
            case "ping":
                return [{"at": time.monotonic_ns()}]
            case "ask":
                return await oneshot.answers(given)
            case "relay":
                return await relay.answers(given)
            case "prepare":
                sql = workload.prepare_sql(given["counters"], given.get("role"))
                return await oneshot.answers({"target": given["target"], "sql": sql})
            case "ctl":
                return [await _control(wanted["directory"], given)]
            case "run":
                return [await self._start(wanted["directory"], given)]
        raise ValueError(f"unknown command {wanted['do']!r}")

    async def _start(self, directory: str, config: dict[str, Any]) -> Any:
        """Let the spare go to work, and keep another one."""
        spare = self._spare or await _new_spare()
        self._spare = None
        said, errors = await spare.communicate(
            json.dumps({"directory": directory, "config": config}).encode() + b"\n"
        )
        self._spare = await _new_spare()
        if spare.returncode != 0 or not said:
            raise ChildProcessError(errors.decode("utf-8", "replace")[-500:] or "no word")
        return json.loads(said)

    async def _end_spare(self) -> None:
        if self._spare is not None:
            await self._spare.communicate(b"")


async def _new_spare() -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-I", "-S", sys.argv[0], "spare")
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)


async def _control(directory: str, command: dict[str, Any]) -> Any:
    try:
        reader, writer = await asyncio.open_unix_connection(
            f"{directory}/control", limit=_LINE_BYTES
        )
    except OSError as error:
        raise ConnectionError(f"no probe runs in {directory}: {error}") from error
    writer.write(json.dumps(command).encode() + b"\n")
    answer = await reader.readline()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    if not answer:
        raise ConnectionError(f"the probe in {directory} ended without an answer")
    return json.loads(answer)


def _say(told: dict[str, Any]) -> None:
    data = json.dumps(told).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]
