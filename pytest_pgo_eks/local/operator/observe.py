"""The instances of a cluster as they are: their StatefulSets, pods, and what Patroni says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pytest_pgo_eks.local.objects import Obj, annotations_of, labels_of
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.store import patroni_status


@dataclass(frozen=True)
class Instance:
    """One instance: its StatefulSet while there is one, and its pods (one, none, or a dying one)."""

    name: str
    set_name: str
    runner: Obj | None
    pods: tuple[Obj, ...]

    @property
    def pod(self) -> Obj | None:
        """The instance's pod, where there is exactly one."""
        return self.pods[0] if len(self.pods) == 1 else None

    @property
    def pod_name(self) -> str:
        return f"{self.name}-0"

    @property
    def terminating(self) -> bool:
        return any(pod["metadata"].get("deletionTimestamp") for pod in self.pods)

    @property
    def ready(self) -> bool:
        return self.pod is not None and is_ready(self.pod)

    @property
    def available(self) -> bool:
        return self.ready and not self.terminating

    @property
    def primary(self) -> bool:
        """Whether Patroni labelled the pod as leader. Stale on a pod whose Patroni is dead."""
        return self.pod is not None and labels_of(self.pod).get(names.ROLE) == names.LEADER

    @property
    def writable(self) -> bool:
        """Whether SQL that writes can be sent: a running primary by Patroni's own account."""
        return (
            self.running
            and not self.terminating
            and self.pod is not None
            and patroni_status(self.pod).get("role") in {"primary", "master"}
            and patroni_status(self.pod).get("state") == "running"
        )

    @property
    def running(self) -> bool:
        """Whether commands can be run in the database container."""
        return self.pod is not None and container_runs(self.pod, names.DATABASE)

    @property
    def pending_restart(self) -> bool:
        return self.pod is not None and bool(patroni_status(self.pod).get("pending_restart"))

    @property
    def current(self) -> bool | None:
        """Whether the pod is of its StatefulSet's newest revision; None where that is not known."""
        if self.pod is None or self.runner is None:
            return None
        status = self.runner.get("status") or {}
        if status.get("observedGeneration") != self.runner["metadata"].get("generation"):
            return None
        wanted = status.get("updateRevision")
        return labels_of(self.pod).get("controller-revision-hash") == wanted if wanted else None


class Observed:
    """All instances of one cluster, by name. ``leader`` is the pod that holds Patroni's lock.

    A label outlives a frozen or cut-off Patroni, the lock does not: where several pods claim to
    lead, commands go to the one that holds it.
    """

    def __init__(self, runners: Iterable[Obj], pods: Iterable[Obj], leader: str = "") -> None:
        self._leader = leader
        sets: dict[str, str] = {}
        by_runner: dict[str, Obj] = {}
        by_pod: dict[str, list[Obj]] = {}
        for runner in runners:
            name = labels_of(runner).get(names.INSTANCE)
            if name:
                by_runner[name] = runner
                sets[name] = labels_of(runner).get(names.INSTANCE_SET, "")
        for pod in pods:
            name = labels_of(pod).get(names.INSTANCE)
            if name:
                by_pod.setdefault(name, []).append(pod)
                sets.setdefault(name, labels_of(pod).get(names.INSTANCE_SET, ""))
        self.instances = [
            Instance(name, sets[name], by_runner.get(name), tuple(by_pod.get(name, ())))
            for name in sorted(sets)
        ]

    def of_set(self, name: str) -> list[Instance]:
        return [each for each in self.instances if each.set_name == name]

    @cached_property
    def runners(self) -> list[Instance]:
        """Return the instances whose StatefulSet is there to stay."""
        return [
            each
            for each in self.instances
            if each.runner is not None and not each.runner["metadata"].get("deletionTimestamp")
        ]

    @property
    def pods(self) -> int:
        return sum(len(each.pods) for each in self.instances)

    @property
    def writable(self) -> Instance | None:
        return self._leading([each for each in self.instances if each.writable])

    @property
    def running(self) -> Instance | None:
        """Return an instance in which to run Patroni's commands, the leader if it can be."""
        found = [each for each in self.instances if each.running and not each.terminating]
        return self._leading(found)

    def _leading(self, found: Sequence[Instance]) -> Instance | None:
        order = sorted(found, key=lambda each: (each.pod_name != self._leader, not each.primary))
        return order[0] if order else None

    @property
    def primaries(self) -> list[Instance]:
        """Return the instances labelled as leader, the holder of the lock first."""
        found = [each for each in self.instances if each.primary]
        return sorted(found, key=lambda each: each.pod_name != self._leader)


def is_ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c.get("status") == "True" for c in conditions)


def container_runs(pod: Obj, name: str) -> bool:
    found = (pod.get("status") or {}).get("containerStatuses") or []
    return any(c["name"] == name and "running" in (c.get("state") or {}) for c in found)


def leader_of(endpoints: Obj | None) -> str:
    """Return the pod that holds Patroni's lock, by the record in the API."""
    return annotations_of(endpoints).get("leader", "") if endpoints else ""
