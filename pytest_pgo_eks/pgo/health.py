"""Is the cluster in its known state? Asked before and after every disruption (DESIGN decision 10)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pytest_pgo_eks.errors import ApiProblem, Inconclusive, NotFound, Violation, WaitTimeout
from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.kube import eventually
from pytest_pgo_eks.pgo import names, operator
from pytest_pgo_eks.pgo.cluster import PostgresCluster
from pytest_pgo_eks.pgo.manifest import Declared, declared
from pytest_pgo_eks.pgo.observation import Observation
from pytest_pgo_eks.pgo.readiness import missing

# Broken promises of PostgreSQL and PGO themselves.
BROKEN = frozenset({"same-system-identifier", "no-panic"})
# What no waiting changes; everything else may pass and is waited for.
LASTING = BROKEN | {"operator-not-restarted"}
# Each look asks every server; woken by every event it would load a cluster that is recovering.
_POLL_S = 0.5
_PANIC = re.compile(r"\bPANIC:\s.*")


@dataclass(frozen=True)
class Identity:
    """Who the cluster was at a healthy moment. ``taken`` is UTC, for logs since then."""

    cluster_uid: str
    system_identifier: str
    operator_uid: str
    operator_restarts: int
    timeline: int
    taken: datetime
    pods: Mapping[str, tuple[str, int]] = field(default_factory=dict)


def findings(postgres: PostgresCluster, before: Identity | None = None) -> list[Finding]:
    """Look once, and judge everything that a healthy cluster has; ``before`` adds what must not change.

    :raises ApiProblem: it cannot be looked at.
    """
    seen = postgres.observe(sql=True)
    expected = declared(postgres.object())
    running = _running(seen, expected)
    judged = [
        running,
        _one_primary(seen),
        _streaming(seen, expected.instances),
        _system(seen, before),
        _operator(postgres, before),
    ]
    if running.outcome == "holds":
        # Reading all logs is the dearest look, and says little while containers come and go.
        judged.append(_panic(postgres, seen, before))
    if seen.is_synchronous and expected.instances > 1:
        judged.append(_synchronous(seen))
    return judged


def identity(postgres: PostgresCluster) -> Identity:
    """Return who the cluster is now.

    :raises ApiProblem: it has no primary, or cannot be looked at.
    """
    now = datetime.now(UTC)
    seen = postgres.observe(sql=True)
    if seen.status is None or len(seen.writable) != 1:
        raise ApiProblem(f"{postgres.name} has no single primary: {', '.join(seen.writable)}")
    server = seen.servers[seen.writable[0]]
    running = operator.current(postgres.kube, postgres.operator_namespace)
    return Identity(
        cluster_uid=seen.status.uid,
        system_identifier=server.system_identifier,
        operator_uid=running.pod_uid,
        operator_restarts=running.restarts,
        timeline=server.timeline,
        taken=now,
        pods={one.pod: (one.uid, one.restarts.get(names.DATABASE, 0)) for one in seen.instances},
    )


def prove_healthy(
    postgres: PostgresCluster,
    before: Identity | None = None,
    *,
    within_s: float,
    say: Callable[[str], None] = lambda _text: None,
) -> Identity:
    """Wait until the cluster is healthy and return its identity.

    :raises Violation: another system identifier than ``before``, or a PANIC since.
    :raises Inconclusive: not healthy within ``within_s``, with everything that is wrong; at once
        where the operator's container was restarted, since only the scenario knows whether it did
        that on purpose.
    """
    looked_at = datetime.now(UTC)

    def look() -> list[Finding]:
        nonlocal looked_at
        looked_at = datetime.now(UTC)
        judged = findings(postgres, before)
        wrong = [one for one in judged if one.outcome in ("violated", "unknown")]
        if wrong:
            say(wrong[0].sentence)
        return wrong

    def lasting(wrong: list[Finding]) -> str | None:
        return next((one.sentence for one in wrong if _lasts(one)), None)

    last: list[Finding] = []

    def remember() -> list[Finding]:
        last[:] = look()
        return list(last)

    try:
        eventually(
            remember,
            accept=lambda wrong: not wrong,
            fail=lasting,
            within_s=within_s,
            what=f"PostgresCluster {postgres.name} to be healthy",
            poll_s=_POLL_S,
            successes=1,
            show=lambda wrong: "; ".join(map(str, wrong)),
        )
    except WaitTimeout as late:
        broken = [one for one in last if one.outcome == "violated" and one.rule in BROKEN]
        if broken:
            raise Violation("\n".join(map(str, broken))) from late
        wrong = "\n  ".join(map(str, last)) or str(late)
        raise Inconclusive(
            f"PostgresCluster {postgres.namespace}/{postgres.name} is not healthy: "
            f"{str(late).partition('; last seen')[0]}:\n  {wrong}"
        ) from late
    finally:
        # A PANIC is told once, by the scenario after which it was found.
        postgres.judged_until = looked_at
    return identity(postgres)


def _lasts(one: Finding) -> bool:
    return one.outcome == "violated" and one.rule in LASTING


def _finding(
    rule: str, *, holds: bool, good: str, bad: str, numbers: Mapping[str, Number] | None = None
) -> Finding:
    return Finding(rule, "holds" if holds else "violated", good if holds else bad, numbers or {})


def _running(seen: Observation, expected: Declared) -> Finding:
    lacking = missing(seen, expected)
    running = sum(one.is_running for one in seen.instances)
    count = expected.instances
    return _finding(
        "instances-running",
        holds=not lacking,
        good=f"all {count} instances run",
        bad="; ".join(lacking),
        numbers={"running": running, "declared": count},
    )


def _one_primary(seen: Observation) -> Finding:
    roles = seen.roles()
    silent = [one.pod for one in roles if one.sql is None]
    if silent:
        why = "; ".join(f"{pod}: {seen.silent.get(pod, 'not asked')}" for pod in silent)
        return Finding("one-primary", "unknown", f"no answer by SQL from {why}")
    by_sql = [one.pod for one in roles if one.sql == "primary"]
    told = "; ".join(
        f"{one.pod}: label {one.label or 'none'}, record {one.record or '–'}, SQL {one.sql}"
        for one in roles
    )
    return _finding(
        "one-primary",
        holds=len(by_sql) == 1 and all(one.agree for one in roles),
        good=f"{by_sql[0] if by_sql else '?'} is the only primary, by label, leader record and SQL",
        bad=f"label, leader record and SQL do not show one primary: {told}",
        numbers={"primaries": len(by_sql)},
    )


def _streaming(seen: Observation, count: int) -> Finding:
    primaries = [one for one in seen.servers.values() if not one.in_recovery]
    if len(primaries) != 1:
        return Finding(
            "replicas-streaming", "unknown", f"{len(primaries)} servers say that they are primary"
        )
    primary = primaries[0]
    fed = {one.application_name for one in primary.senders if one.is_streaming}
    wrong = [
        f"{pod} does not stream from {primary.pod} on timeline {primary.timeline}"
        f" (walreceiver {one.receiver.status if one.receiver else 'none'}, timeline {one.timeline})"
        for pod, one in seen.servers.items()
        if one.in_recovery
        and not (one.is_streaming and pod in fed and one.timeline == primary.timeline)
    ]
    replicas = sum(one.in_recovery for one in seen.servers.values())
    if replicas != count - 1:
        wrong.append(f"{replicas} of {count - 1} replicas answer")
    lags = [lag for one in seen.servers.values() if (lag := one.behind(primary)) is not None]
    return _finding(
        "replicas-streaming",
        holds=not wrong,
        good=f"all {replicas} replicas stream from {primary.pod}",
        bad="; ".join(wrong),
        numbers={"replicas": replicas, "lag_bytes": max(lags, default=None)},
    )


def _synchronous(seen: Observation) -> Finding:
    primaries = [one for one in seen.servers.values() if not one.in_recovery]
    chosen = [
        one.application_name for server in primaries for one in server.senders if one.is_synchronous
    ]
    recorded = seen.sync.standbys if seen.sync else ()
    return _finding(
        "synchronous-standby",
        holds=bool(chosen) and set(chosen) >= set(recorded) and bool(recorded),
        good=f"{', '.join(chosen)} is synchronous",
        bad=f"synchronous by SQL: {', '.join(chosen) or 'nobody'}; by Patroni's record: "
        f"{', '.join(recorded) or 'nobody'}",
        numbers={"synchronous": len(chosen)},
    )


def _system(seen: Observation, before: Identity | None) -> Finding:
    found = {pod: one.system_identifier for pod, one in seen.servers.items()}
    known = {seen.system_identifier, seen.status.system_identifier if seen.status else None}
    everyone = set(found.values()) | {one for one in known if one}
    if before is not None:
        everyone.add(before.system_identifier)
    if not found:
        return Finding("same-system-identifier", "unknown", "no server answered by SQL")
    told = ", ".join(f"{pod} {identifier}" for pod, identifier in found.items())
    was = f"; before it was {before.system_identifier}" if before else ""
    return _finding(
        "same-system-identifier",
        holds=len(everyone) == 1,
        good=f"every server has the system identifier {next(iter(everyone))}",
        bad=f"system identifiers differ: {told}; recorded {seen.system_identifier}{was}",
    )


def _operator(postgres: PostgresCluster, before: Identity | None) -> Finding:
    rule = "operator-not-restarted"
    try:
        now = operator.current(postgres.kube, postgres.operator_namespace)
    except ApiProblem as problem:
        return Finding(rule, "unknown", f"the operator is not there: {problem}")
    numbers = {"restarts": now.restarts}
    if before is None:
        return Finding(rule, "holds", f"the operator runs ({now.restarts} restarts)", numbers)
    if now.pod_uid != before.operator_uid:
        # A Deployment scaled or a node drained makes a new pod; a crash restarts the container.
        return Finding(rule, "expected", f"the operator runs in a new pod, {now.pod}", numbers)
    return _finding(
        rule,
        holds=now.restarts == before.operator_restarts,
        good="the operator was not restarted",
        bad=f"the operator's container was restarted {now.restarts - before.operator_restarts} "
        "times; its log of the life before says why",
        numbers=numbers,
    )


def _panic(postgres: PostgresCluster, seen: Observation, before: Identity | None) -> Finding:
    since = before.taken if before else postgres.judged_until
    since_s = int((datetime.now(UTC) - since).total_seconds()) + 2 if since else None
    said: list[str] = []
    unread: list[str] = []
    for one in seen.instances:
        uid, restarts = before.pods.get(one.pod, ("", 0)) if before else (one.uid, 0)
        lives = [False]
        if one.restarts.get(names.DATABASE, 0) > (restarts if uid == one.uid else 0):
            lives.append(True)
        for previous in lives:
            try:
                text = postgres.kube.logs(
                    postgres.namespace,
                    one.pod,
                    container=names.DATABASE,
                    previous=previous,
                    since_s=since_s,
                    tail=20000,
                )
            except NotFound:
                continue
            except ApiProblem as problem:
                # The life before may be gone already; the present one must be readable.
                if not previous:
                    unread.append(f"{one.pod}: {problem}")
                continue
            said += [f"{one.pod}: {found}" for found in _PANIC.findall(text)]
    if unread and not said:
        return Finding("no-panic", "unknown", f"logs cannot be read: {'; '.join(unread)}")
    return Finding(
        "no-panic",
        "violated" if said else "holds",
        f"{len(said)} PANIC lines in the servers' logs" if said else "no server's log has a PANIC",
        {"panics": len(said)},
        tuple(said),
    )
