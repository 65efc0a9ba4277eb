"""Reads an observation from objects as the API gives them, whatever is missing in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.pgo.observation import (
    Instance,
    LeaderRecord,
    Observation,
    PatroniStatus,
    Promotion,
    SetStatus,
    Status,
    SyncRecord,
)
from pytest_pgo_eks.postgres import ServerState

Object = dict[str, Any]


def observation_of(
    name: str,
    namespace: str,
    *,
    cluster: Object | None,
    pods: Sequence[Object],
    endpoints: Sequence[Object],
    zones: Mapping[str, str],
    servers: Mapping[str, ServerState] | None = None,
    silent: Mapping[str, str] | None = None,
) -> Observation:
    """Read an observation from objects as the API gave them.

    :raises ApiProblem: Patroni's configuration or history is there and cannot be read: taking it
        for empty would be an answer.
    """
    by_name = {one["metadata"]["name"]: one for one in endpoints}
    config = by_name.get(f"{name}-ha-config")
    found = names.notes(config) if config else {}
    leader, sync = by_name.get(f"{name}-ha"), by_name.get(f"{name}-ha-sync")
    mine = sorted(
        (one for one in pods if names.is_instance_pod(one, name)),
        key=lambda one: str(one["metadata"]["name"]),
    )
    return Observation(
        name=name,
        namespace=namespace,
        instances=tuple(_instance(one, zones) for one in mine),
        leader=_leader(leader) if leader else None,
        sync=_sync(sync) if sync else None,
        status=_status(cluster) if cluster else None,
        system_identifier=found.get("initialize"),
        config=_record(found.get("config"), {}, "config"),
        history=tuple(_promotion(line) for line in _record(found.get("history"), [], "history")),
        services={
            service: _addresses(by_name[service])
            for suffix in ("ha", "replicas", "pgbouncer")
            if (service := f"{name}-{suffix}") in by_name
        },
        servers=servers or {},
        silent=silent or {},
    )


def _instance(pod: Object, zones: Mapping[str, str]) -> Instance:
    meta, status = pod["metadata"], pod.get("status") or {}
    found = names.labels(pod)
    node = pod["spec"].get("nodeName")
    containers = status.get("containerStatuses") or []
    return Instance(
        name=found[names.INSTANCE],
        pod=meta["name"],
        uid=meta.get("uid", ""),
        instance_set=found.get(names.INSTANCE_SET, ""),
        node=node,
        zone=zones.get(node or ""),
        ip=status.get("podIP"),
        phase=status.get("phase", "Unknown"),
        ready=any(
            one.get("type") == "Ready" and one.get("status") == "True"
            for one in status.get("conditions") or []
        ),
        terminating=bool(meta.get("deletionTimestamp")),
        role_label=found.get(names.ROLE),
        patroni=_patroni(names.notes(pod).get(names.STATUS)),
        restarts={one["name"]: int(one.get("restartCount", 0)) for one in containers},
        revision=found.get("controller-revision-hash"),
        created=meta.get("creationTimestamp", ""),
    )


def _patroni(text: str | None) -> PatroniStatus | None:
    said = _json(text)
    if not isinstance(said, dict):
        return None
    return PatroniStatus(
        state=str(said.get("state", "")),
        role=str(said.get("role", "")),
        version=str(said.get("version", "")),
        timeline=said.get("timeline"),
        replication_state=said.get("replication_state"),
        xlog_location=said.get("xlog_location"),
        replay_lsn=said.get("replay_lsn"),
        pending_restart=bool(said.get("pending_restart")),
        tags=said.get("tags") or {},
        paused=bool(said.get("pause")),
    )


def _leader(one: Object) -> LeaderRecord:
    found = names.notes(one)
    return LeaderRecord(
        leader=found.get("leader"),
        transitions=_whole(found.get("transitions")) or 0,
        ttl_s=_whole(found.get("ttl")),
        acquired=found.get("acquireTime"),
        renewed=found.get("renewTime"),
        optime=_whole(found.get("optime")),
        addresses=_addresses(one),
        uid=one["metadata"].get("uid", ""),
    )


def _sync(one: Object) -> SyncRecord:
    found = names.notes(one)
    standbys = [name.strip() for name in (found.get("sync_standby") or "").split(",")]
    return SyncRecord(
        leader=found.get("leader"),
        standbys=tuple(filter(None, standbys)),
        quorum=_whole(found.get("quorum")),
    )


def _promotion(line: Sequence[Any]) -> Promotion:
    padded = [*line, None, None, None, None, None]
    return Promotion(
        timeline=int(padded[0]),
        lsn=int(padded[1] or 0),
        reason=str(padded[2] or ""),
        at=padded[3],
        leader=padded[4],
    )


def _status(cluster: Object) -> Status:
    meta, status = cluster["metadata"], cluster.get("status") or {}
    patroni = status.get("patroni") or {}
    backrest = status.get("pgbackrest") or {}
    proxy = (status.get("proxy") or {}).get("pgBouncer") or {}
    conditions = status.get("conditions") or []
    return Status(
        generation=int(meta.get("generation", 0)),
        observed_generation=int(status.get("observedGeneration", 0)),
        sets={
            one.get("name", ""): SetStatus(
                int(one.get("replicas", 0)),
                int(one.get("readyReplicas", 0)),
                int(one.get("updatedReplicas", 0)),
            )
            for one in status.get("instances") or []
        },
        system_identifier=patroni.get("systemIdentifier"),
        conditions={one["type"]: one.get("status", "Unknown") for one in conditions},
        reasons={
            one["type"]: f"{one.get('reason', '')}: {one.get('message', '')}" for one in conditions
        },
        repos={
            one["name"]: (
                bool(one.get("bound") or one.get("volume")),
                bool(one.get("stanzaCreated")),
                bool(one.get("replicaCreateBackupComplete")),
            )
            for one in backrest.get("repos") or []
        },
        proxy_ready=int(proxy.get("readyReplicas", 0)),
        proxy_replicas=int(proxy.get("replicas", 0)),
        switchover=patroni.get("switchover"),
        switchover_timeline=patroni.get("switchoverTimeline"),
        uid=meta.get("uid", ""),
    )


def _addresses(one: Object) -> tuple[str, ...]:
    """Return whom ready addresses belong to: pods by name, others by address."""
    found = [
        (address.get("targetRef") or {}).get("name") or address.get("ip", "")
        for subset in one.get("subsets") or []
        for address in subset.get("addresses") or []
    ]
    return tuple(sorted(found))


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except ValueError:
        return None


def _record(text: str | None, empty: Any, what: str) -> Any:
    if not text:
        return empty
    found = _json(text)
    if not isinstance(found, type(empty)) or (
        isinstance(found, list) and not all(isinstance(one, list) and one for one in found)
    ):
        raise ApiProblem(f"Patroni's {what} cannot be read: {text[:200]!r}")
    return found


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.lstrip("-").isdigit() else None
