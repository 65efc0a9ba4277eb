"""Jobs and CronJobs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_pgo_eks.local.controllers.cron_schedule import parse
from pytest_pgo_eks.local.controllers.cronjob import due_run
from pytest_pgo_eks.local.controllers.job_plan import (
    TRACKING,
    count,
    format_indexes,
    parse_indexes,
    step,
)
from pytest_pgo_eks.local.objects import CRON_JOB, JOB, POD, Obj

from .conftest import Bed, Tell
from .made import pod


def job(name: str = "backup", **spec: Any) -> Obj:
    pod_spec = {"containers": [{"name": "main", "image": "x"}], "restartPolicy": "Never"}
    return {"metadata": {"name": name}, "spec": {"template": {"spec": pod_spec}, **spec}}


def tracked(name: str, phase: str, **state: Any) -> Obj:
    made = pod(name, phase=phase, **state)
    made["metadata"]["finalizers"] = [TRACKING]
    return made


# A busy machine is no failure.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(st.integers(0, 60)))
def test_indexes_survive_their_notation(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes


def test_index_notation() -> None:
    assert format_indexes({0, 1, 2, 5, 7, 8}) == "0-2,5,7-8"


def test_every_pod_is_counted_once() -> None:
    done = tracked("a", "Succeeded")
    found = count(job(), [done])
    assert (found.succeeded, found.uncounted_succeeded) == (0, [done["metadata"]["uid"]])
    uncounted = {"succeeded": [done["metadata"]["uid"]]}
    listed = job() | {"status": {"uncountedTerminatedPods": uncounted}}
    again = count(listed, [done])
    assert (again.succeeded, again.all_succeeded, again.counted) == (0, 1, [done])
    done["metadata"]["finalizers"] = []
    assert count(listed, [done]).succeeded == 1
    assert count(listed, []).succeeded == 1, "removed meanwhile: it counts all the same"
    settled = job() | {"status": {"succeeded": 1}}
    assert count(settled, [done]).all_succeeded == 1


def test_what_to_do_next() -> None:
    def next_step(pods: list[Obj], **spec: Any) -> Any:
        made = job(**({"completions": 2, "parallelism": 1} | spec))
        return step(made, count(made, pods), backoff_s=10, backoff_max_s=60)

    assert next_step([]).create == 1
    assert next_step([pod("a")]).create == 0
    assert next_step([tracked("a", "Succeeded")]).create == 1
    assert next_step([tracked("a", "Succeeded"), tracked("b", "Succeeded")]).complete
    assert next_step([], suspend=True).create == 0
    failed = [tracked(f"f{i}", "Failed") for i in range(2)]
    assert next_step(failed, backoffLimit=1).failure == (
        "BackoffLimitExceeded",
        "Job has reached the specified backoff limit",
    )
    assert next_step(failed, backoffLimit=2).create == 1, "they failed long ago"
    assert next_step([pod("a")], parallelism=0).delete


def test_a_failed_pod_is_not_replaced_at_once() -> None:
    failed = tracked("a", "Failed")
    failed["metadata"]["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = job(completions=1)
    found = step(made, count(made, [failed]), backoff_s=10, backoff_max_s=60)
    assert found.create == 0
    assert found.look_again_s is not None
    assert 8 < found.look_again_s <= 10


def test_a_policy_can_fail_the_job_or_look_away() -> None:
    failed = tracked("a", "Failed")
    ended = {"name": "main", "state": {"terminated": {"exitCode": 42}}}
    failed["status"]["containerStatuses"] = [ended]

    def verdict(action: str, values: list[int]) -> Any:
        rule = {"action": action, "onExitCodes": {"operator": "In", "values": values}}
        return count(job(podFailurePolicy={"rules": [rule]}), [failed])

    assert verdict("FailJob", [42]).verdict
    assert verdict("FailJob", [1]).verdict is None
    ignored = verdict("Ignore", [42])
    assert (ignored.all_failed, ignored.counted) == (0, [failed])


def test_a_job_from_start_to_end(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(JOB, job(ttlSecondsAfterFinished=1))

        async def made() -> Obj | None:
            return next(iter(await bed.pods()), None)

        found = await bed.until(made)
        name = found["metadata"]["name"]
        assert name.startswith("backup-")
        assert found["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "backup"
        await bed.bound(name)
        await bed.kubelet_runs(name)
        await bed.kubelet_ends(name)

        async def complete() -> Obj | None:
            status = ((await bed.get(JOB, "backup")) or {}).get("status") or {}
            types = [c["type"] for c in status.get("conditions") or []]
            return status if "Complete" in types else None

        status = await bed.until(complete)
        assert status["succeeded"] == 1
        assert [c["type"] for c in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
        assert status["completionTime"]
        assert status["ready"] == 0
        assert await bed.until(lambda: bed.events("Completed")) == ["Job completed"]

        async def gone() -> bool:
            return await bed.get(JOB, "backup") is None and not await bed.pods()

        await bed.until(gone)

    tell(story)


def test_a_job_gives_up(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(JOB, job(backoffLimit=1))
        seen: set[str] = set()

        async def failed() -> Obj | None:
            for found in await bed.pods():
                name = found["metadata"]["name"]
                if name not in seen and found["spec"].get("nodeName"):
                    seen.add(name)
                    await bed.kubelet_ends(name, exit_code=1)
            status = ((await bed.get(JOB, "backup")) or {}).get("status") or {}
            reasons = {c["type"]: c["reason"] for c in status.get("conditions") or []}
            return status if reasons.get("Failed") == "BackoffLimitExceeded" else None

        status = await bed.until(failed)
        assert status["failed"] == 2
        assert len(seen) == 2
        # Nothing holds the pods of a Job that was deleted.
        await bed.client.delete(JOB, "backup", "default", propagation="Background")

        async def gone() -> bool:
            for found in await bed.pods():
                if found["metadata"].get("deletionTimestamp"):
                    await bed.kubelet_removes(found["metadata"]["name"])
            return not await bed.pods()

        await bed.until(gone)

    tell(story, job_backoff_s=0.1)


def test_a_job_runs_out_of_time_and_one_is_suspended(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(JOB, job("slow", activeDeadlineSeconds=1))
        await bed.create(JOB, job("later", suspend=True))

        async def over() -> bool:
            for found in await bed.pods():
                if found["metadata"].get("deletionTimestamp"):
                    await bed.kubelet_removes(found["metadata"]["name"])
            status = ((await bed.get(JOB, "slow")) or {}).get("status") or {}
            return any(
                (c["type"], c["reason"]) == ("Failed", "DeadlineExceeded")
                for c in status.get("conditions") or []
            )

        await bed.until(over)
        assert not await bed.every(POD, "job-name=later")
        await bed.patch(JOB, "later", {"spec": {"suspend": False}})
        await bed.until(lambda: bed.every(POD, "job-name=later"))

    tell(story)


def test_indexed_pods_know_their_index(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(JOB, job(completionMode="Indexed", completions=2, parallelism=2))

        async def both() -> list[Obj] | None:
            found = await bed.pods()
            return found if len(found) == 2 else None

        indexes = set()
        for found in await bed.until(both):
            index = found["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
            assert found["spec"]["hostname"] == f"backup-{index}"
            indexes.add(index)
            await bed.bound(found["metadata"]["name"])
            await bed.kubelet_ends(found["metadata"]["name"])
        assert indexes == {"0", "1"}

        async def complete() -> bool:
            status = ((await bed.get(JOB, "backup")) or {}).get("status") or {}
            return bool(status.get("completedIndexes") == "0-1" and status.get("completionTime"))

        await bed.until(complete)

    tell(story)


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("*/15 * * * *", "2026-11-23T10:07:30", "2026-11-23T10:15:00"),
        ("0 1 * * 0", "2026-11-23T10:00:00", "2026-11-29T01:00:00"),
        ("0 1 * * 7", "2026-11-23T10:00:00", "2026-11-29T01:00:00"),
        ("30 4 1,15 * *", "2026-11-23T10:00:00", "2026-12-01T04:30:00"),
        ("0 0 13 * 5", "2026-11-23T10:00:00", "2026-11-27T00:00:00"),
        ("0 0 29 2 *", "2026-11-23T10:00:00", "2028-02-29T00:00:00"),
        ("5/20 10-12 * jan-mar MON-FRI", "2026-11-23T10:00:00", "2027-01-01T10:05:00"),
        ("@hourly", "2026-11-23T10:00:00", "2026-11-23T11:00:00"),
        ("@daily", "2026-12-31T10:00:00", "2027-01-01T00:00:00"),
        ("@every 1h30m", "2026-11-23T10:00:00", "2026-11-23T11:30:00"),
    ],
)
def test_schedules(schedule: str, after: str, expected: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = parse(schedule).next_after(moment)
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_a_day_that_never_comes() -> None:
    assert parse("0 0 31 2 *").next_after(datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_daylight_saving() -> None:
    zone = ZoneInfo("Europe/Berlin")
    schedule = parse("30 2 * * *")
    # 2026-03-29 has no 02:30 there; 2026-10-25 has two of them.
    skipped = schedule.next_after(datetime(2026, 3, 28, 12, tzinfo=UTC), zone)
    assert skipped == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)
    first = schedule.next_after(datetime(2026, 10, 24, 12, tzinfo=UTC), zone)
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert schedule.next_after(first, zone) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "wrong", ["", "* * * *", "60 * * * *", "* * * * mon-xyz", "@soon", "*/0 * * * *", "@every x"]
)
def test_what_is_no_schedule(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(wrong)


def test_only_the_newest_missed_run_is_due() -> None:
    cron = {
        "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"schedule": "0 * * * *"},
        "status": {"lastScheduleTime": "2026-11-20T10:00:00Z"},
    }
    now = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
    due, following = due_run(cron, parse("0 * * * *"), UTC, now)
    assert due == datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert following == datetime(2026, 11, 23, 11, tzinfo=UTC)
    every_minute = due_run(cron, parse("* * * * *"), UTC, now)
    assert every_minute[0] == now, "thousands missed: still the newest"


def test_a_cron_job_starts_and_keeps_its_limits(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        template = {"spec": job()["spec"]}
        cron = {
            "metadata": {"name": "often"},
            "spec": {
                "schedule": "@every 1s",
                "concurrencyPolicy": "Replace",
                "jobTemplate": template,
            },
        }
        await bed.create(CRON_JOB, cron)
        (made,) = await bed.until(lambda: bed.every(JOB))
        assert made["metadata"]["ownerReferences"][0]["name"] == "often"
        assert made["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]

        async def active() -> bool:
            status = ((await bed.get(CRON_JOB, "often")) or {}).get("status") or {}
            return bool(status.get("active") and status.get("lastScheduleTime"))

        await bed.until(active)
        await bed.patch(CRON_JOB, "often", {"spec": {"suspend": True}})
        await asyncio.sleep(0.05)

    tell(story)
