"""The Job controller, with the clean-up of finished Jobs."""

from __future__ import annotations

import asyncio
import time

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.adoption import controller_of
from pytest_pgo_eks.local.controllers.clock import epoch, stamp
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.job_plan import (
    INDEX,
    TRACKING,
    JobCount,
    JobStep,
    count,
    format_indexes,
    step,
)
from pytest_pgo_eks.local.controllers.merging import condition_of, set_condition
from pytest_pgo_eks.local.controllers.pods import is_ready, is_terminating, pod_from_template
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import JOB, POD, Obj, key

_SOURCE = "job-controller"
_COMPLETE = "Reached expected number of succeeded pods"


class Jobs:
    """Runs every Job's pods until enough have succeeded or too many failed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = context.of(JOB)
        self._pods = context.of(POD)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("job", self._sync)
        self._orphans: WorkQueue[tuple[str, str]] = WorkQueue("job-orphan", self._free_orphan)
        self._jobs.listen(self._job_changed)
        self._pods.listen(self._pod_changed)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run())
            group.create_task(self._orphans.run())

    def _job_changed(self, change: Change) -> None:
        self._queue.add(key(change.obj))
        if change.new is None:
            for pod in self._pods.controlled_by(change.obj["metadata"]["uid"]):
                self._orphans.add(key(pod))

    def _pod_changed(self, change: Change) -> None:
        pod = change.obj
        name = controller_of(pod, "Job")
        if name:
            self._queue.add((key(pod)[0], name))
        if change.new and TRACKING in (pod["metadata"].get("finalizers") or []):
            self._orphans.add(key(pod))

    async def _free_orphan(self, where: tuple[str, str]) -> None:
        """Take the finalizer off a pod that no Job will ever count."""
        pod = self._pods.get(where[1], where[0])
        if pod is None:
            return
        name = controller_of(pod, "Job")
        job = self._jobs.get(name, where[0]) if name else None
        uids = {r["uid"] for r in pod["metadata"].get("ownerReferences") or []}
        if job is None or job["metadata"]["uid"] not in uids:
            await self._release(pod)

    async def _sync(self, where: tuple[str, str]) -> float | None:
        job = self._jobs.get(where[1], where[0])
        if job is None:
            return None
        pods = self._pods.controlled_by(job["metadata"]["uid"])
        if is_terminating(job) or _finished(job):
            for pod in pods:
                await self._release(pod)
            return None if is_terminating(job) else await self._clean_up(job)
        found = count(job, pods)
        config = self._context.config
        planned = step(
            job, found, backoff_s=config.job_backoff_s, backoff_max_s=config.job_backoff_max_s
        )
        for pod in planned.delete:
            await self._remove(job, pod)
        made = await self._make(job, planned)
        # Pods just deleted count as failed in the next round; this status tells what was found.
        status = _status(job, found, planned, made)
        await self._context.set_status(JOB, job, status, strict=True)
        self._say_end(job, status)
        for pod in found.counted:
            await self._release(pod)
        if found.counted or found.uncounted_succeeded or found.uncounted_failed or planned.delete:
            self._queue.add(where)
        return planned.look_again_s

    async def _make(self, job: Obj, planned: JobStep) -> int:
        for number in range(planned.create):
            index = planned.indexes[number] if planned.indexes else None
            try:
                pod = await self._context.create(POD, new_pod(job, index))
            except ApiError as error:
                what = f"Error creating: {error.message}"
                self._say(job, "FailedCreate", what, warning=True)
                raise
            self._say(job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        return planned.create

    async def _remove(self, job: Obj, pod: Obj) -> None:
        if await self._context.delete(POD, pod):
            self._say(job, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")

    async def _release(self, pod: Obj) -> None:
        finalizers = pod["metadata"].get("finalizers") or []
        if TRACKING not in finalizers:
            return
        patch = {"metadata": {"finalizers": [f for f in finalizers if f != TRACKING]}}
        try:
            await self._context.patch(POD, pod, patch)
        except ApiError as error:
            if error.code != 404:
                raise

    async def _clean_up(self, job: Obj) -> float | None:
        ttl_s = job["spec"].get("ttlSecondsAfterFinished")
        if ttl_s is None:
            return None
        ended = condition_of(job, "Complete") or condition_of(job, "Failed") or {}
        left_s = epoch(ended.get("lastTransitionTime")) + ttl_s - time.time()
        if left_s > 0:
            return float(left_s)
        await self._context.delete(JOB, job, propagation="Foreground")
        return None

    def _say_end(self, job: Obj, status: Obj) -> None:
        for condition in status.get("conditions") or []:
            if condition["status"] != "True" or condition_of(job, condition["type"]):
                continue
            if condition["type"] == "Complete":
                self._say(job, "Completed", "Job completed")
            elif condition["type"] == "Failed":
                self._say(job, condition["reason"], condition["message"], warning=True)
            elif condition["type"] == "Suspended":
                self._say(job, "Suspended", "Job suspended")

    def _say(self, job: Obj, reason: str, message: str, *, warning: bool = False) -> None:
        self._context.recorder.event(job, reason, message, source=_SOURCE, warning=warning)


def new_pod(job: Obj, index: int | None) -> Obj:
    """Return a pod of the Job, tracked by its finalizer; ``index`` for Indexed Jobs."""
    uid, name = job["metadata"]["uid"], job["metadata"]["name"]
    labels = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    if index is not None:
        labels[INDEX] = str(index)
    pod = pod_from_template(job, job["spec"]["template"], labels=labels)
    pod["metadata"]["finalizers"] = [*(pod["metadata"].get("finalizers") or []), TRACKING]
    if index is not None:
        pod["metadata"].setdefault("annotations", {})[INDEX] = str(index)
        pod["metadata"]["generateName"] = f"{name}-{index}-"
        pod["spec"]["hostname"] = f"{name}-{index}"
        env = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
        for container in pod["spec"]["containers"]:
            container["env"] = [*(container.get("env") or []), env]
    return pod


def _finished(job: Obj) -> bool:
    return any(
        (condition_of(job, kind) or {}).get("status") == "True" for kind in ("Complete", "Failed")
    )


def _status(job: Obj, found: JobCount, planned: JobStep, made: int) -> Obj:
    known = job.get("status") or {}
    now = stamp()
    deleted = {p["metadata"]["uid"] for p in planned.delete}
    active = [p for p in found.active if p["metadata"]["uid"] not in deleted]
    uncounted: Obj = {}
    if found.uncounted_succeeded:
        uncounted["succeeded"] = found.uncounted_succeeded
    if found.uncounted_failed:
        uncounted["failed"] = found.uncounted_failed
    status: Obj = {
        "ready": sum(is_ready(p) for p in active),
        "terminating": len(found.terminating) + len(deleted),
        "uncountedTerminatedPods": uncounted,
    }
    for name, number in (
        ("active", len(active) + made),
        ("succeeded", found.succeeded),
        ("failed", found.failed),
    ):
        if number:
            status[name] = number
    if found.completed_indexes:
        status["completedIndexes"] = format_indexes(found.completed_indexes)
    conditions = _conditions(job, found, planned, now)
    if conditions:
        status["conditions"] = conditions
    if any(c["type"] == "Complete" for c in conditions):
        status["completionTime"] = now
    if not job["spec"].get("suspend"):
        status["startTime"] = known.get("startTime") or now
    return status


def _conditions(job: Obj, found: JobCount, planned: JobStep, now: str) -> list[Obj]:
    conditions: list[Obj] = list((job.get("status") or {}).get("conditions") or [])
    settled = found.settled and not planned.delete

    def put(kind: str, reason: str, message: str, status: str = "True") -> None:
        nonlocal conditions
        condition = {"type": kind, "status": status, "reason": reason, "message": message}
        known = next((c for c in conditions if c["type"] == kind), None)
        if known is None or known["status"] != status:
            conditions = set_condition(conditions, condition | {"lastProbeTime": now}, now)

    if planned.complete:
        put("SuccessCriteriaMet", "CompletionsReached", _COMPLETE)
        if settled:
            put("Complete", "CompletionsReached", _COMPLETE)
    elif planned.failure:
        put("FailureTarget", *planned.failure)
        if settled:
            put("Failed", *planned.failure)
    elif job["spec"].get("suspend"):
        put("Suspended", "JobSuspended", "Job suspended")
    elif any(c["type"] == "Suspended" and c["status"] == "True" for c in conditions):
        put("Suspended", "JobResumed", "Job resumed", "False")
    return conditions
