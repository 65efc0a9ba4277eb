"""A pod's status, computed from what its containers are doing. No I/O, no clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_pgo_eks.local.kubelet.references import quantity
from pytest_pgo_eks.local.objects import Obj


def moment(at: float) -> str:
    """Return epoch seconds as the API's second-precision time."""
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class Waiting:
    """Not running (yet)."""

    reason: str
    message: str = ""

    def state(self) -> Obj:
        return {"waiting": _without_empty({"reason": self.reason, "message": self.message})}


@dataclass(frozen=True)
class Running:
    """Running since an epoch second."""

    started_at: float

    def state(self) -> Obj:
        return {"running": {"startedAt": moment(self.started_at)}}


@dataclass(frozen=True)
class Terminated:
    """Ended; ``exit_code`` is 128 + N after signal N."""

    exit_code: int
    reason: str
    message: str
    started_at: float
    finished_at: float
    container_id: str

    def state(self) -> Obj:
        ended = {
            "exitCode": self.exit_code,
            "reason": self.reason,
            "startedAt": moment(self.started_at),
            "finishedAt": moment(self.finished_at),
        }
        more = {"message": self.message, "containerID": self.container_id}
        return {"terminated": ended | _without_empty(more)}


State = Waiting | Running | Terminated


@dataclass
class Record:
    """What is known of one container of a pod."""

    spec: Obj
    init: bool = False
    image_id: str = ""
    state: State = Waiting("ContainerCreating")
    last: Terminated | None = None
    restarts: int = 0
    container_id: str = ""
    started: bool = False
    ready: bool = False

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def sidecar(self) -> bool:
        """An init container that keeps running beside the others."""
        return self.init and self.spec.get("restartPolicy") == "Always"

    def initialized(self) -> bool:
        """Say whether the containers after this init container may start."""
        if self.sidecar:
            return self.started
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    def status(self) -> Obj:
        found: Obj = {
            "name": self.name,
            "image": self.spec.get("image") or "",
            "imageID": self.image_id,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state.state(),
            "lastState": self.last.state() if self.last else {},
        }
        return found | _without_empty({"containerID": self.container_id})


@dataclass(frozen=True)
class Facts:
    """What else a status says: addresses, when the kubelet saw the pod, whether it has a place."""

    host_ip: str
    pod_ip: str = ""
    start_time: float | None = None
    sandbox: bool = False
    reason: str = ""
    message: str = ""
    failed: bool = False


@dataclass
class Conditions:
    """Remembers since when each condition has been as it is."""

    known: dict[str, Obj] = field(default_factory=dict)

    def adopt(self, pod: Obj) -> None:
        for condition in (pod.get("status") or {}).get("conditions") or []:
            self.known.setdefault(condition["type"], condition)

    def set(self, generation: int | None, now: float, wanted: Iterable[Obj]) -> list[Obj]:
        out = []
        for condition in wanted:
            old = self.known.get(condition["type"])
            same = old is not None and old["status"] == condition["status"]
            since = old["lastTransitionTime"] if old is not None and same else moment(now)
            # Absent ones are sent as null: a merge would keep the reason of yesterday's failure.
            unsaid = {"lastProbeTime": None, "reason": None, "message": None}
            fresh = unsaid | {"lastTransitionTime": since} | condition
            if generation is not None:
                fresh["observedGeneration"] = generation
            self.known[condition["type"]] = fresh
            out.append(fresh)
        return out


