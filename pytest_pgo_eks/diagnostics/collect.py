"""Collect the state of a cluster under test into a folder that a person can read.

Every piece is collected on its own: what cannot be had leaves a line in ``README.txt`` saying why
and never hides the rest. A collection runs beside a failing cluster, so each call has a short
deadline and the whole takes at most about :data:`PATIENCE_S`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.diagnostics.telling import telling_events, telling_log_lines, telling_pods
from pytest_pgo_eks.errors import ExecProblem, PgoEksError
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.secrets import filtered

PATIENCE_S = 45.0
_CALL_S = 10.0
_LOG_LINES = 4000
_INSTANCE = "postgres-operator.crunchydata.com/instance"

_OBJECTS = (
    "Pod",
    "Service",
    "Endpoints",
    "PersistentVolumeClaim",
    "ConfigMap",
    "Secret",
    "apps/v1/StatefulSet",
    "apps/v1/Deployment",
    "batch/v1/Job",
    "batch/v1/CronJob",
    "policy/v1/PodDisruptionBudget",
    "discovery.k8s.io/v1/EndpointSlice",
    "PostgresCluster",
)
# Each call starts a Python of its own, about a second of CPU: only the list, where instances may
# differ, is asked of every one.
_PATRONI = {
    "list": ["list", "--extended", "--timestamp"],
    "history": ["history"],
    "config": ["show-config"],
}
_SQL = {
    "replication": "SELECT * FROM pg_stat_replication",
    "receiver": "SELECT * FROM pg_stat_wal_receiver",
    "activity": "SELECT * FROM pg_stat_activity ORDER BY backend_type, query_start",
    "settings": "SELECT name, setting, unit, source, pending_restart FROM pg_settings "
    "WHERE source NOT IN ('default', 'override') ORDER BY name",
    "hba": "SELECT * FROM pg_hba_file_rules",
    "where": "SELECT pg_is_in_recovery() AS in_recovery, pg_postmaster_start_time() AS started, "
    "(SELECT timeline_id FROM pg_control_checkpoint()) AS timeline, "
    "(SELECT system_identifier FROM pg_control_system()) AS system",
}


@dataclass
class Collection:
    """What was collected: the folder, the lines that tell most, and what could not be had."""

    folder: Path
    telling: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        """Write one file of the collection, secrets filtered."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(filtered(text), "utf-8")


Collector = Callable[[Collection], None]


