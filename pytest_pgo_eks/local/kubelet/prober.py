"""The loop of one probe of one running container."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pytest_pgo_eks.local.kubelet import execs, probing
from pytest_pgo_eks.local.kubelet.containers import Container
from pytest_pgo_eks.local.kubelet.probes import Kind, ProbeState, Timing
from pytest_pgo_eks.local.kubelet.probing import Attempt
from pytest_pgo_eks.local.kubelet.shared import Shared
from pytest_pgo_eks.local.objects import Obj


class Watched(Protocol):
    """What a probe asks about its container between attempts."""

    @property
    def started(self) -> bool: ...
    @property
    def terminating(self) -> bool: ...


@dataclass
class Probe:
    """One probe. ``changed`` is called when its result changes, ``failed`` after each failure."""

    kind: Kind
    spec: Mapping[str, Any]
    container_spec: Obj
    container: Container
    shared: Shared
    pod_ip: str
    watched: Watched
    changed: Callable[[ProbeState], None]
    failed: Callable[[Kind, str], None]
    state: ProbeState = field(init=False)
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.state = ProbeState(self.kind, Timing.of(self.spec))

    def ask(self) -> None:
        """Try at once, and count the period from there.

        The kubelet does this for the readiness probe of a container that is not ready whenever
        it synchronises the pod: at a change of its labels or annotations (Patroni's every state
        is one), or of any container.
        """
        self._asked.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        timing = self.state.timing
        waited_s = time.time() - self.container.started_at
        following = time.monotonic() + max(0.0, timing.first_s(self.kind) - waited_s)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, following - time.monotonic())):
                    await self._asked.wait()
            self._asked.clear()
            began = time.monotonic()
            due = self.state.due(
                running_s=time.time() - self.container.started_at,
                started=self.watched.started,
                terminating=self.watched.terminating,
            )
            if due:
                await self._once()
            elif self._until_delay_s() > 0:
                following = began + self._until_delay_s()
                continue
            following = began + timing.period_s

    def _until_delay_s(self) -> float:
        waited = time.time() - self.container.started_at
        return self.state.timing.initial_delay_s - waited

    async def _once(self) -> None:
        attempt = await self.attempt()
        if self.container.ended.done():
            return
        if not attempt.success:
            self.failed(self.kind, attempt.output)
        if self.state.take(success=attempt.success):
            self.changed(self.state)

    async def attempt(self) -> Attempt:
        """Try once; every outcome is an ``Attempt``."""
        timeout_s = self.state.timing.timeout_s
        spec = self.spec
        if spec.get("exec"):
            return await self._exec(list(spec["exec"].get("command") or []), timeout_s)
        action = spec.get("httpGet") or spec.get("tcpSocket")
        if action is None:
            return Attempt(False, "the stand-in has no such probe (grpc)")
        host = action.get("host") or self.pod_ip
        try:
            port = probing.port_number(action["port"], self.container_spec)
        except ValueError as error:
            return Attempt(False, str(error))
        sockets = self.shared.sockets
        if spec.get("tcpSocket"):
            return await probing.tcp(host, port, sockets, timeout_s)
        tls = self.shared.probe_tls
        return await probing.http(action, host, port, sockets, tls=tls, timeout_s=timeout_s)

    async def _exec(self, argv: list[str], timeout_s: float) -> Attempt:
        try:
            done = await execs.run(self.shared.home, self.container, argv, timeout_s=timeout_s)
        except TimeoutError:
            said = f'command timed out: "{" ".join(argv)}" timed out after {timeout_s:g}s'
            return Attempt(False, said)
        except (execs.NotRunning, OSError) as error:
            return Attempt(False, str(error))
        return Attempt(done.exit_code == 0, done.output)