def phase(pod: Obj, records: Sequence[Record], *, failed: bool = False) -> str:
    """Return the pod's phase by the kubelet's rules (``getPhase``)."""
    policy = pod["spec"].get("restartPolicy") or "Always"
    if failed:
        return "Failed"
    apps = [record for record in records if not record.init]
    for record in records:
        if record.init and not record.initialized() and not _begun(apps):
            ended = record.state if isinstance(record.state, Terminated) else None
            broken = ended is not None and ended.exit_code != 0
            return "Failed" if broken and policy == "Never" and not record.sidecar else "Pending"
    if any(isinstance(r.state, Waiting) and r.last is None for r in apps):
        return "Pending"
    if any(isinstance(r.state, Running) for r in apps):
        return "Running"
    ends = [_end(record) for record in apps]
    if policy == "Always":
        return "Running"
    if all(one is not None and one.exit_code == 0 for one in ends):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def compute(
    pod: Obj, records: Sequence[Record], facts: Facts, conditions: Conditions, now: float
) -> Obj:
    """Return the status to send: the parts that a kubelet owns."""
    where = phase(pod, records, failed=facts.failed)
    generation = pod["metadata"].get("generation")
    over = where in {"Succeeded", "Failed"}
    status: Obj = {
        "phase": where,
        "conditions": conditions.set(generation, now, _conditions(pod, records, facts, where)),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "qosClass": qos_class(pod),
        "containerStatuses": [r.status() for r in records if not r.init],
        "reason": facts.reason or None,
        "message": facts.message or None,
    }
    if generation is not None:
        status["observedGeneration"] = generation
    if any(record.init for record in records):
        status["initContainerStatuses"] = [r.status() for r in records if r.init]
    if facts.start_time is not None:
        status["startTime"] = moment(facts.start_time)
    if facts.pod_ip:
        status |= {"podIP": facts.pod_ip, "podIPs": [{"ip": facts.pod_ip}]}
    if over:
        for one in (*status["containerStatuses"], *status.get("initContainerStatuses", ())):
            one["started"] = False
    return status


def _conditions(pod: Obj, records: Sequence[Record], facts: Facts, where: str) -> list[Obj]:
    over = where in {"Succeeded", "Failed"}
    begun = _begun([record for record in records if not record.init])
    not_initialized = [r.name for r in records if r.init and not r.initialized() and not begun]
    not_ready = [r.name for r in records if (not r.init or r.sidecar) and not r.ready]
    initialized: Obj = {"type": "Initialized", "status": "True"}
    if where == "Succeeded":
        initialized["reason"] = "PodCompleted"
    elif not_initialized:
        initialized |= {
            "status": "False",
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: [{' '.join(not_initialized)}]",
        }
    containers: Obj = {"type": "ContainersReady", "status": "True"}
    if over:
        reason = "PodCompleted" if where == "Succeeded" else "PodFailed"
        containers |= {"status": "False", "reason": reason}
    elif not_ready:
        containers |= {
            "status": "False",
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{' '.join(not_ready)}]",
        }
    ready = containers | {"type": "Ready"}
    lacking = _closed_gates(pod)
    if ready["status"] == "True" and lacking:
        said = "; ".join(
            f'corresponding condition of pod readiness gate "{g}" is not "True".' for g in lacking
        )
        ready |= {"status": "False", "reason": "ReadinessGatesNotReady", "message": said}
    sandbox = {
        "type": "PodReadyToStartContainers",
        "status": "True" if facts.sandbox else "False",
    }
    return [sandbox, initialized, ready, containers, {"type": "PodScheduled", "status": "True"}]


def _begun(apps: Iterable[Record]) -> bool:
    """Say whether the pod's containers have begun: a sidecar that restarts then changes nothing."""
    return any(not isinstance(r.state, Waiting) or r.last is not None for r in apps)


def _closed_gates(pod: Obj) -> list[str]:
    held = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or []}
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    return [gate for gate in gates if held.get(gate) != "True"]


def _end(record: Record) -> Terminated | None:
    return record.state if isinstance(record.state, Terminated) else record.last


def qos_class(pod: Obj) -> str:
    """Return Guaranteed, Burstable or BestEffort."""
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    resources = [container.get("resources") or {} for container in containers]
    stated = [one.get(group) or {} for one in resources for group in ("requests", "limits")]
    if not any(_counted(amounts) for amounts in stated):
        return "BestEffort"
    full = all(
        {"cpu", "memory"} <= _counted(one.get("limits") or {}).keys()
        and all(
            quantity(value) == _counted(one["limits"]).get(name)
            for name, value in (one.get("requests") or {}).items()
            if name in {"cpu", "memory"}
        )
        for one in resources
    )
    return "Guaranteed" if full else "Burstable"


def _counted(amounts: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: quantity(amounts[name]) for name in ("cpu", "memory") if name in amounts}
    return {name: amount for name, amount in found.items() if amount}


def _without_empty(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
