"""One look at a PostgresCluster: what Kubernetes and Patroni publish, as frozen values.

The three witnesses of a role are kept apart, because on the real PGO they disagree for seconds to
minutes: the pod's label, the leader record (annotation of Endpoints ``…-ha``), and SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.postgres import ServerState


@dataclass(frozen=True)
class PatroniStatus:
    """The pod annotation ``status`` that Patroni writes; positions are bytes, as Patroni has them."""

    state: str
    role: str
    version: str
    timeline: int | None
    replication_state: str | None
    xlog_location: int | None
    replay_lsn: int | None
    pending_restart: bool
    tags: Mapping[str, Any] = field(default_factory=dict)
    paused: bool = False


@dataclass(frozen=True)
class Instance:
    """One instance pod. ``role_label`` is ``master``, ``replica`` or None, as labelled."""

    name: str
    pod: str
    uid: str
    instance_set: str
    node: str | None
    zone: str | None
    ip: str | None
    phase: str
    ready: bool
    terminating: bool
    role_label: str | None
    patroni: PatroniStatus | None
    restarts: Mapping[str, int]
    revision: str | None
    created: str

    @property
    def is_running(self) -> bool:
        return self.ready and not self.terminating


@dataclass(frozen=True)
class LeaderRecord:
    """Patroni's leader lock: annotations and addresses of Endpoints ``…-ha``.

    ``leader`` is a pod's name, or None while nobody holds the lock. ``addresses`` are where the
    primary Service leads at the moment.
    """

    leader: str | None
    transitions: int
    ttl_s: int | None
    acquired: str | None
    renewed: str | None
    optime: int | None
    addresses: tuple[str, ...]
    uid: str


@dataclass(frozen=True)
class SyncRecord:
    """Endpoints ``…-sync``: who may take over without losing an acknowledged write."""

    leader: str | None
    standbys: tuple[str, ...]
    quorum: int | None


@dataclass(frozen=True)
class Promotion:
    """One line of Patroni's history: ``timeline`` ended at ``lsn`` because of ``reason``."""

    timeline: int
    lsn: int
    reason: str
    at: str | None
    leader: str | None


@dataclass(frozen=True)
class SetStatus:
    """What the PostgresCluster's status says of one instance set."""

    replicas: int
    ready: int
    updated: int


@dataclass(frozen=True)
class Status:
    """The PostgresCluster's own account of itself. ``conditions`` are ``Type: Status (Reason)``."""

    generation: int
    observed_generation: int
    sets: Mapping[str, SetStatus]
    system_identifier: str | None
    conditions: Mapping[str, str]
    reasons: Mapping[str, str]
    repos: Mapping[str, tuple[bool, bool, bool]]
    proxy_ready: int
    proxy_replicas: int
    switchover: str | None
    switchover_timeline: int | None
    uid: str

    def is_true(self, condition: str) -> bool:
        return self.conditions.get(condition) == "True"


@dataclass(frozen=True)
class Roles:
    """What each witness says one instance is: ``primary``, ``replica`` or None (it does not say).

    The record knows primaries only: everybody else is None there.
    """

    pod: str
    label: str | None
    record: str | None
    sql: str | None

    @property
    def agree(self) -> bool:
        """Whether all three say the same."""
        if self.label == "primary" or self.record == "primary" or self.sql == "primary":
            return self.label == self.record == self.sql == "primary"
        return self.label == self.sql == "replica"


