"""One pod from its binding to its end: volumes, sandbox, containers, status, termination."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.kubelet.deadline import Deadline, grace_of
from pytest_pgo_eks.local.kubelet.limits import Exceeded, exceeded
from pytest_pgo_eks.local.kubelet.payload import Needs, NotYet, references
from pytest_pgo_eks.local.kubelet.plans import service_links
from pytest_pgo_eks.local.kubelet.publishing import RETRY_S, StatusWriter
from pytest_pgo_eks.local.kubelet.references import Place
from pytest_pgo_eks.local.kubelet.returned import count_runs, fail_lost
from pytest_pgo_eks.local.kubelet.runner import NeverStarted, Runner
from pytest_pgo_eks.local.kubelet.sandbox import Sandbox, make_sandbox
from pytest_pgo_eks.local.kubelet.shared import Shared
from pytest_pgo_eks.local.kubelet.status import (
    Conditions,
    Facts,
    Record,
    Terminated,
    Waiting,
    compute,
)
from pytest_pgo_eks.local.kubelet.tokens import Tokens
from pytest_pgo_eks.local.kubelet.volumes import Volumes
from pytest_pgo_eks.local.objects import POD, Obj

_log = logging.getLogger(__name__)

_SANDBOX_RETRY_S = 1.0
_FINAL_TRIES = 25
# The kubelet's for local storage.
_EVICTION_GRACE_S = 1.0
# FailedMount is said at the first failure and then this often, as the kubelet's back-off ends.
_COMPLAIN_S = 5.0


class Pod:
    """One pod on this node. ``run`` does everything; the other methods tell it what happened."""

    def __init__(self, shared: Shared, obj: Obj, predecessor: Pod | None = None) -> None:
        self.shared = shared
        self.obj = obj
        self.uid: str = obj["metadata"]["uid"]
        self.directory: Path = shared.state / "pods" / self.uid
        self.volumes = Volumes(
            shared.client, shared.attachments, shared.node.name, self.directory / "volumes"
        )
        self.services: Mapping[str, str] = {}
        self.place = Place(shared.node.name, shared.node.ip, "", shared.allocatable)
        self.sources_changed = asyncio.Event()
        self.gone = asyncio.Event()
        self._tokens = Tokens(shared.client, obj)
        self._predecessor = predecessor
        self._sandbox: Sandbox | None = None
        self._facts = Facts(shared.node.ip)
        self._conditions = Conditions()
        self._conditions.adopt(obj)
        self._writer = StatusWriter(shared.client, obj, self._status)
        self._moved = asyncio.Event()
        self._refresh = asyncio.Event()
        self._stop = asyncio.Event()
        self._vanished = False
        self._failing = False
        self._deadline: Deadline | None = None
        self._references = references(obj)
        self.runners = [Runner(self, record) for record in self._records()]

    def _records(self) -> list[Record]:
        spec = self.obj["spec"]
        inits = spec.get("initContainers") or []
        first = Waiting("ContainerCreating")
        later = Waiting("PodInitializing") if inits else first
        apps = [Record(c, state=later) for c in spec["containers"]]
        if spec.get("restartPolicy") != "Never":
            count_runs(apps, self.obj)
        return [*(Record(c, init=True, state=later) for c in inits), *apps]

    @property
    def name(self) -> tuple[str, str]:
        return self.obj["metadata"]["namespace"], self.obj["metadata"]["name"]

    @property
    def sandbox(self) -> Sandbox:
        if self._sandbox is None:
            raise NotYet("the pod has no sandbox")
        return self._sandbox

    @property
    def terminating(self) -> bool:
        return self._stop.is_set() or self._failing

    def runner(self, container: str) -> Runner | None:
        return next((r for r in self.runners if r.record.name == container), None)

    # ------------------------------------------------------------------ what happens to it

    def update(self, obj: Obj) -> None:
        """Take the API's newest version of the pod."""
        old, self.obj = self.obj, obj
        deleted = obj["metadata"].get("deletionTimestamp")
        if deleted:
            grace_s = float(obj["metadata"].get("deletionGracePeriodSeconds") or 0)
            self._end_within(grace_s)
        if any(_own(old)[part] != _own(obj)[part] for part in ("labels", "annotations")):
            self._refresh.set()
            for runner in self.runners:
                runner.ask_readiness()

    def vanish(self) -> None:
        """The API has no such pod any more: kill what still runs at once."""
        self._vanished = True
        self._end_within(0.0)

    def source_changed(self, kind: str, name: str) -> None:
        """A Secret or ConfigMap of the pod's namespace changed."""
        secrets, config_maps = self._references
        if name in (secrets if kind == "Secret" else config_maps):
            self._refresh.set()
        self.sources_changed.set()

    def changed(self) -> None:
        """A container's state changed: the status must be written, and readiness asked."""
        self._writer.changed()
        self._moved.set()
        for runner in self.runners:
            runner.ask_readiness()

    def event(
        self, reason: str, message: str, record: Record | None = None, *, warning: bool = False
    ) -> None:
        group = "initContainers" if record and record.init else "containers"
        where = f"{group}{{{record.name}}}" if record else ""
        self.shared.recorder.record(self.obj, reason, message, container=where, warning=warning)

    def _status(self) -> Obj:
        records = [runner.record for runner in self.runners]
        return compute(self.obj, records, self._facts, self._conditions, time.time())

    def _end_within(self, grace_s: float) -> None:
        if self._deadline is None:
            self._deadline = Deadline(grace_s)
        else:
            self._deadline.shorten(grace_s)
        self._stop.set()

    async def _limits(self) -> Exceeded:
        look_s = self.shared.settings.housekeeping_s
        return await exceeded(self.obj, self.volumes.root, look_s=look_s)

    def _fail(self, why: Exceeded) -> None:
        """Begin to end the pod by the node's own decision; the API keeps it, as failed."""
        self.event(why.reason, why.message, warning=True)
        self._facts = replace(self._facts, failed=True, reason=why.reason, message=why.message)
        self._failing = True
        evicted = why.reason == "Evicted"
        self._deadline = Deadline(_EVICTION_GRACE_S if evicted else grace_of(self.obj))

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Run the pod to its end and clean up; never raises but for cancellation."""
        helpers = [
            asyncio.create_task(self._writer.run(), name=f"status of {self.name[1]}"),
            asyncio.create_task(self._keep_volumes(), name=f"volumes of {self.name[1]}"),
        ]
        life = asyncio.create_task(self._live(), name=f"pod {self.name[1]}")
        limit = asyncio.create_task(self._limits())
        stop = asyncio.create_task(self._stop.wait())
        first: tuple[asyncio.Task[Any], ...] = (life, stop, limit)
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                await self._terminate(life)
            elif limit.done() and not life.done():
                self._fail(limit.result())
                await self._terminate(life)
            elif error := life.exception():
                _log.error("pod %s", "/".join(self.name), exc_info=error)
                self._facts = replace(self._facts, failed=True, message=repr(error))
            await self._close()
            self.changed()
            await stop
            helpers[0].cancel()
            await self._farewell()
        finally:
            tasks = (*first, *helpers)
            for task in tasks:
                task.cancel()
            if self._sandbox:
                # As a power failure: nobody of the pod sees another one die.
                self._sandbox.namespaces.kill()
            await asyncio.gather(*tasks, return_exceptions=True)
            for runner in self.runners:
                await runner.abandon()
            await self._close()
            shutil.rmtree(self.directory, ignore_errors=True)
            self.shared.recorder.forget(self.uid)
            self.gone.set()

    async def _live(self) -> None:
        if self._predecessor:
            # A pod of the same name that was forced out of the API may not be dead yet.
            await self._predecessor.gone.wait()
            self._predecessor = None
        self._facts = replace(self._facts, start_time=time.time())
        if fail_lost([runner.record for runner in self.runners], self.obj):
            self._facts = replace(self._facts, failed=True)
            return
        self.changed()
        await self._prepare()
        inits = [runner for runner in self.runners if runner.record.init]
        apps = [runner for runner in self.runners if not runner.record.init]
        sidecars: list[asyncio.Task[None]] = []
        try:
            for runner in inits:
                if runner.record.sidecar:
                    sidecars.append(asyncio.create_task(_over(runner)))
                    await self._until_started(runner)
                    continue
                await _over(runner)
                if not runner.record.initialized():
                    return
            await asyncio.gather(*(_over(runner) for runner in apps))
            # The pod's work is done: what only served it ends, too.
            for runner in reversed([r for r in inits if r.record.sidecar]):
                runner.retired = True
                await self._end(runner, Deadline(grace_of(self.obj)))
        finally:
            for task in sidecars:
                task.cancel()

    async def _until_started(self, runner: Runner) -> None:
        while not runner.record.started:
            self._moved.clear()
            await self._moved.wait()

    # ------------------------------------------------------------------ preparing

    async def _prepare(self) -> None:
        services = asyncio.create_task(service_links(self.shared.client, self.obj))
        try:
            await self._mount_all()
            await self._make_sandbox()
            self.services = await services
        finally:
            services.cancel()

    async def _mount_all(self) -> None:
        complained: dict[str, float] = {}
        while True:
            self.sources_changed.clear()
            problem = ""
            try:
                await self._tokens.ensure()
            except NotYet as error:
                problem = str(error)
            missing = await self.volumes.prepare(self.obj, self._needs())
            if not missing:
                return
            for volume, said in missing.items():
                self._complain(volume, problem if "token" in said and problem else said, complained)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.shared.settings.mount_retry_s):
                    await self.sources_changed.wait()

    def _complain(self, volume: str, said: str, complained: dict[str, float]) -> None:
        now = time.monotonic()
        if now - complained.get(volume, -_COMPLAIN_S) < _COMPLAIN_S:
            return
        complained[volume] = now
        if said.startswith("Multi-Attach"):
            self.event("FailedAttachVolume", said, warning=True)
        else:
            text = f'MountVolume.SetUp failed for volume "{volume}" : {said}'
            self.event("FailedMount", text, warning=True)

    async def _make_sandbox(self) -> None:
        while self._sandbox is None:
            try:
                self._sandbox = await make_sandbox(self.shared, self.obj, self.directory / "etc")
            except Exception as error:  # noqa: BLE001 - whatever the network says, the pod waits
                said = f"Failed to create pod sandbox: {error}"
                self.event("FailedCreatePodSandBox", said, warning=True)
                await asyncio.sleep(_SANDBOX_RETRY_S)
        self.place = replace(self.place, pod_ip=self._sandbox.ip)
        self._facts = replace(self._facts, pod_ip=self._sandbox.ip, sandbox=True)
        self.changed()

    def _needs(self) -> Needs:
        namespace = self.name[0]
        return Needs(
            secret=lambda name: self.shared.secret(namespace, name),
            config_map=lambda name: self.shared.config_map(namespace, name),
            token=self._tokens.current(),
            place=self.place,
        )

    async def _keep_volumes(self) -> None:
        """Write volumes again when their sources change, and tokens before they expire."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tokens.renew_in_s()):
                    await self._refresh.wait()
            self._refresh.clear()
            try:
                if self._sandbox is not None:
                    await self._tokens.ensure()
            except NotYet:
                # The old token lasts for another fifth of its life.
                await asyncio.sleep(1.0)
                self._refresh.set()
            self.volumes.refresh(self.obj, self._needs())

    # ------------------------------------------------------------------ ending

    async def _terminate(self, life: asyncio.Task[None]) -> None:
        """End every container within the deadline: sidecars after the others, in reverse."""
        deadline = self._deadline or Deadline(0.0)
        if any(runner.container for runner in self.runners):
            apps = [r for r in self.runners if not r.record.sidecar]
            await asyncio.gather(*(self._end(runner, deadline) for runner in apps))
            for runner in reversed([r for r in self.runners if r.record.sidecar]):
                await self._end(runner, deadline)
        # A container that was being started when the order came is killed by ``abandon``.
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
        for runner in self.runners:
            await runner.abandon()

    async def _end(self, runner: Runner, deadline: Deadline) -> None:
        container = runner.container
        if container is None:
            return
        await runner.kill(deadline, f"Stopping container {runner.record.name}")
        # Let its own task write how it ended.
        for _ in range(10):
            if runner.container is not container:
                return
            await asyncio.sleep(0)

    async def _close(self) -> None:
        """Give back network, namespaces and volumes. The logs stay until the API forgets the pod."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox:
            await sandbox.namespaces.close()
            self._facts = replace(self._facts, sandbox=False)
            with contextlib.suppress(Exception):
                await self.shared.network.detach(self.uid)
        self.volumes.close(self.uid)

    async def _farewell(self) -> None:
        """Tell the API how the pod ended, and that it may forget it."""
        if self._vanished:
            return
        now = time.time()
        for runner in self.runners:
            record = runner.record
            if isinstance(record.state, Waiting) and record.last is None:
                said = "The container could not be located when the pod was terminated"
                record.state = Terminated(137, "ContainerStatusUnknown", said, now, now, "")
        for _ in range(_FINAL_TRIES):
            if await self._writer.write():
                break
            await asyncio.sleep(RETRY_S)
        while not self._vanished:
            try:
                namespace, name = self.name
                await self.shared.client.delete(POD, name, namespace, grace_s=0, uid=self.uid)
            except ApiError as error:
                if error.code in {404, 409}:
                    return
                await asyncio.sleep(RETRY_S)
            else:
                return


async def _over(runner: Runner) -> None:
    with contextlib.suppress(NeverStarted):
        await runner.run()


def _own(obj: Obj) -> dict[str, object]:
    metadata = obj["metadata"]
    return {"labels": metadata.get("labels"), "annotations": metadata.get("annotations")}
