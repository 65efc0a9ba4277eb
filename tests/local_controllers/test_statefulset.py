"""StatefulSets: order, updates, revisions, status, claims."""

from __future__ import annotations

from pytest_pgo_eks.local.controllers.statefulset_plan import (
    REVISION_LABEL,
    ordinal_of,
    plan,
    status_of,
)
from pytest_pgo_eks.local.objects import CLAIM, CONTROLLER_REVISION, POD, STATEFUL_SET, Obj

from .conftest import Bed, Tell
from .made import pod
from .test_scheduler import claim_template, stateful_set


def owner(replicas: int, **spec: object) -> Obj:
    made = stateful_set("db", replicas, **spec)
    made["metadata"] |= {"uid": "set", "namespace": "default", "generation": 1}
    return made


def member(ordinal: int, revision: str = "new", **state: object) -> Obj:
    state.setdefault("ready", True)
    return pod(f"db-{ordinal}", {REVISION_LABEL: revision}, **state)  # type: ignore[arg-type]


def test_names_tell_ordinals() -> None:
    assert ordinal_of("db-12", "db") == 12
    assert ordinal_of("db-x", "db") is None
    assert ordinal_of("db2-1", "db") is None


def test_in_order_one_at_a_time() -> None:
    assert plan(owner(3), [], "new", "new").create == {0: "new"}
    waiting = plan(owner(3), [member(0, ready=False)], "new", "new")
    assert (waiting.create, waiting.delete) == ({}, ())
    assert plan(owner(3), [member(0)], "new", "new").create == {1: "new"}
    dying = plan(owner(3), [member(0, terminating=True)], "new", "new")
    assert dying.create == {}


def test_in_parallel_all_at_once() -> None:
    parallel = owner(3, podManagementPolicy="Parallel")
    assert plan(parallel, [member(1)], "new", "new").create == {0: "new", 2: "new"}


def test_the_surplus_goes_from_the_top_and_only_when_the_rest_is_well() -> None:
    names = [
        p["metadata"]["name"]
        for p in plan(owner(1), [member(i) for i in range(3)], "new", "new").delete
    ]
    assert names == ["db-2"]
    unwell = [member(0, ready=False), member(1)]
    assert plan(owner(1), unwell, "new", "new").delete == ()


def test_a_rolling_update_goes_from_the_top_down_to_the_partition() -> None:
    def next_deleted(pods: list[Obj], **rolling: int) -> list[str]:
        strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
        steps = plan(owner(3, updateStrategy=strategy), pods, "old", "new")
        return [p["metadata"]["name"] for p in steps.delete]

    old = [member(i, "old") for i in range(3)]
    assert next_deleted(old) == ["db-2"]
    assert next_deleted([*old[:2], member(2)]) == ["db-1"]
    assert next_deleted([*old[:2], member(2, ready=False)]) == []
    assert next_deleted([*old[:2], member(2)], partition=2) == []


def test_on_delete_waits_for_somebody_to_delete() -> None:
    on_delete = owner(1, updateStrategy={"type": "OnDelete"})
    assert plan(on_delete, [member(0, "old")], "old", "new").delete == ()
    # What is made again has the new template at once, as the recordings show.
    assert plan(on_delete, [], "old", "new").create == {0: "new"}


