"""The CronJob controller."""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.controllers.adoption import controller_of
from pytest_pgo_eks.local.controllers.clock import epoch, stamp
from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.cron_schedule import Schedule, parse
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.merging import condition_of
from pytest_pgo_eks.local.controllers.pods import is_terminating, owner_reference
from pytest_pgo_eks.local.controllers.workqueue import WorkQueue
from pytest_pgo_eks.local.objects import CRON_JOB, JOB, Obj, annotations_of, key

_SOURCE = "cronjob-controller"
_SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
# Runs missed beyond this many are not counted one by one.
_MOST_MISSED = 100


class CronJobs:
    """Makes a Job of every CronJob at each of its times."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._cron_jobs = context.of(CRON_JOB)
        self._jobs = context.of(JOB)
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("cronjob", self._sync)
        self._cron_jobs.listen(lambda change: self._queue.add(key(change.obj)))
        self._jobs.listen(self._job_changed)

    async def run(self) -> None:
        await self._queue.run()

    def _job_changed(self, change: Change) -> None:
        name = controller_of(change.obj, "CronJob")
        if name:
            self._queue.add((key(change.obj)[0], name))

    async def _sync(self, where: tuple[str, str]) -> float | None:
        cron = self._cron_jobs.get(where[1], where[0])
        if cron is None:
            return None
        jobs = self._jobs.controlled_by(cron["metadata"]["uid"])
        status = dict(cron.get("status") or {})
        self._settle(cron, jobs, status)
        await self._limit_history(cron, jobs)
        wait_s = None
        if not is_terminating(cron) and not cron["spec"].get("suspend"):
            wait_s = await self._start_due(cron, jobs, status)
        await self._context.set_status(CRON_JOB, cron, status)
        return wait_s

    def _settle(self, cron: Obj, jobs: list[Obj], status: Obj) -> None:
        """Bring ``active`` and ``lastSuccessfulTime`` up to date, and say which Jobs ended."""
        active = [job for job in jobs if outcome(job) is None]
        for reference in status.get("active") or []:
            ended = next((j for j in jobs if j["metadata"]["uid"] == reference["uid"]), None)
            if ended is None:
                what = f"Active job went missing: {reference['name']}"
                self._say(cron, "MissingJob", what)
            elif outcome(ended):
                what = f"Saw completed job: {reference['name']}, condition: {outcome(ended)}"
                self._say(cron, "SawCompletedJob", what)
        _set_active(status, active)
        times = [
            (job.get("status") or {}).get("completionTime") or ""
            for job in jobs
            if outcome(job) == "Complete"
        ]
        newest = max([*times, status.get("lastSuccessfulTime") or ""])
        if newest:
            status["lastSuccessfulTime"] = newest

    async def _start_due(self, cron: Obj, jobs: list[Obj], status: Obj) -> float | None:
        try:
            schedule, zone = parse(cron["spec"]["schedule"]), _zone(cron)
        except ValueError as error:
            what = f"unparseable schedule: {cron['spec']['schedule']} : {error}"
            self._say(cron, "UnparseableSchedule", what, warning=True)
            return None
        now = datetime.now(UTC)
        due, following = due_run(cron, schedule, zone, now)
        wait_s = max(0.05, following.timestamp() - time.time()) if following else None
        if due is None:
            return wait_s
        late_s = cron["spec"].get("startingDeadlineSeconds")
        if late_s is not None and due + timedelta(seconds=late_s) < now:
            what = f"Missed scheduled time to start a job: {due:%a, %d %b %Y %H:%M:%S} +0000"
            self._say(cron, "MissSchedule", what, warning=True)
            return wait_s
        active = [job for job in jobs if outcome(job) is None]
        policy = cron["spec"].get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and active:
            what = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._say(cron, "JobAlreadyActive", what)
            return wait_s
        if policy == "Replace":
            for job in active:
                await self._context.delete(JOB, job, propagation="Background")
                self._say(cron, "SuccessfulDelete", f"Deleted job {job['metadata']['name']}")
            active = []
        made = await self._make(cron, due)
        if made is not None:
            active.append(made)
        _set_active(status, active)
        status["lastScheduleTime"] = stamp(due.timestamp())
        return wait_s

    async def _make(self, cron: Obj, due: datetime) -> Obj | None:
        job = new_job(cron, due)
        try:
            made = await self._context.create(JOB, job)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return self._jobs.get(*reversed(key(job)))
            what = f"Error creating job: {error.message}"
            self._say(cron, "FailedCreate", what, warning=True)
            raise
        self._say(cron, "SuccessfulCreate", f"Created job {made['metadata']['name']}")
        return made

    async def _limit_history(self, cron: Obj, jobs: list[Obj]) -> None:
        for kind, field, default in (
            ("Complete", "successfulJobsHistoryLimit", 3),
            ("Failed", "failedJobsHistoryLimit", 1),
        ):
            ended = sorted(
                (j for j in jobs if outcome(j) == kind and not is_terminating(j)),
                key=lambda j: (j.get("status") or {}).get("startTime") or "",
            )
            limit = cron["spec"].get(field)
            surplus = len(ended) - (default if limit is None else limit)
            for job in ended[: max(0, surplus)]:
                await self._context.delete(JOB, job, propagation="Background")
                self._say(cron, "SuccessfulDelete", f"Deleted job {job['metadata']['name']}")

    def _say(self, cron: Obj, reason: str, message: str, *, warning: bool = False) -> None:
        self._context.recorder.event(cron, reason, message, source=_SOURCE, warning=warning)


def outcome(job: Obj) -> str | None:
    """Return ``Complete`` or ``Failed``; None while the Job goes on."""
    for kind in ("Complete", "Failed"):
        if (condition_of(job, kind) or {}).get("status") == "True":
            return kind
    return None


def due_run(
    cron: Obj, schedule: Schedule, zone: tzinfo, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return the newest run that should have begun by now and did not, and the next one."""
    status = cron.get("status") or {}
    last = status.get("lastScheduleTime") or cron["metadata"]["creationTimestamp"]
    earliest = epoch(last)
    late_s = cron["spec"].get("startingDeadlineSeconds")
    if late_s is not None:
        earliest = max(earliest, now.timestamp() - late_s)
    moment = schedule.next_after(datetime.fromtimestamp(earliest, UTC), zone)
    due = None
    for _ in range(_MOST_MISSED):
        if moment is None or moment > now:
            return due, moment
        due = moment
        moment = schedule.next_after(moment, zone)
    # Far behind: look only at the last hour, so that the newest run is still found.
    recent = schedule.next_after(now - timedelta(hours=1), zone)
    while recent is not None and recent <= now:
        due = recent
        recent = schedule.next_after(recent, zone)
    return due, recent


def new_job(cron: Obj, due: datetime) -> Obj:
    """Return the CronJob's Job for one scheduled time; the name makes a second one impossible."""
    template = cron["spec"]["jobTemplate"]
    found = template.get("metadata") or {}
    zone = _zone(cron)
    annotations = {
        **annotations_of({"metadata": found}),
        _SCHEDULED: due.astimezone(zone).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{cron['metadata']['name']}-{int(due.timestamp()) // 60}",
            "namespace": cron["metadata"]["namespace"],
            "labels": dict(found.get("labels") or {}),
            "annotations": annotations,
            "ownerReferences": [owner_reference(cron)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }


def _zone(cron: Obj) -> tzinfo:
    name = cron["spec"].get("timeZone")
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"unknown time zone {name}") from error


def _set_active(status: Obj, active: list[Obj]) -> None:
    references = [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job["metadata"]["name"],
            "namespace": job["metadata"]["namespace"],
            "uid": job["metadata"]["uid"],
            "resourceVersion": job["metadata"]["resourceVersion"],
        }
        for job in active
    ]
    known = {reference["uid"] for reference in status.get("active") or []}
    if known != {reference["uid"] for reference in references}:
        status["active"] = references
    if not references:
        status.pop("active", None)
