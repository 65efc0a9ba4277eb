"""pgBackRest in a reconcile: repository host, stanza, first backup, schedules, backups on demand."""

from __future__ import annotations

import datetime as dt

from pytest_pgo_eks.local.objects import (
    CLAIM,
    CONFIG_MAP,
    CRON_JOB,
    JOB,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Obj,
    annotations_of,
    labels_of,
)
from pytest_pgo_eks.local.operator import (
    backup_jobs,
    instances,
    names,
    pgbackrest,
    scripts,
    services,
    tls,
)
from pytest_pgo_eks.local.operator.context import Pass, owned
from pytest_pgo_eks.local.operator.replicas import apply_claim
from pytest_pgo_eks.local.operator.status import condition_is, remove_condition, set_condition

REPO_HOST_READY = "PGBackRestRepoHostReady"
REPO_READY = "PGBackRestReplicaRepoReady"
REPLICA_CREATE = "PGBackRestReplicaCreate"
MANUAL = "PGBackRestManualBackupSuccessful"
# How long the first backup leaves the machine to the first replicas, from the stanza on.
FIRST_BACKUP_PATIENCE_S = 15.0


async def prepare(work: Pass) -> None:
    """Write what instance pods mount, before they exist: PGO does it later and lets them wait."""
    cluster = work.cluster
    if cluster.pgbackrest is None:
        return
    kept = work.existing(SECRET, f"{cluster.name}-pgbackrest")
    await work.apply(tls.backrest_certificates(cluster, work.root, kept))
    planned = [name for found in work.planned.values() for name in found]
    await work.apply(pgbackrest.config_map(cluster, planned))


async def reconcile_backups(work: Pass) -> None:
    """Bring about everything pgBackRest needs, and note in the status how far it is."""
    cluster = work.cluster
    if cluster.pgbackrest is None:
        await _remove(work)
        return
    for rendered in services.backup_access(cluster):
        await work.apply(rendered)
    if not cluster.repos:
        await work.warn_once("InvalidBackupRepo", "the stand-in has repositories on volumes only")
        return
    ready = await _repo_host(work)
    await _repos(work)
    await _stanza(work, ready=ready)
    await _schedules(work)
    await _first_backup(work, ready=ready)
    await _manual_backup(work, ready=ready)


async def _repo_host(work: Pass) -> bool:
    cluster = work.cluster
    for rendered in services.repo_host_access(cluster):
        await work.apply(rendered)
    for repo in cluster.repos:
        metadata = pgbackrest.repo_claim_metadata(cluster, repo)
        await apply_claim(work, instances.volume_claim(metadata, repo["volume"]["volumeClaimSpec"]))
    name = pgbackrest.repo_host(cluster)
    new = work.existing(STATEFUL_SET, name) is None
    replicas = 0 if cluster.shutdown and not work.observed.pods else 1
    found = await work.apply(pgbackrest.repo_host_set(cluster, work.images, replicas=replicas))
    if new:
        await work.note("RepoHostCreated", f"created pgBackRest repository host StatefulSet/{name}")
    ready = bool((found.get("status") or {}).get("readyReplicas"))
    text = "pgBackRest dedicated repository host is "
    if ready:
        set_condition(cluster, REPO_HOST_READY, "True", "RepoHostReady", text + "ready")
    else:
        set_condition(cluster, REPO_HOST_READY, "False", "RepoHostNotReady", text + "not ready")
    status = cluster.status.setdefault("pgbackrest", {})
    status["repoHost"] = {"apiVersion": "apps/v1", "kind": "StatefulSet", "ready": ready}
    return ready


async def _repos(work: Pass) -> None:
    cluster = work.cluster
    known = {r["name"]: r for r in cluster.status["pgbackrest"].get("repos") or []}
    found = []
    for repo in cluster.repos:
        claim = work.existing(CLAIM, f"{cluster.name}-{repo['name']}") or {}
        status = {"stanzaCreated": False} | known.get(repo["name"], {}) | {"name": repo["name"]}
        if (claim.get("status") or {}).get("phase") == "Bound":
            status["bound"] = True
            status["volume"] = claim["spec"].get("volumeName", "")
        found.append(status)
    cluster.status["pgbackrest"]["repos"] = found
    _repo_conditions(work)