def test_status_as_recorded_during_an_on_delete_restart() -> None:
    on_delete = owner(1, updateStrategy={"type": "OnDelete"})
    on_delete["metadata"]["generation"] = 2
    base = {
        "observedGeneration": 2,
        "replicas": 1,
        "currentRevision": "old",
        "updateRevision": "new",
        "collisionCount": 0,
    }
    before, _ = status_of(on_delete, [member(0, "old")], "old", "new", 0)
    assert before == base | {"readyReplicas": 1, "currentReplicas": 1, "availableReplicas": 1}
    dying, _ = status_of(on_delete, [member(0, "old", terminating=True)], "old", "new", 0)
    assert dying == base | {"readyReplicas": 1, "availableReplicas": 1}
    none, _ = status_of(on_delete, [], "old", "new", 0)
    assert none == base | {"replicas": 0, "availableReplicas": 0}
    after, _ = status_of(on_delete, [member(0)], "old", "new", 0)
    assert after == base | {"readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1}


def test_a_finished_rolling_update_makes_the_new_revision_current() -> None:
    status, _ = status_of(owner(1), [member(0)], "old", "new", 0)
    assert status["currentRevision"] == "new"
    assert status["currentReplicas"] == 1
    unready, _ = status_of(owner(1), [member(0, ready=False)], "old", "new", 0)
    assert unready["currentRevision"] == "old"


def test_a_deleted_pod_comes_back_only_after_it_is_gone(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(STATEFUL_SET, stateful_set("db"))
        first = await bed.bound("db-0")
        await bed.kubelet_runs("db-0")

        async def ready() -> bool:
            found = await bed.get(STATEFUL_SET, "db")
            return bool(found and (found.get("status") or {}).get("readyReplicas") == 1)

        await bed.until(ready)
        await bed.client.delete(POD, "db-0", "default")
        dying = await bed.get(POD, "db-0")
        assert dying is not None
        assert dying["metadata"]["uid"] == first["metadata"]["uid"]
        await bed.kubelet_removes("db-0")

        async def again() -> Obj | None:
            found = await bed.get(POD, "db-0")
            return found if found and found["metadata"]["uid"] != first["metadata"]["uid"] else None

        await bed.until(again)

    tell(story)


def test_scaling_and_updating_for_real(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        made = stateful_set("db", 2, volumeClaimTemplates=[claim_template()])
        made["spec"]["revisionHistoryLimit"] = 0
        await bed.create(STATEFUL_SET, made)
        for name in ("db-0", "db-1"):
            await bed.bound(name)
            await bed.kubelet_runs(name)
        template = {"template": {"metadata": {"annotations": {"v": "2"}}}}
        await bed.patch(STATEFUL_SET, "db", {"spec": template})
        for name in ("db-1", "db-0"):

            async def dying(name: str = name) -> bool:
                found = await bed.get(POD, name)
                return bool(found and found["metadata"].get("deletionTimestamp"))

            await bed.until(dying)
            await bed.kubelet_removes(name)
            fresh = await bed.bound(name)
            assert fresh["metadata"]["annotations"]["v"] == "2"
            await bed.kubelet_runs(name)

        async def done() -> bool:
            status = ((await bed.get(STATEFUL_SET, "db")) or {}).get("status") or {}
            return (
                status.get("currentRevision") == status.get("updateRevision")
                and status.get("updatedReplicas") == status.get("readyReplicas") == 2
                and len(await bed.every(CONTROLLER_REVISION)) == 1
            )

        await bed.until(done)
        await bed.patch(STATEFUL_SET, "db", {"spec": {"replicas": 1}})
        await bed.until(lambda: bed.events("SuccessfulDelete"))
        await bed.kubelet_removes("db-1")
        assert await bed.get(CLAIM, "data-db-1") is not None

    tell(story)


def test_claims_follow_the_retention_policy(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        policy = {"whenDeleted": "Delete", "whenScaled": "Retain"}
        made = stateful_set(
            "db",
            volumeClaimTemplates=[claim_template()],
            persistentVolumeClaimRetentionPolicy=policy,
        )
        await bed.create(STATEFUL_SET, made)
        await bed.bound("db-0")

        async def owned() -> bool:
            claim = await bed.get(CLAIM, "data-db-0")
            return bool(claim and claim["metadata"].get("ownerReferences"))

        await bed.until(owned)
        await bed.client.delete(STATEFUL_SET, "db", "default", propagation="Background")

        async def pod_dying() -> bool:
            found = await bed.get(POD, "db-0")
            return found is None or bool(found["metadata"].get("deletionTimestamp"))

        await bed.until(pod_dying)
        await bed.kubelet_removes("db-0")

        async def gone() -> bool:
            return await bed.get(CLAIM, "data-db-0") is None

        await bed.until(gone)

    tell(story)


def test_a_set_made_again_takes_over_what_its_predecessor_left(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(STATEFUL_SET, stateful_set("db"))
        pod_before = await bed.bound("db-0")
        await bed.kubelet_runs("db-0")
        await bed.client.delete(STATEFUL_SET, "db", "default", propagation="Orphan")

        async def orphaned() -> bool:
            found = [*await bed.every(POD), *await bed.every(CONTROLLER_REVISION)]
            alone = not any(o["metadata"].get("ownerReferences") for o in found)
            return len(found) == 2 and alone and await bed.get(STATEFUL_SET, "db") is None

        await bed.until(orphaned)
        successor = await bed.create(STATEFUL_SET, stateful_set("db"))

        async def adopted() -> bool:
            found = [*await bed.every(POD), *await bed.every(CONTROLLER_REVISION)]
            owners = {o["uid"] for x in found for o in x["metadata"].get("ownerReferences") or []}
            return len(found) == 2 and owners == {successor["metadata"]["uid"]}

        await bed.until(adopted)
        pod_after = await bed.get(POD, "db-0")
        assert pod_after is not None
        assert pod_after["metadata"]["uid"] == pod_before["metadata"]["uid"]
        template = {"template": {"metadata": {"annotations": {"v": "2"}}}}
        await bed.patch(STATEFUL_SET, "db", {"spec": template})

        async def updating() -> bool:
            status = ((await bed.get(STATEFUL_SET, "db")) or {}).get("status") or {}
            before = pod_before["metadata"]["labels"]["controller-revision-hash"]
            newest = max(r["revision"] for r in await bed.every(CONTROLLER_REVISION))
            kept = status.get("currentRevision") == before
            return bool(kept and status.get("updateRevision") != before and newest == 2)

        await bed.until(updating)

    tell(story)
