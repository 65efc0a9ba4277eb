"""Backup Jobs: the first one, those a user asks for, and those of a schedule."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pgo_eks.local.objects import CRON_JOB, JOB, Kind, Obj
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.desired import Cluster, Images
from pytest_pgo_eks.local.operator.pgbackrest import (
    CONF,
    CONFIG_HASH,
    STANZA,
    configuration,
    selector,
)
from pytest_pgo_eks.local.operator.pods import container, mount, scheduling, security

Rendered = tuple[Kind, Obj]

_SCHEDULES = {"full": "full", "differential": "diff", "incremental": "incr"}


def _job_template(
    cluster: Cluster, images: Images, options: str, own: Mapping[str, str], notes: Mapping[str, str]
) -> Obj:
    block = (cluster.pgbackrest or {}).get("metadata")
    jobs = (cluster.pgbackrest or {}).get("jobs") or {}
    labels = ",".join(f"{name}={value}" for name, value in selector(cluster).items())
    values = {
        "COMMAND": "backup",
        "COMMAND_OPTS": options,
        "COMPARE_HASH": "true",
        "CONTAINER": "pgbackrest",
        "NAMESPACE": cluster.namespace,
        "SELECTOR": labels,
    }
    pod: Obj = {
        "containers": [
            container(
                "pgbackrest",
                images.pgbackrest(cluster),
                ["/opt/crunchy/bin/pgbackrest"],
                [mount("pgbackrest-config", CONF, read_only=True)],
                cluster,
                env=[{"name": name, "value": value} for name, value in values.items()],
                resources=jobs.get("resources"),
            )
        ],
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": security(cluster, None),
        "serviceAccountName": f"{cluster.name}-pgbackrest",
        "volumes": [configuration(cluster, "pgbackrest_repo.conf")],
    }
    spec: Obj = {
        "template": {
            "metadata": {
                "labels": cluster.labels(own, block, jobs.get("metadata")),
                "annotations": cluster.notes(
                    {names.DEFAULT_CONTAINER: "pgbackrest"} | dict(notes), block
                ),
            },
            "spec": pod | scheduling(cluster, jobs),
        }
    }
    if jobs.get("backoffLimit") is not None:
        spec["backoffLimit"] = jobs["backoffLimit"]
    if jobs.get("ttlSecondsAfterFinished") is not None:
        spec["ttlSecondsAfterFinished"] = jobs["ttlSecondsAfterFinished"]
    return spec


def _options(repo: Obj, *more: str) -> str:
    number = repo["name"].removeprefix("repo")
    return " ".join([f"--stanza={STANZA}", f"--repo={number}", *more])


def replica_create_job(cluster: Cluster, images: Images, name: str) -> Rendered:
    """Return the Job that takes the first full backup, from which replicas can be built."""
    own = _job_labels("replica-create", cluster.repos[0])
    notes = {names.BACKREST_CONFIG: "pgbackrest", names.BACKREST_HASH: CONFIG_HASH}
    return _job(cluster, images, name, _options(cluster.repos[0]), own=own, notes=notes)


def manual_job(cluster: Cluster, images: Images, name: str, repo: Obj, given: Obj) -> Rendered:
    """Return the Job of a backup the user asked for by annotation."""
    own = _job_labels("manual", repo)
    notes = {names.BACKREST_BACKUP: cluster.annotations[names.BACKREST_BACKUP]}
    options = _options(repo, *(given.get("options") or []))
    return _job(cluster, images, name, options, own=own, notes=notes)


def _job_labels(kind: str, repo: Obj) -> dict[str, str]:
    return {
        names.BACKREST: "",
        names.BACKREST_BACKUP: kind,
        names.BACKREST_REPO: repo["name"],
    }


def _job(
    cluster: Cluster,
    images: Images,
    name: str,
    options: str,
    *,
    own: Mapping[str, str],
    notes: Mapping[str, str],
) -> Rendered:
    block = (cluster.pgbackrest or {}).get("metadata")
    note = {names.DEFAULT_CONTAINER: "pgbackrest"} | dict(notes)
    return JOB, {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": cluster.metadata(name, own, block, annotations=note),
        "spec": _job_template(cluster, images, options, own, notes),
    }


def cron_jobs(cluster: Cluster, images: Images, *, suspended: bool) -> list[Rendered]:
    """Return one CronJob per schedule of each repository."""
    found: list[Rendered] = []
    for repo in cluster.repos:
        for field, kind in _SCHEDULES.items():
            schedule = (repo.get("schedules") or {}).get(field)
            if not schedule:
                continue
            own = _job_labels("scheduled", repo) | {names.BACKREST_CRONJOB: kind}
            template = _job_template(cluster, images, _options(repo, f"--type={kind}"), own, {})
            block = (cluster.pgbackrest or {}).get("metadata")
            name = f"{cluster.name}-{repo['name']}-{kind}"
            labels = cluster.labels(own, block)
            found.append(
                (
                    CRON_JOB,
                    {
                        "apiVersion": "batch/v1",
                        "kind": "CronJob",
                        "metadata": cluster.metadata(name, own, block),
                        "spec": {
                            "concurrencyPolicy": "Forbid",
                            "jobTemplate": {"metadata": {"labels": labels}, "spec": template},
                            "schedule": schedule,
                            "suspend": suspended,
                        },
                    },
                )
            )
    return found