def _repo_conditions(work: Pass) -> None:
    cluster = work.cluster
    repo = cluster.status["pgbackrest"]["repos"][0]
    text = "pgBackRest replica create repo is "
    if repo.get("stanzaCreated"):
        set_condition(cluster, REPO_READY, "True", "StanzaCreated", text + "ready for backups")
    else:
        message = text + "not ready for backups"
        set_condition(cluster, REPO_READY, "False", "StanzaNotCreated", message)
    text = "pgBackRest replica creation is "
    if repo.get("replicaCreateBackupComplete"):
        message = text + "now possible"
        set_condition(cluster, REPLICA_CREATE, "True", "RepoBackupComplete", message)
    else:
        message = text + "not currently possible"
        set_condition(cluster, REPLICA_CREATE, "False", "RepoBackupNotComplete", message)


async def _stanza(work: Pass, *, ready: bool) -> None:
    cluster = work.cluster
    repos = cluster.status["pgbackrest"]["repos"]
    if all(repo.get("stanzaCreated") for repo in repos) or not ready or cluster.shutdown:
        return
    instance = work.observed.writable
    if instance is None:
        return
    command = scripts.command(scripts.CREATE_STANZA, "-", pgbackrest.CONFIG_HASH, pgbackrest.STANZA)
    done = await work.control.run(instance, command)
    if done.exit_status:
        text = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        message = f"command terminated with exit code {done.exit_status}: {text}"
        await work.warn("UnableToCreateStanzas", message)
        work.look_again(1.0)
        return
    for repo in repos:
        repo["stanzaCreated"] = True
    await work.note("StanzasCreated", "pgBackRest stanza creation completed successfully")
    _repo_conditions(work)


async def _schedules(work: Pass) -> None:
    """Keep one CronJob per schedule, from the first backup on; no schedule, no CronJob."""
    cluster = work.cluster
    standby = bool((cluster.spec.get("standby") or {}).get("enabled"))
    wanted = []
    if cluster.replica_create_complete:
        suspended = cluster.shutdown or standby
        wanted = backup_jobs.cron_jobs(cluster, work.images, suspended=suspended)
    declared = {f"{obj['metadata']['name']}" for _, obj in wanted}
    for rendered in wanted:
        await work.apply(rendered)
    if cluster.replica_create_complete:
        for found in work.store.list(CRON_JOB, cluster.key):
            if found["metadata"]["name"] not in declared and owned(cluster, found):
                await work.store.delete(CRON_JOB, found)
    await _scheduled_status(work)


async def _scheduled_status(work: Pass) -> None:
    cluster = work.cluster
    found = []
    for job in work.store.list(JOB, cluster.key, {names.BACKREST_BACKUP: "scheduled"}):
        owners = job["metadata"].get("ownerReferences") or [{}]
        entry = {
            "cronJobName": owners[0].get("name", ""),
            "repo": labels_of(job).get(names.BACKREST_REPO, ""),
            "type": labels_of(job).get(names.BACKREST_CRONJOB, ""),
        }
        found.append(entry | _job_times(job))
    cluster.status["pgbackrest"].pop("scheduledBackups", None)
    if found:
        cluster.status["pgbackrest"]["scheduledBackups"] = sorted(
            found, key=lambda each: (each["cronJobName"], each.get("startTime", ""))
        )


async def _first_backup(work: Pass, *, ready: bool) -> None:
    """Take the backup that replicas are built from: one Job, made again if it fails.

    It waits a while for the first replicas, which are built from the primary: on two cores both at
    once take twice as long, and PGO's own first backup is minutes behind anyway.
    """
    cluster = work.cluster
    repo = cluster.status["pgbackrest"]["repos"][0]
    if repo.get("replicaCreateBackupComplete"):
        return
    label = {names.BACKREST_BACKUP: "replica-create"}
    jobs = work.store.list(JOB, cluster.key, label)
    for job in jobs:
        if finished(job, "Complete"):
            repo["replicaCreateBackupComplete"] = True
            _repo_conditions(work)
            work.look_again(0.01)
            return
        if finished(job, "Failed"):
            await work.store.delete(JOB, job)
            work.look_again(1.0)
    may = ready and repo.get("stanzaCreated") and work.observed.writable is not None
    if jobs or not may or cluster.shutdown or _replicas_are_being_built(work):
        return
    name = f"{cluster.name}-backup-{names.random_suffix()}"
    await work.apply(backup_jobs.replica_create_job(cluster, work.images, name))


