"""One container of a pod through its starts, probes, restarts and end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local.kubelet import containers
from pytest_pgo_eks.local.kubelet.backoff import BackOff
from pytest_pgo_eks.local.kubelet.containers import Container, Exit, StartProblem
from pytest_pgo_eks.local.kubelet.deadline import Deadline, grace_of
from pytest_pgo_eks.local.kubelet.environment import ConfigProblem
from pytest_pgo_eks.local.kubelet.hooks import run_hook
from pytest_pgo_eks.local.kubelet.images import ImageProblem, find_image
from pytest_pgo_eks.local.kubelet.payload import NotYet
from pytest_pgo_eks.local.kubelet.plans import PodLike, log_directory, make_plan
from pytest_pgo_eks.local.kubelet.prober import Probe
from pytest_pgo_eks.local.kubelet.probes import Kind, ProbeState, Result
from pytest_pgo_eks.local.kubelet.references import Unresolvable
from pytest_pgo_eks.local.kubelet.status import Record, Running, Terminated, Waiting
from pytest_pgo_eks.local.objects import Obj

# A configuration that cannot be made is tried again when its sources change, or after this.
_CONFIG_RETRY_S = 5.0
# The kubelet lets a container that is being killed have this much, whatever a hook has used.
_LEAST_GRACE_S = 2.0
_RUNTIME = "containerd"


@dataclass
class Runner:
    """Keeps one container running as the pod's restart policy says."""

    pod: PodLike
    record: Record
    container: Container | None = None
    # A sidecar whose pod has finished its work: it is not started again.
    retired: bool = False
    back_off: BackOff = field(init=False)
    _image_back_off: BackOff = field(init=False)
    _probes: dict[Kind, Probe] = field(default_factory=dict)
    _probing: list[asyncio.Task[None]] = field(default_factory=list)
    _side: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        settings = self.pod.shared.settings
        self.back_off = BackOff(settings.back_off_first_s, settings.back_off_longest_s)
        self._image_back_off = BackOff(settings.back_off_first_s, settings.back_off_longest_s)

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Start, and start again where the restart policy says so; return when it is over."""
        while not self.pod.terminating:
            container = await self._started()
            if container is None:
                continue
            self._took_off(container)
            try:
                ended = await asyncio.shield(container.ended)
            finally:
                self._stop_probes()
            self._ended(container, ended)
            if not self._again(ended):
                return
            await self._wait(ended)

    async def _started(self) -> Container | None:
        """Start once. None: it could not, the reason is in the status, and some time has passed."""
        try:
            image = find_image(self.record.spec.get("image") or "")
        except ImageProblem as problem:
            await self._no_image(str(problem))
            return None
        self._say_pulled()
        try:
            plan = await make_plan(self.pod, self.record, image)
            self.pod.event("Created", f"Created container: {self.record.name}", self.record)
            container = await containers.start(self.pod.shared.home, plan)
        except (ConfigProblem, Unresolvable, NotYet) as problem:
            self._waiting("CreateContainerConfigError", str(problem))
            self.pod.event("Failed", f"Error: {problem}", self.record, warning=True)
            await self._until_sources_change(_CONFIG_RETRY_S)
            return None
        except (StartProblem, OSError) as problem:
            await self._not_started(str(problem))
            return None
        return container

    def _took_off(self, container: Container) -> None:
        self.container = container
        record = self.record
        record.container_id = f"{_RUNTIME}://{container.id}"
        record.state = Running(container.started_at)
        spec = record.spec
        record.started = not spec.get("startupProbe")
        record.ready = record.started and not spec.get("readinessProbe")
        self.pod.event("Started", f"Started container {record.name}", record)
        post = (spec.get("lifecycle") or {}).get("postStart")
        if post:
            self._aside(self._post_start(post, container))
        self._start_probes(container)
        self.pod.changed()

    def _ended(self, container: Container, ended: Exit) -> None:
        record = self.record
        complaint = containers.start_failure(ended, container.plan.log)
        message, reason, code = ended.message, "Error" if ended.code else "Completed", ended.code
        if complaint:
            message, reason, code = complaint, "StartError", 128
            self.pod.event("Failed", f"Error: {complaint}", record, warning=True)
        elif ended.code and not message and self._wants_log():
            message = _last_lines(container.plan.log)
        record.state = Terminated(
            code, reason, message, ended.started_at, ended.finished_at, record.container_id
        )
        record.started = record.ready = False
        self.container = None
        self.pod.changed()

    def _wants_log(self) -> bool:
        return self.record.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"

    def _again(self, ended: Exit) -> bool:
        record = self.record
        if self.pod.terminating:
            return False
        policy = self.pod.obj["spec"].get("restartPolicy") or "Always"
        if record.sidecar:
            return not self.retired
        if record.init or policy == "OnFailure":
            return ended.code != 0 and policy != "Never"
        return policy == "Always"

    async def _wait(self, ended: Exit) -> None:
        record = self.record
        delay_s = self.back_off.next_delay_s(ended.finished_at, time.time())
        if isinstance(record.state, Terminated):
            record.last = record.state
        if delay_s > 0:
            name = f"{record.name} in pod {self._full_name()}"
            said = f"back-off {_seconds(delay_s)} restarting failed container={name}"
            self._waiting("CrashLoopBackOff", said)
            event = f"Back-off restarting failed container {name}"
            self.pod.event("BackOff", event, record, warning=True)
            await asyncio.sleep(delay_s)
        record.restarts += 1

    def _full_name(self) -> str:
        metadata = self.pod.obj["metadata"]
        return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"

    def _waiting(self, reason: str, message: str = "") -> None:
        self.record.state = Waiting(reason, message)
        self.pod.changed()

    async def _until_sources_change(self, within_s: float) -> None:
        self.pod.sources_changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.pod.sources_changed.wait()

    # ------------------------------------------------------------------ images

    def _say_pulled(self) -> None:
        image = self.record.spec.get("image")
        if self.record.spec.get("imagePullPolicy") == "Always":
            self.pod.event("Pulling", f'Pulling image "{image}"', self.record)
            said = "in 0s (0s including waiting). Image size: 0 bytes."
            self.pod.event("Pulled", f'Successfully pulled image "{image}" {said}', self.record)
        else:
            said = f'Container image "{image}" already present on machine'
            self.pod.event("Pulled", said, self.record)

    async def _no_image(self, problem: str) -> None:
        image = self.record.spec.get("image")
        self.pod.event("Pulling", f'Pulling image "{image}"', self.record)
        said = f'Failed to pull image "{image}": {problem}'
        self.pod.event("Failed", said, self.record, warning=True)
        self.pod.event("Failed", "Error: ErrImagePull", self.record, warning=True)
        self._waiting("ErrImagePull", problem)
        self._image_back_off.next_delay_s(time.time(), time.time())
        # As on Kubernetes the first reason is seen for a moment before the back-off is.
        await asyncio.sleep(1.0)
        self.pod.event("BackOff", f'Back-off pulling image "{image}"', self.record)
        self.pod.event("Failed", "Error: ImagePullBackOff", self.record, warning=True)
        said = f'Back-off pulling image "{image}": ErrImagePull: {problem}'
        self._waiting("ImagePullBackOff", said)
        await asyncio.sleep(self._image_back_off.current_s)

    async def _not_started(self, problem: str) -> None:
        """The program never ran: as containerd says it, exit code 128 and StartError."""
        now = time.time()
        record = self.record
        self.pod.event("Failed", f"Error: {problem}", record, warning=True)
        record.state = Terminated(128, "StartError", problem, now, now, record.container_id)
        ended = Exit(128, problem, now, now)
        self.pod.changed()
        if self._again(ended):
            await self._wait(ended)
        else:
            raise NeverStarted(problem)

    def log_directory(self) -> Path:
        return log_directory(self.pod, self.record)

    # ------------------------------------------------------------------ probes

    def _start_probes(self, container: Container) -> None:
        self._probes = {
            kind: Probe(
                kind=kind,
                spec=self.record.spec[kind.spec_key],
                container_spec=self.record.spec,
                container=container,
                shared=self.pod.shared,
                pod_ip=self.pod.sandbox.ip,
                watched=Seen(self),
                changed=self._probed,
                failed=self._unhealthy,
            )
            for kind in Kind
            if self.record.spec.get(kind.spec_key)
        }
        self._probing = [
            asyncio.create_task(probe.run(), name=f"{kind} of {self.record.name}")
            for kind, probe in self._probes.items()
        ]

    def _stop_probes(self) -> None:
        for task in self._probing:
            task.cancel()
        self._probing.clear()
        self._probes.clear()

    def ask_readiness(self) -> None:
        """Try the readiness probe at once if the container is not ready."""
        probe = self._probes.get(Kind.READINESS)
        if probe and not self.record.ready:
            probe.ask()

    def _unhealthy(self, kind: Kind, output: str) -> None:
        said = f"{kind.value} probe failed: {output}"
        self.pod.event("Unhealthy", said, self.record, warning=True)

    def _probed(self, state: ProbeState) -> None:
        success = state.result is Result.SUCCESS
        if state.kind is Kind.READINESS:
            self.record.ready = success and self.record.started
        elif state.kind is Kind.STARTUP and success:
            self.record.started = True
            self.record.ready = Kind.READINESS not in self._probes
        elif not success and self.container and not self.pod.terminating:
            said = f"Container {self.record.name} failed {state.kind.value.lower()} probe"
            self._aside(self.kill(self._grace(state), f"{said}, will be restarted"))
        self.pod.changed()

    def _grace(self, state: ProbeState) -> Deadline:
        own = state.timing.grace_s
        return Deadline(grace_of(self.pod.obj) if own is None else own)

    # ------------------------------------------------------------------ the end

    async def kill(self, deadline: Deadline, message: str) -> None:
        """End the running container: preStop hook, SIGTERM, and SIGKILL at the deadline."""
        container = self.container
        if container is None:
            return
        self.pod.event("Killing", message, self.record)
        hook = (self.record.spec.get("lifecycle") or {}).get("preStop")
        if hook and deadline.left_s() > 0:
            await self._pre_stop(hook, container, deadline)
            if deadline.left_s() > 0:
                deadline = (
                    deadline if deadline.left_s() > _LEAST_GRACE_S else Deadline(_LEAST_GRACE_S)
                )
        if deadline.left_s() > 0:
            container.signal(15)
            await deadline.wait_for(container.ended)
        await container.kill()
        await asyncio.shield(container.ended)

    async def _pre_stop(self, hook: Obj, container: Container, deadline: Deadline) -> None:
        pod = self.pod
        work = asyncio.ensure_future(
            run_hook(
                hook,
                pod.shared,
                self.record.spec,
                container,
                pod_ip=pod.sandbox.ip,
                timeout_s=deadline.left_s(),
            )
        )
        await deadline.wait_for(work)
        if not work.done():
            work.cancel()
        elif problem := work.result():
            pod.event(
                "FailedPreStopHook", f"PreStopHook failed: {problem}", self.record, warning=True
            )

    async def _post_start(self, hook: Obj, container: Container) -> None:
        pod = self.pod
        problem = await run_hook(
            hook,
            pod.shared,
            self.record.spec,
            container,
            pod_ip=pod.sandbox.ip,
            timeout_s=grace_of(pod.obj),
        )
        if problem:
            said = f"PostStartHook failed: {problem}"
            pod.event("FailedPostStartHook", said, self.record, warning=True)
            await self.kill(Deadline(grace_of(pod.obj)), "FailedPostStartHook")

    def _aside(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._side.add(task)
        task.add_done_callback(self._side.discard)

    async def abandon(self) -> None:
        """Kill at once, without a word: the pod is gone, or this kubelet ends."""
        self._stop_probes()
        for task in tuple(self._side):
            task.cancel()
        if self.container:
            await self.container.kill()


@dataclass
class Seen:
    """A probe's look at its runner."""

    runner: Runner

    @property
    def started(self) -> bool:
        return self.runner.record.started

    @property
    def terminating(self) -> bool:
        return self.runner.pod.terminating


class NeverStarted(Exception):
    """A container that must not be tried again could not be started."""


def _seconds(delay_s: float) -> str:
    whole = round(delay_s)
    minutes, seconds = divmod(whole, 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _last_lines(log: Path, count: int = 80, limit: int = 2048) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return ""
    return "\n".join(line.split(" ", 3)[-1] for line in lines)[-limit:]
