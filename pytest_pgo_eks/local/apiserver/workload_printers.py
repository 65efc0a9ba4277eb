"""The cells of Deployments, ReplicaSets, StatefulSets, Jobs and CronJobs."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.local.apiserver.cells import age, images, name, parts, selector
from pytest_pgo_eks.local.apiserver.times import human, parse, since
from pytest_pgo_eks.local.objects import Obj


def deployment(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    return [
        name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age(obj),
        *images(spec.get("template")),
        selector(spec.get("selector")),
    ]


def replica_set(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    return [
        name(obj),
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age(obj),
        *images(spec.get("template")),
        selector(spec.get("selector")),
    ]


def stateful_set(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name(obj), ready, age(obj), *images(spec.get("template"))]


def job(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    true = {
        one.get("type", "") for one in status.get("conditions") or [] if one.get("status") == "True"
    }
    word = "Running"
    for condition, said in (("Complete", "Complete"), ("Failed", "Failed")):
        if condition in true:
            word = said
    if word == "Running" and obj["metadata"].get("deletionTimestamp"):
        word = "Terminating"
    elif word == "Running" and "Suspended" in true:
        word = "Suspended"
    wanted = spec.get("completions")
    if wanted is None:
        parallel = spec.get("parallelism", 1)
        wanted = f"1 of {parallel}" if parallel > 1 else "1"
    duration = ""
    if status.get("startTime"):
        begun = parse(status["startTime"])
        ended = status.get("completionTime")
        duration = human(parse(ended) - begun) if ended else since(status["startTime"])
    return [
        name(obj),
        word,
        f"{status.get('succeeded', 0)}/{wanted}",
        duration,
        age(obj),
        *images(spec.get("template")),
        selector(spec.get("selector")),
    ]


def cron_job(obj: Obj) -> list[Any]:
    spec, status = parts(obj)
    last = status.get("lastScheduleTime")
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    return [
        name(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or "<none>",
        str(bool(spec.get("suspend"))),
        len(status.get("active") or []),
        since(last) if last else "<none>",
        age(obj),
        *images(job.get("template")),
        selector(job.get("selector")),
    ]