@dataclass(frozen=True)
class Observation:
    """Everything published about one PostgresCluster at one time.

    ``servers`` are what SQL said, by pod, where it was asked; ``silent`` why it did not answer.
    ``services`` are the ready addresses behind each of the cluster's Services.
    """

    name: str
    namespace: str
    instances: tuple[Instance, ...]
    leader: LeaderRecord | None
    sync: SyncRecord | None
    status: Status | None
    system_identifier: str | None
    config: Mapping[str, Any]
    history: tuple[Promotion, ...]
    services: Mapping[str, tuple[str, ...]]
    servers: Mapping[str, ServerState] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)

    def instance(self, pod: str) -> Instance | None:
        """Return the instance whose pod is called so."""
        return next((one for one in self.instances if one.pod == pod), None)

    def roles(self) -> tuple[Roles, ...]:
        """Return what each witness says of each instance."""
        leader = self.leader.leader if self.leader else None
        return tuple(
            Roles(
                pod=one.pod,
                label=_role_of_label(one.role_label),
                record="primary" if one.pod == leader else None,
                sql=self.servers[one.pod].role if one.pod in self.servers else None,
            )
            for one in self.instances
        )

    @property
    def labelled_primaries(self) -> tuple[str, ...]:
        return tuple(one.pod for one in self.instances if one.role_label in names.LEADER_LABELS)

    @property
    def writable(self) -> tuple[str, ...]:
        """Pods whose server said that it is not in recovery."""
        return tuple(pod for pod, one in self.servers.items() if not one.in_recovery)

    @property
    def is_synchronous(self) -> bool:
        """Whether Patroni keeps a synchronous standby under the configuration in force."""
        return self.config.get("synchronous_mode") in (True, "on", "quorum", "true")

    def lines(self) -> list[str]:
        """Return the observation as lines that a person reads, and that a diff compares."""
        shown = [f"PostgresCluster {self.namespace}/{self.name}", *_status_lines(self.status)]
        if self.leader:
            lead = self.leader
            shown.append(
                f"leader record: {lead.leader or 'nobody'}, transitions {lead.transitions}, "
                f"leads to {', '.join(lead.addresses) or 'nowhere'}"
            )
        else:
            shown.append("leader record: none")
        if self.sync:
            shown.append(
                f"sync record: leader {self.sync.leader or 'nobody'}, "
                f"standbys {', '.join(self.sync.standbys) or 'none'}"
            )
        shown += [_instance_line(one, self.servers, self.silent) for one in self.instances]
        shown += [
            f"Service {name}: {', '.join(found) or 'nobody'}"
            for name, found in self.services.items()
        ]
        if self.history:
            last = self.history[-1]
            shown.append(f"history: {len(self.history)} promotions, last to {last.leader}")
        return shown

    def __str__(self) -> str:
        return "\n  ".join(self.lines())

    def difference(self, before: Observation) -> list[str]:
        """Return what changed since ``before``: ``- old`` and ``+ new`` lines, nothing if equal."""
        old, new = before.lines(), self.lines()
        return [f"- {line}" for line in old if line not in new] + [
            f"+ {line}" for line in new if line not in old
        ]


def _status_lines(status: Status | None) -> list[str]:
    if status is None:
        return ["status: the PostgresCluster does not exist"]
    sets = ", ".join(
        f"{name} {one.ready}/{one.replicas} ready, {one.updated} updated"
        for name, one in status.sets.items()
    )
    conditions = ", ".join(f"{name}={value}" for name, value in sorted(status.conditions.items()))
    line = (
        f"status: generation {status.observed_generation} of {status.generation} observed; "
        f"{sets or 'no instances'}; system {status.system_identifier or 'not yet'}; "
        f"{conditions or 'no conditions'}"
    )
    return [line]


def _instance_line(
    one: Instance, servers: Mapping[str, ServerState], silent: Mapping[str, str]
) -> str:
    parts = [
        f"{one.pod} ({one.uid[:8]}) on {one.node or 'no node'}/{one.zone or '?'}",
        "terminating" if one.terminating else "ready" if one.ready else f"{one.phase}, not ready",
        f"label {one.role_label or 'none'}",
    ]
    if one.patroni:
        said = one.patroni
        parts.append(
            f"Patroni {said.state}/{said.role}"
            + (f"/{said.replication_state}" if said.replication_state else "")
            + f" timeline {said.timeline or '?'}"
            + (", restart pending" if said.pending_restart else "")
        )
    if one.pod in servers:
        server = servers[one.pod]
        how = ", streaming" if server.is_streaming else ""
        parts.append(f"SQL {server.role} timeline {server.timeline}{how}")
    elif one.pod in silent:
        parts.append(f"SQL silent: {silent[one.pod]}")
    restarts = {name: count for name, count in one.restarts.items() if count}
    if restarts:
        parts.append(f"restarts {restarts}")
    return ", ".join(parts)


def _role_of_label(label: str | None) -> str | None:
    return "primary" if label in names.LEADER_LABELS else label
