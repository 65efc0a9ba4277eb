"""How many instances there are, which go, and in what order they are replaced."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.objects import (
    CLAIM,
    CONFIG_MAP,
    DISRUPTION_BUDGET,
    POD,
    SECRET,
    STATEFUL_SET,
    Obj,
    labels_of,
)
from pytest_pgo_eks.local.operator import instances, names, patroni, services, tls
from pytest_pgo_eks.local.operator.context import Blocked, Pass, owned
from pytest_pgo_eks.local.operator.observe import Instance
from pytest_pgo_eks.local.operator.status import remove_condition, set_condition

RESIZING = "PersistentVolumeResizing"


def planned_names(
    cluster: str, instance_set: Obj, existing: Sequence[str], orphans: Sequence[str]
) -> list[str]:
    """Return the instances a set shall have: those there are, those without a StatefulSet, new ones.

    Never fewer than exist: removing is a step of its own.
    """
    found = list(existing)
    spare = [name for name in orphans if name not in found]
    while len(found) < int(instance_set["replicas"]):
        if spare:
            found.append(spare.pop(0))
        else:
            prefix = f"{cluster}-{instance_set['name']}-"
            found.append(prefix + names.random_suffix([*found, *orphans], prefix))
    return found


def orphaned(claims: Sequence[Obj], busy: Sequence[str], *, wal: bool) -> list[str]:
    """Return the instances whose data volume waits for a StatefulSet (and WAL volume, if any)."""

    def of(role: str) -> set[str]:
        return {
            labels_of(claim)[names.INSTANCE]
            for claim in claims
            if labels_of(claim).get(names.ROLE) == role
            and names.INSTANCE in labels_of(claim)
            and not claim["metadata"].get("deletionTimestamp")
        }

    found = of("pgdata") & of("pgwal") if wal else of("pgdata")
    return sorted(found - set(busy))


def plan(work: Pass) -> None:
    """Decide the names of all instances of this pass."""
    observed = work.observed
    for each in work.cluster.instance_sets:
        here = observed.of_set(each["name"])
        existing = [i.name for i in here if i in observed.runners]
        claims = work.store.list(CLAIM, work.cluster.key, {names.INSTANCE_SET: each["name"]})
        # A StatefulSet on its way out still owns its claim.
        busy = [i.name for i in here if i.runner is not None]
        orphans = orphaned(claims, busy, wal=bool(each.get("walVolumeClaimSpec")))
        # Somebody deleted claim and StatefulSet: while its pod is still ending, the instance comes
        # back under its name and with empty data, as under the real operator.
        orphans += [i.name for i in here if i.runner is None and i.name not in orphans]
        work.planned[each["name"]] = planned_names(work.cluster.name, each, existing, orphans)


async def reconcile_sets(work: Pass) -> None:
    """Bring every instance of every set about, with what it needs."""
    cluster = work.cluster
    for instance_set in cluster.instance_sets:
        for name in work.planned[instance_set["name"]]:
            await _reconcile_instance(work, instance_set, name)
        budget = services.instance_set_budget(cluster, instance_set)
        if budget:
            await work.apply(budget)
        else:
            await work.remove(DISRUPTION_BUDGET, f"{cluster.name}-set-{instance_set['name']}")


async def _reconcile_instance(work: Pass, instance_set: Obj, name: str) -> None:
    cluster = work.cluster
    await work.apply(patroni.instance_config_map(cluster, instance_set, name))
    kept = work.existing(SECRET, f"{name}-certs")
    await work.apply(tls.instance_certificates(cluster, instance_set, name, work.root, kept))
    await apply_claim(work, instances.claim(cluster, instance_set, name))
    if instance_set.get("walVolumeClaimSpec"):
        await apply_claim(work, instances.claim(cluster, instance_set, name, "pgwal"))
    replicas = wanted_replicas(work, name)
    await work.apply(
        instances.stateful_set(cluster, instance_set, name, work.images, replicas=replicas)
    )


async def apply_claim(work: Pass, rendered: instances.Rendered) -> None:
    """Apply a claim. A size the storage refuses is reported and stops nothing else."""
    try:
        await work.apply(rendered)
    except ApiError as error:
        if error.code not in (403, 422):
            raise
        await work.warn("PersistentVolumeError", error.message)
        work.resize_refused = True
        set_condition(work.cluster, RESIZING, "False", error.reason or "Invalid", error.message)


def note_resizing(work: Pass) -> None:
    """Copy from the claims whether a volume grows; a refusal noted in this pass stays."""
    cluster = work.cluster
    if work.resize_refused:
        return
    for claim in work.store.list(CLAIM, cluster.key):
        for condition in (claim.get("status") or {}).get("conditions") or []:
            if condition["type"] in ("Resizing", "FileSystemResizePending"):
                reason = condition.get("reason") or condition["type"]
                message = condition.get("message", "")
                set_condition(cluster, RESIZING, condition["status"], reason, message)
                return
    remove_condition(cluster, RESIZING)


def wanted_replicas(work: Pass, name: str) -> int:
    """Return how many pods an instance's StatefulSet shall have now: 1, or 0 by shutdown's rules.

    Everybody but the primary goes first, the primary when it is alone; afterwards the last primary
    starts before the others.
    """
    cluster = work.cluster
    last = cluster.status.get("startupInstance")
    if not last:
        return 1
    if cluster.shutdown:
        alone = work.observed.pods <= 1
        return 0 if name != last or alone else 1
    return 1 if name == last else 0


def note_shutdown(work: Pass) -> None:
    """Remember the primary that shutdown stops last, and forget it once it leads again.

    Without a primary nothing is remembered, so nothing is stopped.
    """
    status, observed = work.cluster.status, work.observed
    primaries = observed.primaries
    last = status.get("startupInstance")
    if work.cluster.shutdown:
        if not last and primaries:
            status["startupInstance"] = primaries[0].name
            status["startupInstanceSet"] = primaries[0].set_name
        return
    if last and any(each.name == last and each.writable for each in observed.instances):
        status.pop("startupInstance", None)
        status.pop("startupInstanceSet", None)


def surplus(instance_set: Obj | None, instances_of_set: Sequence[Instance]) -> list[Instance]:
    """Return the instances to remove: any but the primary, which only goes with its whole set.

    Which replica goes is unspecified in PGO. Here a hash of the UID decides, so that it is neither
    always the newest nor changes between two looks.
    """
    if instance_set is None:
        return list(instances_of_set)
    excess = len(instances_of_set) - int(instance_set["replicas"])
    if excess <= 0:
        return []
    candidates = [each for each in instances_of_set if not each.primary]
    candidates.sort(
        key=lambda each: names.short_hash(
            each.runner["metadata"]["uid"] if each.runner else each.name
        )
    )
    return candidates[:excess]


async def scale_down(work: Pass) -> None:
    """Remove instances that are too many, with their volumes, and budgets of removed sets."""
    cluster, observed = work.cluster, work.observed
    declared = {each["name"]: each for each in cluster.instance_sets}
    for set_name in sorted({each.set_name for each in observed.runners}):
        here = [each for each in observed.runners if each.set_name == set_name]
        for instance in surplus(declared.get(set_name), here):
            await _remove_instance(work, instance)
    for budget in work.store.list(DISRUPTION_BUDGET, cluster.key):
        of = labels_of(budget).get(names.INSTANCE_SET)
        if of is not None and of not in declared and owned(cluster, budget):
            await work.store.delete(DISRUPTION_BUDGET, budget)


async def _remove_instance(work: Pass, instance: Instance) -> None:
    label = {names.INSTANCE: instance.name}
    for kind in (CONFIG_MAP, SECRET, STATEFUL_SET, CLAIM):
        for obj in work.store.list(kind, work.cluster.key, label):
            if owned(work.cluster, obj) and not obj["metadata"].get("deletionTimestamp"):
                await work.store.delete(kind, obj)


async def roll_out(work: Pass) -> None:
    """Replace at most one pod whose template is out of date: replicas first, the primary last.

    One instance may be away, counted over all sets; pods that are away already go first. A primary
    with others beside it is asked to hand over, and is replaced in a later pass as a replica.
    """
    cluster, observed = work.cluster, work.observed
    if cluster.status.get("startupInstance"):
        return
    behind = [each for each in observed.runners if each.current is False and not each.terminating]
    if not behind:
        return
    behind.sort(key=lambda each: (each.primary, each.available, each.name))
    wanted = sum(int(each["replicas"]) for each in cluster.instance_sets)
    may_go = sum(1 for each in observed.runners if each.available) >= wanted
    for instance in behind:
        if not instance.available or may_go:
            await _replace_pod(work, instance)
            return


async def _replace_pod(work: Pass, instance: Instance) -> None:
    pod = instance.pod
    if pod is None:
        return
    if instance.primary and len(work.observed.runners) > 1:
        if not await work.control.switchover(instance, "", primary=instance.pod_name):
            raise Blocked(f"unable to switch over from {instance.pod_name}")
        work.look_again(1.0)
        return
    if instance.primary and instance.writable:
        # The second one leaves little for the shutdown checkpoint to write.
        await work.control.sql(instance, "CHECKPOINT;\nCHECKPOINT;")
    try:
        await work.store.delete(POD, pod, exact=True)
    except ApiError as error:
        if error.code != 409:
            raise
        work.look_again(0.2)
