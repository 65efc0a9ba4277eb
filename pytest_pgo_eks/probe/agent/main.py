"""Running the agent: its spool file, its control socket, its end.

``run DIR`` reads its configuration, one line, from standard input (so that no password is ever on a disk or
in a process list), goes to the background and answers with one JSON line. From then on

* ``DIR/stream.jsonl`` grows; whoever reads it can stop at any byte and go on from there later;
* ``DIR/control`` is a socket that takes one JSON command per connection (``ctl DIR`` passes on a line of its standard input).

The file is the truth: what a reader was told was written before it could be read. If the disk is
full, lines wait in memory and go out when there is room; when too many wait, the load stops. The
probe would rather stop than forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from . import oneshot, readback, serve, workload
from .append import Lists
from .load import Clients, PathPlan
from .load import Path as LoadPath
from .monitor import Monitor
from .oneshot import target
from .records import Recorder
from .watch import Watch

_FLUSH_S = 0.1
_HEARTBEAT_S = 1.0
_BACKLOG_BYTES = 128 << 20
_DRAIN_S = 0.5
_ABANDONED_S = 900.0


class Spool:
    """The pod's own file. Lines are whole or absent: a torn write is cut off before the next."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._size = 0
        self._waiting: list[bytes] = []
        self.error = ""

    @property
    def waiting_bytes(self) -> int:
        return sum(map(len, self._waiting))

    def write(self, line: bytes | None) -> bool:
        """Append ``line`` and whatever waits; False if the disk did not take all of it."""
        if line is not None:
            self._waiting.append(line)
        while self._waiting:
            data = self._waiting[0]
            try:
                written = os.pwrite(self._fd, data, self._size)
                if written < len(data):
                    os.ftruncate(self._fd, self._size)
            except OSError as error:
                self.error = str(error)
                return False
            if written < len(data):
                self.error = f"only {written} of {len(data)} bytes fitted"
                return False
            self._size += len(data)
            del self._waiting[0]
        return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._fd)
        os.close(self._fd)


class Agent:
    """Everything that runs between ``run`` and ``stop``."""

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        self.directory = directory
        self.config = config
        self.recorder = Recorder(config["run"], without_secrets(config))
        # Lists in use are chosen at random; a seed in the settings has the same choices made again.
        chance = random.Random(config.get("settings", {}).get("seed"))  # noqa: S311 - load, no secret
        self.shared = Clients(self.recorder, lists=Lists(chance))
        self.paths: dict[str, LoadPath] = {}
        self.spool = Spool(directory / "stream.jsonl")
        self.ended = asyncio.Event()
        self._full = False
        self._ending = False
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        self.spool.write(self.recorder.header())
        server = await asyncio.start_unix_server(
            self._serve, path=str(self.directory / "control"), limit=1 << 22
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminated)
        for plan in self.config.get("paths", ()):
            self.add_path(plan)
        running = [loop.create_task(self._flush_forever())]
        if watch := self.config.get("watch"):
            running.append(loop.create_task(Watch(self.recorder, watch).run()))
        for spec in self.config.get("monitors", ()):
            monitor = Monitor(self.shared, spec["name"], target(spec["target"]), spec["every_s"])
            running.append(loop.create_task(monitor.run()))
        await self.ended.wait()
        for task in running:
            task.cancel()
        server.close()
        self.spool.close()

    def add_path(self, plan: dict[str, Any]) -> None:
        plan = dict(plan)
        path = LoadPath(PathPlan(target=target(plan.pop("target")), **plan), self.shared)
        self.paths[path.plan.name] = path
        self.recorder.event("path", number=path.number, name=path.plan.name, reads=path.plan.reads)
        path.start()

    def _terminated(self, reason: str = "terminated") -> None:
        if not self._ending:
            self._background.add(asyncio.get_running_loop().create_task(self.stop(reason)))

    def _abandoned(self) -> bool:
        """Tell whether nobody has read the stream for so long that the runner must be gone.

        Without this a runner that was killed would leave a load on somebody's cluster for good.
        """
        if self._ending:
            return False
        try:
            heard = (self.directory / "pid").stat().st_mtime
        except OSError:
            return False
        return time.time() - heard > float(self.config.get("abandoned_s", _ABANDONED_S))

    async def _flush_forever(self) -> None:
        quiet_since = time.monotonic()
        while True:
            await asyncio.sleep(_FLUSH_S)
            line = self.recorder.cut()
            if line is None and time.monotonic() - quiet_since >= _HEARTBEAT_S:
                line = self.recorder.cut(idle=True)
            if line is not None:
                quiet_since = time.monotonic()
            if self._abandoned():
                self._terminated("abandoned")
            if self.spool.write(line):
                if self._full:
                    self.recorder.event("disk", state="has room again")
                self._full = False
                continue
            if not self._full:
                self._full = True
                self.recorder.event("disk", state="full", error=self.spool.error)
            if self.spool.waiting_bytes > _BACKLOG_BYTES and not self.shared.stopping:
                self.recorder.event("disk", state="load stopped: too much waits to be written")
                self._halt()

    def _halt(self) -> None:
        self.shared.stopping = True
        for path in self.paths.values():
            path.quit()

    async def stop(self, reason: str) -> None:
        """End the load: let what is under way come back for a moment, abort the rest, say the end."""
        if self._ending:
            await self.ended.wait()
            return
        self._ending = True
        await self.quiet()
        line = self.recorder.cut(end=reason)
        for _ in range(50):
            if self.spool.write(line):
                break
            line = None
            await asyncio.sleep(0.1)
        self.ended.set()

    async def quiet(self) -> None:
        """End the load but not the agent, so that the tables can be read back in peace."""
        self.shared.stopping = True
        for _ in range(round(_DRAIN_S / 0.01)):
            if not any(p.busy() for p in self.paths.values()):
                break
            await asyncio.sleep(0.01)
        self._halt()
        # Two turns of the loop: cancelled scouts record themselves, aborted sessions finish.
        for _ in range(20):
            await asyncio.sleep(0)
        self.recorder.event("load-ended", under_way=sum(p.busy() for p in self.paths.values()))

    # -- control

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            command = json.loads(await reader.readline())
            answer = await self._obey(command)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other side must hear of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()

    async def _obey(self, command: dict[str, Any]) -> dict[str, Any]:
        do = command.get("do")
        if do == "mark":
            self.recorder.event("mark", name=command["name"], **command.get("details", {}))
            return {"at": self.recorder.events[-1]["at"]}
        if do == "status":
            return {
                "at": time.monotonic_ns(),
                "ops": self.recorder.next_op - 1,
                "waiting_bytes": self.spool.waiting_bytes,
                "skipped_scouts": {
                    p.plan.name: p.scouts.skipped for p in self.paths.values() if p.scouts
                },
            }
        if do == "path":
            self.add_path(command["path"])
            return {}
        if do == "pin":
            self.paths[command["path"]].pin(int(command.get("count", 1)))
            return {}
        if do == "quiet":
            await self.quiet()
            return {"at": time.monotonic_ns()}
        if do == "readback":
            return await readback.read_back(
                self.recorder,
                self.shared,
                command["name"],
                target(command["target"]),
                float(command.get("within_s", 60.0)),
            )
        if do == "stop":
            await self.stop(command.get("reason", "stopped"))
            return {}
        return {"error": f"unknown command {do!r}"}