def collect(
    kube: Kube,
    namespaces: Sequence[str],
    folder: Path,
    *,
    headline: str,
    more: Iterable[tuple[str, Collector]] = (),
) -> Collection:
    """Collect everything of ``namespaces`` into ``folder`` and write its ``README.txt``.

    ``headline`` is what failed, in one line. ``more`` are collectors of users, by name.
    """
    found = Collection(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tasks: list[tuple[str, Collector]] = [("nodes", partial(_objects, kube, "Node", None))]
    for namespace in dict.fromkeys(namespaces):
        tasks += _of_namespace(kube, namespace)
    tasks += list(more)
    _run_all(found, tasks)
    _write_readme(found, headline)
    return found


def _run_all(found: Collection, tasks: Sequence[tuple[str, Collector]]) -> None:
    ends = time.monotonic() + PATIENCE_S
    pool = ThreadPoolExecutor(max_workers=6, thread_name_prefix="diagnostics")
    running = {pool.submit(_guarded, found, name, task): name for name, task in tasks}
    _, late = wait(running, timeout=max(0.0, ends - time.monotonic()))
    for future in late:
        future.cancel()
        found.missing.append(f"{running[future]}: not collected within {PATIENCE_S:.0f} s")
    pool.shutdown(wait=False, cancel_futures=True)


def _guarded(found: Collection, name: str, task: Collector) -> None:
    """Run one collector; a failure becomes a line, because the next one may still succeed."""
    try:
        task(found)
    except (PgoEksError, OSError, ValueError, KeyError, TypeError) as error:
        found.missing.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")


def _of_namespace(kube: Kube, namespace: str) -> list[tuple[str, Collector]]:
    tasks: list[tuple[str, Collector]] = [
        (f"{kind} objects of {namespace}", partial(_objects, kube, kind, namespace))
        for kind in _OBJECTS
    ]
    tasks.append((f"events of {namespace}", partial(_events, kube, namespace)))
    try:
        pods = kube.list("Pod", namespace)
    except PgoEksError as error:
        return [*tasks, (f"pods of {namespace}", _failing(error))]
    tasks.append((f"pods of {namespace}", lambda c: c.telling.extend(telling_pods(pods))))
    first = next((pod for pod in pods if _is_instance(pod)), None)
    for pod in pods:
        tasks += _of_pod(kube, namespace, pod, first=pod is first)
    return tasks


def _is_instance(pod: dict[str, Any]) -> bool:
    return _INSTANCE in (pod["metadata"].get("labels") or {})


def _failing(error: PgoEksError) -> Collector:
    def fail(_collection: Collection) -> None:
        raise error

    return fail


def _of_pod(
    kube: Kube, namespace: str, pod: dict[str, Any], *, first: bool
) -> list[tuple[str, Collector]]:
    name = pod["metadata"]["name"]
    spec = pod["spec"]
    containers = [c["name"] for c in [*spec.get("initContainers", []), *spec["containers"]]]
    restarted = {
        s["name"]
        for s in (pod.get("status") or {}).get("containerStatuses") or []
        if s.get("restartCount")
    }
    tasks: list[tuple[str, Collector]] = [
        (f"log of {name}/{container}", partial(_log, kube, namespace, name, container=container))
        for container in containers
    ]
    tasks += [
        (
            f"log of {name}/{container} (previous)",
            partial(_log, kube, namespace, name, container=container, previous=True),
        )
        for container in containers
        if container in restarted
    ]
    if _is_instance(pod):
        what = tuple(_PATRONI) if first else ("list",)
        tasks.append((f"Patroni of {name}", partial(_patroni, kube, namespace, name, what=what)))
        tasks.append((f"SQL of {name}", partial(_sql, kube, namespace, name)))
    return tasks


def _objects(kube: Kube, kind: str, namespace: str | None, found: Collection) -> None:
    items = kube.list(kind, namespace)
    if not items:
        return
    if kind == "Secret":
        items = [_masked(item) for item in items]
    where = namespace or "cluster"
    text = yaml.safe_dump_all(items, sort_keys=False, width=140, allow_unicode=True)
    found.write(f"objects/{where}/{kind.rpartition('/')[2].lower()}.yaml", text)


def _masked(secret: dict[str, Any]) -> dict[str, Any]:
    """Return a Secret with the length of every value in place of the value."""
    data = {key: f"<masked len={len(value)}>" for key, value in (secret.get("data") or {}).items()}
    annotations = secret["metadata"].get("annotations") or {}
    kept = {k: v for k, v in annotations.items() if not k.endswith("last-applied-configuration")}
    return {
        **secret,
        "data": data,
        "stringData": {},
        "metadata": {**secret["metadata"], "annotations": kept},
    }


def _events(kube: Kube, namespace: str, found: Collection) -> None:
    events = kube.list("Event", namespace)

    def when(event: dict[str, Any]) -> str:
        return str(
            event.get("lastTimestamp")
            or event.get("eventTime")
            or event["metadata"].get("creationTimestamp")
            or ""
        )

    events.sort(key=when)
    lines = [
        f"{when(e)} {e.get('type', ''):8} {e.get('reason', ''):24} "
        f"{e['involvedObject'].get('kind', '')}/{e['involvedObject'].get('name', '')} "
        f"x{e.get('count') or 1}: {e.get('message', '')}"
        for e in events
    ]
    found.write(f"events/{namespace}.txt", "\n".join(lines) + "\n")
    found.telling.extend(telling_events(events))


def _log(
    kube: Kube,
    namespace: str,
    pod: str,
    found: Collection,
    *,
    container: str,
    previous: bool = False,
) -> None:
    text = kube.logs(namespace, pod, container=container, previous=previous, tail=_LOG_LINES)
    name = f"{pod}.{container}{'.previous' if previous else ''}"
    found.write(f"logs/{name}.log", text)
    found.telling.extend(f"{name}: {line}" for line in telling_log_lines(text))


def _patroni(
    kube: Kube, namespace: str, pod: str, found: Collection, *, what: Sequence[str]
) -> None:
    for name in what:
        command = ["patronictl", *_PATRONI[name]]
        done = kube.exec(namespace, pod, command, container="database", deadline_s=_CALL_S)
        text = (done.stdout + done.stderr).decode("utf-8", "replace")
        found.write(f"patroni/{pod}.{name}.txt", text)


def _sql(kube: Kube, namespace: str, pod: str, found: Collection) -> None:
    """Ask everything in one session: a row of JSON for each query, in their order."""
    command = ["psql", "-XAt"]
    for query in _SQL.values():
        command += ["-c", f"SELECT coalesce(jsonb_agg(to_jsonb(q)), '[]') FROM ({query}) q"]  # noqa: S608
    done = kube.exec(namespace, pod, command, container="database", deadline_s=_CALL_S)
    answers = done.stdout.decode("utf-8", "replace").splitlines()
    for what, answer in zip(_SQL, answers, strict=False):
        found.write(f"sql/{pod}.{what}.json", json.dumps(json.loads(answer), indent=1))
    if len(answers) != len(_SQL):
        told = done.stderr.decode("utf-8", "replace").strip()
        raise ExecProblem(f"{len(answers)} of {len(_SQL)} queries were answered: {told}")


def _write_readme(found: Collection, headline: str) -> None:
    lines = [headline, "", "Look at first:"]
    lines += [f"  {line}" for line in dict.fromkeys(found.telling)] or ["  nothing stands out"]
    lines += [
        "",
        "What is here:",
        "  objects/   every object as the API gave it (Secrets without their values)",
        "  events/    events in the order of time",
        "  logs/      every container; .previous is the one before its last restart",
        "  patroni/   list, history and configuration as each instance sees them",
        "  sql/       replication, sessions, settings and access rules of each server",
        "  describe/  each pod with its containers, conditions and events, as kubectl describe has it",
        "  host/      space, memory, processors and their pressure, as each server sees them",
        "  stream/    what was recorded since the scenario began: changes.txt is every change of every",
        "             object in the order of time, and the logs hold those of containers that are gone",
        "  objects-at-begin/  what the objects were when the scenario began",
    ]
    if found.missing:
        lines += ["", "Could not be collected:", *(f"  {line}" for line in found.missing)]
    found.write("README.txt", "\n".join(lines) + "\n")
