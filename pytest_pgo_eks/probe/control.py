"""The runner's side of the probe: its pod, its runs, its history file."""

from __future__ import annotations

import gzip
import json
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pytest_pgo_eks.errors import BrokenHistory, ExecProblem, Inconclusive, NotFound, WaitTimeout
from pytest_pgo_eks.probe.agent import records
from pytest_pgo_eks.probe.channel import Channel
from pytest_pgo_eks.probe.package import archive
from pytest_pgo_eks.probe.plan import Answer, Login, MonitorSpec, PathSpec
from pytest_pgo_eks.probe.shell import Running, Shell, tail
from pytest_pgo_eks.probe.stream import Stream

_HOME = "/tmp/pgo-probe"  # noqa: S108 -- a directory of the pod, which nobody else is in
_READ_S = 1.0
_RETRY_S = 0.2
_HEADER_S = 20.0
# An API server that is upgraded in place was away for minutes. The agent goes on for 15 of them
# without being read.
_AWAY_S = 300.0
_STOP_TRIES = 3


class Installed:
    """An agent that has been copied into a running pod, ready to be asked or started."""

    def __init__(
        self, shell: Shell, namespace: str, pod: str, *, python: str = "python3", home: str = _HOME
    ) -> None:
        self._shell = shell
        self.namespace = namespace
        self.pod = pod
        self._python = python
        self._home = home
        command = self.command("serve")
        self._channel = Channel(shell, namespace, pod, command, f"the probe in {namespace}/{pod}")

    def close(self) -> None:
        """End the process that answers; runs that are under way go on."""
        self._channel.close()

    def install(self) -> None:
        """Copy the agent into the pod.

        :raises Inconclusive: the image has no Python 3.11, or no room.
        """
        data = archive()
        # head counts, so nothing depends on an end of input that exec cannot say before 1.30.
        # Another worker may have copied it already and be running it: it is never half there.
        new = '"$1/agent.zip.$$"'
        script = f'mkdir -p "$1" && head -c {len(data)} > {new} && mv {new} "$1/agent.zip" && "$2" -c "$3"'
        check = "import asyncio, ssl, sys; sys.exit(sys.version_info < (3, 11))"
        ran = self._shell.exec(
            self.namespace,
            self.pod,
            ["sh", "-c", script, "install", self._home, self._python, check],
            stdin=data,
            deadline_s=60,
        )
        if ran.exit_status != 0:
            raise Inconclusive(
                f"the probe needs Python 3.11 with ssl in {self.namespace}/{self.pod} and could not "
                f"be installed: {tail(ran)}"
            )

    def command(self, *arguments: str) -> list[str]:
        # -I: nothing of the image's environment or user site changes what runs; -S starts faster.
        return [self._python, "-I", "-S", f"{self._home}/agent.zip", *arguments]

    def call(
        self, do: str, directory: str = "", *, stdin: Any = None, deadline_s: float = 30.0
    ) -> list[Any]:
        """Have the agent do one thing and return its answers.

        What needs a password travels on a standard input: arguments show in process lists.

        :raises ExecProblem: it failed, or did not answer in time.
        """
        answers = self._channel.ask(do, directory=directory, stdin=stdin, deadline_s=deadline_s)
        if not answers:
            raise ExecProblem(f"probe {do} in {self.namespace}/{self.pod}: no answer")
        return answers

    def ask(
        self, login: Login, sql: str, *, times: int = 1, at_once: int = 8, deadline_s: float = 10.0
    ) -> list[Answer]:
        """Connect ``times`` times, each a new session, run ``sql`` in each, return what came."""
        return self.ask_all([(login, sql)] * times, at_once=at_once, deadline_s=deadline_s)

    def ask_all(
        self, asks: Iterable[tuple[Login, str]], *, at_once: int = 8, deadline_s: float = 10.0
    ) -> list[Answer]:
        """Run each statement in a new session of its own; answers in the same order.

        :raises ExecProblem: the agent could not run.
        """
        told = [{"target": login.document(), "sql": sql} for login, sql in asks]
        rounds = -(-len(told) // at_once)
        answers = self.call(
            "ask",
            stdin={"asks": told, "at_once": at_once, "deadline_s": deadline_s},
            deadline_s=20 + rounds * deadline_s,
        )
        for answer in answers:
            if answer["stage"] == "usage":
                raise ValueError(answer["message"])
        return [Answer.of(answer) for answer in answers]

    def relay(
        self, writer: Login, reader: Login, pairs: Sequence[tuple[str, str]], *, deadline_s: float
    ) -> list[tuple[Answer, Answer | None]]:
        """Run each pair's first statement as ``writer`` and, once acknowledged, its second as ``reader``.

        One session each; there is no read (None) where the write failed or came with a notice.

        :raises ExecProblem: not all of it was done within ``deadline_s``.
        """
        told = self.call(
            "relay",
            stdin={"writer": writer.document(), "reader": reader.document(), "pairs": list(pairs)},
            deadline_s=deadline_s,
        )
        return [
            (Answer.of(one["wrote"]), Answer.of(one["read"]) if one["read"] else None)
            for one in told
        ]

    def prepare(self, login: Login, *, counters: int = 64, role: str | None = None) -> None:
        """Make the workload's tables afresh, as an owner of the database; ``role`` may use them.

        :raises Inconclusive: the server refused.
        """
        wanted = {
            "target": login.document(),
            "counters": counters,
            "role": role,
        }
        (told,) = self.call("prepare", stdin=wanted)
        answer = Answer.of(told)
        if not answer.ok:
            raise Inconclusive(f"the probe's tables: {answer.code}: {answer.message}")

    def start(
        self,
        paths: Sequence[PathSpec],
        file: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        watch: Mapping[str, Any] | None = None,
        monitors: Sequence[MonitorSpec] = (),
    ) -> Probe:
        """Start a run. ``settings`` (replication mode and the like) goes into the history as is.
        ``watch`` are the keys of the agent's ``Watch`` (``labels``, ``namespace``); none: no watch.

        Returns when the agent runs; its sessions open right after. ``file`` is where the history
        will be; until then it grows beside it with ``.part`` at its end.
        """
        run = uuid.uuid4().hex[:12]
        key, plans = 0, []
        for path in paths:
            plans.append(path.document(key))
            key += path.workers + path.pinned
        config = {
            "run": run,
            "paths": plans,
            "settings": dict(settings or {}),
            "watch": dict(watch or {}),
            "monitors": [monitor.document() for monitor in monitors],
        }
        directory = f"{self._home}/{run}"
        self.call("run", directory, stdin=config)
        probe = Probe(self._shell, self, run, directory, file, next_key=key)
        if not probe.stream.wait(0, _HEADER_S):
            probe.stop()
            raise ExecProblem(f"the probe started but nothing came from it in {_HEADER_S:g} s")
        return probe


class Probe:
    """A run that is under way. Use as a context manager: leaving stops it."""

    def __init__(
        self,
        shell: Shell,
        installed: Installed,
        run: str,
        directory: str,
        file: Path,
        *,
        next_key: int,
    ) -> None:
        self.run = run
        self.file = file
        self._shell = shell
        self._installed = installed
        self.directory = directory
        """Where the run lives in the pod."""
        self._next_key = next_key
        self._paths: dict[int, str] = {}
        self._stopped = False
        self._failure: Exception | None = None
        self.cuts = 0
        """How often the stream was cut and resumed."""
        self.stream = Stream(file.with_name(file.name + ".part"))
        self._thread = threading.Thread(target=self._collect, name=f"probe {run}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._stopped:
            self.stop()

    # -- control

    def mark(self, name: str, **details: Any) -> int:
        """Stamp a moment with the probe's clock and return it (ns). The call returns after it."""
        told = self._tell({"do": "mark", "name": name, "details": details})
        return int(told["at"])

    def pin(self, path: str, count: int = 1) -> None:
        """Open more sessions on ``path`` that will never be opened again."""
        self._tell({"do": "pin", "path": path, "count": count})

    def add_path(self, path: PathSpec) -> None:
        """Start clients on one more path."""
        document = path.document(self._next_key)
        self._next_key += path.workers + path.pinned
        self._tell({"do": "path", "path": document})

    def status(self) -> dict[str, Any]:
        """Return the agent's clock (``at``), operations begun, and what it could not keep up with."""
        return self._tell({"do": "status"})

    def quiet(self) -> None:
        """End the load, but not the agent: what is under way comes back or is ``info``."""
        self._tell({"do": "quiet"})

    def read_back(self, name: str, login: Login, *, within_s: float = 60.0) -> dict[str, Any]:
        """Record what is really in the tables of the server behind ``login``, as ``name``.

        :raises Inconclusive: it could not be read.
        """
        command = {
            "do": "readback",
            "name": name,
            "target": login.document(),
            "within_s": within_s,
        }
        return self._tell(command, deadline_s=within_s + 30)

    def stop(self) -> Path:
        """End the run and write the history file. Ends well also for a probe that was killed.

        :raises BrokenHistory: lines are missing: nothing can be concluded from the rest.
        """
        if self._stopped:
            return self.file
        self._stopped = True
        for _ in range(_STOP_TRIES):
            try:
                self._tell({"do": "stop"})
                break
            except Inconclusive:
                # Gone, or exec failed: only the stream can tell, and a probe must not be left behind.
                self.stream.wait(len(self.stream.lines), _READ_S)
                if self.stream.end is not None:
                    break
        self._thread.join(timeout=30)
        self.stream.over("lost")
        self.stream.close()
        if self._failure is not None:
            raise self._failure
        trailer = {"runner": {"end": self.stream.end, "cuts": self.cuts}}
        with gzip.open(self.file, "wb", compresslevel=1) as out:
            out.writelines(self.stream.lines)
            out.write(json.dumps(trailer).encode() + b"\n")
        self.stream.part.unlink(missing_ok=True)
        return self.file

    def _tell(self, command: dict[str, Any], deadline_s: float = 30.0) -> dict[str, Any]:
        (answer,) = self._installed.call(
            "ctl", self.directory, stdin=command, deadline_s=deadline_s
        )
        if "error" in answer:
            raise Inconclusive(f"the probe could not {command['do']}: {answer['error']}")
        return dict(answer)

    # -- looking while it runs

    def lines(self) -> list[bytes]:
        """Return the lines received so far, header first; a History can be made of them."""
        return list(self.stream.lines)

    def wait_for_ack(self, path: str, after: int, within_s: float) -> int:
        """Return when (ns, probe's clock) a write on ``path`` invoked after ``after`` was acknowledged.

        Any session counts. The answer is the earliest such acknowledgement in the stream.

        :raises WaitTimeout: none came within ``within_s`` of the runner's time.
        """
        deadline = time.monotonic() + within_s
        at = 0
        best: int | None = None
        while True:
            batches = self.stream.batches
            while at < len(batches):
                found = self._first_ack(batches[at], path, after)
                best = min(filter(None, (best, found)), default=None)
                at += 1
            if best is not None:
                return best
            left = deadline - time.monotonic()
            if left <= 0 or self.stream.end:
                raise WaitTimeout(
                    f"no write through {path} was acknowledged within {within_s:.1f} s",
                    last_seen=f"{at} batches of the probe, end: {self.stream.end}",
                )
            self.stream.wait(at, left)

    def _first_ack(self, batch: Mapping[str, Any], path: str, after: int) -> int | None:
        for event in batch.get("e", ()):
            if event["kind"] == "path":
                self._paths[event["number"]] = event["name"]
        blob = batch.get("t", {}).get("ops")
        if blob is None:
            return None
        c = records.columns("ops", blob)
        return min(
            (
                done
                for kind, outcome, number, invoke, done in zip(
                    c["kind"], c["outcome"], c["path"], c["invoke"], c["done"], strict=True
                )
                if kind == records.WRITE
                and outcome == records.OK
                and invoke > after
                and self._paths.get(number) == path
            ),
            default=None,
        )

    def _collect(self) -> None:
        try:
            ends = time.monotonic() + _AWAY_S
            while self.stream.end is None and time.monotonic() < ends:
                before = self.stream.offset
                if self._follow():
                    self.stream.over("killed")
                    return
                if self.stream.offset > before:
                    ends = time.monotonic() + _AWAY_S
                self.cuts += 1
                self.stream.wait(len(self.stream.lines), _RETRY_S)
            self.stream.over("lost")
        except BrokenHistory as error:
            self._failure = error
            self.stream.over("broken")

    def _follow(self) -> bool:
        """Read until the stream is over or cut; True if the agent is known to be gone."""
        command = self._installed.command("follow", self.directory, str(self.stream.cut()))
        try:
            running = self._shell.open_exec(self._installed.namespace, self._installed.pod, command)
        except NotFound:
            return True
        except Inconclusive:
            return self._pod_is_over()
        try:
            while self.stream.end is None:
                try:
                    got = running.read(_READ_S)
                except TimeoutError:
                    continue
                if got is None:
                    return self._ended_well(running)
                channel, data = got
                if channel == "stdout":
                    self.stream.feed(data)
        except (Inconclusive, OSError) as error:
            if isinstance(error, BrokenHistory):
                raise
            return False
        finally:
            running.close()
        return False

    def _pod_is_over(self) -> bool:
        """Whether the pod will never run again: an evicted one stays, as one that failed."""
        find = getattr(self._shell, "find", None)
        if find is None:
            return False
        try:
            pod = find("Pod", self._installed.pod, self._installed.namespace)
        except Inconclusive:
            return False
        return pod is None or (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")

    def _ended_well(self, running: Running) -> bool:
        status = getattr(running, "exit_status", None)
        try:
            return callable(status) and status() == 0
        except ExecProblem:
            return False