def without_secrets(value: Any) -> Any:
    """Return ``value`` without passwords, tokens and certificates."""
    if isinstance(value, dict):
        return {
            key: "********" if key in {"password", "token"} and item else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value


def main(argv: list[str]) -> int:
    """See the usage line; what needs a password reads JSON from standard input."""
    match argv:
        case ["run", directory]:
            return _daemon(Path(directory), json.loads(sys.stdin.readline()))
        case ["spare"]:
            told = json.loads(sys.stdin.readline() or "null")
            return _daemon(Path(told["directory"]), told["config"]) if told else 0
        case ["serve"]:
            return asyncio.run(serve.Server().run())
        case ["foreground", directory]:
            return _foreground(Path(directory), json.loads(sys.stdin.readline()))
        case ["ask"]:
            return oneshot.main(json.loads(sys.stdin.readline()))
        case ["prepare"]:
            wanted = json.loads(sys.stdin.readline())
            sql = workload.prepare_sql(wanted["counters"], wanted.get("role"))
            return oneshot.main({"target": wanted["target"], "sql": sql})
    print(
        "usage: run DIR | foreground DIR | ctl DIR | follow DIR OFFSET | ask | prepare | serve",
        file=sys.stderr,
    )
    return 2


def _foreground(directory: Path, config: dict[str, Any]) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pid").write_text(str(os.getpid()), encoding="ascii")

    async def go() -> None:
        await Agent(directory, config).run()

    try:
        asyncio.run(go())
    except Exception:  # noqa: BLE001 -- the log file is all that a daemon has
        traceback.print_exc()
        return 1
    return 0


def _daemon(directory: Path, config: dict[str, Any]) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        log = os.open(directory / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(_foreground(directory, config))
    for _ in range(1000):
        if (directory / "control").exists():
            print(json.dumps({"pid": int((directory / "pid").read_text(encoding="ascii"))}))
            return 0
        time.sleep(0.01)
    with contextlib.suppress(OSError):
        print((directory / "agent.log").read_text(encoding="utf-8"), file=sys.stderr)
    return 1