def _replicas_are_being_built(work: Pass) -> bool:
    cluster = work.cluster
    wanted = sum(int(each["replicas"]) for each in cluster.instance_sets)
    if sum(1 for each in work.observed.instances if each.ready) >= wanted:
        return False
    conditions = {c["type"]: c for c in cluster.status.get("conditions") or []}
    since = dt.datetime.fromisoformat(conditions[REPO_READY]["lastTransitionTime"])
    waited = (dt.datetime.now(dt.UTC) - since).total_seconds()
    left = FIRST_BACKUP_PATIENCE_S - waited
    if left > 0:
        work.look_again(left)
    return left > 0


async def _manual_backup(work: Pass, *, ready: bool) -> None:
    """Run a backup for every new value of the annotation; the status tells how it went."""
    cluster = work.cluster
    given = (cluster.pgbackrest or {}).get("manual")
    wanted = cluster.annotations.get(names.BACKREST_BACKUP)
    status = cluster.status["pgbackrest"]
    jobs = work.store.list(JOB, cluster.key, {names.BACKREST_BACKUP: "manual"})
    current = next(
        (job for job in jobs if annotations_of(job).get(names.BACKREST_BACKUP) == wanted), None
    )
    if given is None or not wanted:
        return
    known = status.get("manualBackup") or {}
    if known.get("id") != wanted:
        known = {"id": wanted, "finished": False}
        remove_condition(cluster, MANUAL)
    status["manualBackup"] = known
    if known["finished"]:
        return
    if current is not None:
        known = status["manualBackup"] = {"id": wanted, "finished": False} | _job_times(current)
        for outcome, value, reason, text in (
            ("Complete", "True", "ManualBackupComplete", "completed successfully"),
            ("Failed", "False", "ManualBackupFailed", "did not complete successfully"),
        ):
            if finished(current, outcome):
                known["finished"] = True
                set_condition(cluster, MANUAL, value, reason, f"Manual backup {text}")
        return
    for job in jobs:
        await work.store.delete(JOB, job)
    repo = next((r for r in cluster.repos if r["name"] == given["repoName"]), None)
    if repo is None:
        await work.warn("InvalidBackupRepo", f"repository {given['repoName']} is not defined")
        return
    if any(option.startswith("--repo") for option in given.get("options") or []):
        await work.warn(
            "InvalidManualBackup", "Option '--repo' is not allowed: please use 'repoName'"
        )
        return
    if ready and condition_is(cluster, REPLICA_CREATE, "True") and not cluster.shutdown:
        name = f"{cluster.name}-backup-{names.random_suffix()}"
        await work.apply(backup_jobs.manual_job(cluster, work.images, name, repo, given))


def finished(job: Obj, outcome: str) -> bool:
    """Say whether a Job ended as ``Complete`` or ``Failed``."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(c["type"] == outcome and c["status"] == "True" for c in conditions)


def _job_times(job: Obj) -> Obj:
    status = job.get("status") or {}
    kept = ("startTime", "completionTime", "active", "succeeded", "failed")
    return {name: status[name] for name in kept if status.get(name)}


def removal_is_blocked(work: Pass) -> bool:
    """Say whether ``spec.backups`` went while a repository is there, and nobody allowed it."""
    cluster = work.cluster
    return (
        cluster.pgbackrest is None
        and work.existing(STATEFUL_SET, pgbackrest.repo_host(cluster)) is not None
        and cluster.annotations.get(names.AUTHORIZE_BACKUP_REMOVAL) != "true"
    )


async def _remove(work: Pass) -> None:
    """Take away everything that belongs to backups, the repository's volume with it."""
    cluster = work.cluster
    kinds = (STATEFUL_SET, CRON_JOB, JOB, CLAIM, CONFIG_MAP, SECRET)
    for kind in (*kinds, ROLE_BINDING, ROLE, SERVICE_ACCOUNT):
        for obj in work.store.list(kind, cluster.key, {names.BACKREST: ""}):
            if owned(cluster, obj) and not obj["metadata"].get("deletionTimestamp"):
                await work.store.delete(kind, obj)
    cluster.status.pop("pgbackrest", None)
    for condition in (REPO_HOST_READY, REPO_READY, REPLICA_CREATE, MANUAL):
        remove_condition(cluster, condition)
