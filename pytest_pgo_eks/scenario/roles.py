"""Who is the primary: what the label, the leader record and SQL say, kept apart and compared."""

from __future__ import annotations

from pytest_pgo_eks.errors import ApiProblem, ExecProblem, Inconclusive, Violation
from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.kube.wait import holds
from pytest_pgo_eks.pgo import Instance, Observation, PostgresCluster


def primary(seen: Observation) -> Instance:
    """Return the instance that all witnesses call the primary.

    :raises Inconclusive: they do not agree, so there is nobody to aim at.
    """
    found = [roles.pod for roles in seen.roles() if roles.sql == "primary" and roles.agree]
    instance = seen.instance(found[0]) if len(found) == 1 else None
    if instance is None:
        raise Inconclusive(f"no instance is the primary by label, record and SQL alike:\n  {seen}")
    return instance


def replicas(seen: Observation) -> list[Instance]:
    """Return the instances whose server says that it is in recovery."""
    return [
        one for one in seen.instances if one.pod in seen.servers and one.pod not in seen.writable
    ]


def synchronous_standby(seen: Observation) -> Instance:
    """Return the one instance that Patroni's record and the primary both call synchronous.

    :raises Inconclusive: there is not exactly one.
    """
    problem = synchronous_problem(seen)
    if problem or seen.sync is None:
        raise Inconclusive(f"{problem}:\n  {seen}")
    found = seen.instance(seen.sync.standbys[0])
    assert found is not None
    return found


def synchronous_problem(seen: Observation) -> str | None:
    """Return why there is not exactly one synchronous replica known alike, None if there is."""
    if len(seen.writable) != 1:
        return f"{len(seen.writable)} servers are not in recovery"
    server = seen.servers[seen.writable[0]]
    recorded = seen.sync.standbys if seen.sync else ()
    told = tuple(one.application_name for one in server.senders if one.is_synchronous)
    if len(recorded) != 1 or recorded != told:
        return (
            f"Patroni's record names {', '.join(recorded) or 'nobody'} as synchronous, the primary "
            f"{', '.join(told) or 'nobody'}"
        )
    if seen.instance(recorded[0]) is None:
        return f"the synchronous standby {recorded[0]} is no instance"
    return None


def disagreement(seen: Observation, expected: int) -> str | None:
    """Return where the three witnesses disagree, None if they do not."""
    told = seen.roles()
    if len(told) != expected:
        return f"{len(told)} of {expected} instances are there"
    wrong = [
        f"{one.pod}: label {one.label or 'none'}, record {one.record or 'no'}, SQL {one.sql or 'silent'}"
        for one in told
        if not one.agree
    ]
    primaries = [one.pod for one in told if one.sql == "primary"]
    if len(primaries) != 1:
        wrong.append(f"{len(primaries)} servers are not in recovery")
    return "; ".join(wrong) or None


def keep_agreeing(postgres: PostgresCluster, expected: int, for_s: float) -> Finding:
    """Watch that label, leader record and SQL name the same primary all the time."""
    seen = holds(
        lambda: postgres.observe(sql=True),
        accept=lambda now: disagreement(now, expected) is None,
        for_s=for_s,
        what="label, leader record and SQL naming the same primary",
        show=lambda now: f"{disagreement(now, expected)}\n  {now}",
    )
    name = primary(seen).pod
    sentence = f"label, leader record and SQL named {name} as the primary for {for_s:g} s"
    return Finding("roles-agree", "holds", sentence, {"for_s": for_s})


def agree_on_another(
    postgres: PostgresCluster, before: Observation, expected: int, within_s: float
) -> Instance:
    """Wait until all three name a primary that is another pod than before."""
    old = primary(before).pod

    def accept(seen: Observation) -> bool:
        return disagreement(seen, expected) is None and old not in seen.writable

    seen = postgres.wait(
        accept,
        within_s=within_s,
        sql=True,
        what=f"label, leader record and SQL to name another primary than {old}",
    )
    return primary(seen)


def another_leads(postgres: PostgresCluster, before: Observation, within_s: float) -> Finding:
    """Wait until the leader record names another instance whose server takes writes.

    The record alone proves nothing: on the real PGO it pointed at a server in recovery for minutes.
    """
    old = primary(before).pod

    def leads(seen: Observation) -> bool:
        now = seen.leader.leader if seen.leader else None
        return now is not None and now != old and _takes_writes(postgres, now)

    # Only the new leader is asked: one look at a server on a lost node takes ten seconds.
    seen = postgres.wait(
        leads,
        within_s=within_s,
        what=f"another instance than {old} to lead and take writes",
    )
    assert seen.leader is not None
    sentence = f"{seen.leader.leader} leads in place of {old}"
    numbers: dict[str, Number] = {
        "transitions": seen.leader.transitions,
        "lease_s": postgres.lease_s,
        "budget_s": within_s,
    }
    return Finding("another-leads", "holds", sentence, numbers)


def _takes_writes(postgres: PostgresCluster, pod: str) -> bool:
    """Say whether a server answers and is not in recovery."""
    try:
        return not postgres.server(pod).is_in_recovery()
    except (ApiProblem, ExecProblem):
        return False


def at_most_one_writable(postgres: PostgresCluster, for_s: float) -> Finding:
    """Watch that never two servers at once say that they are not in recovery.

    One look asks the servers one after the other, so a server that was promoted between two of its
    questions may count twice with the one it follows: that has to be seen twice in a row.
    """
    looks: list[tuple[str, ...]] = [()]

    def writable() -> tuple[str, ...]:
        now = tuple(postgres.observe(sql=True).writable)
        before, looks[0] = looks[0], now
        return tuple(pod for pod in now if pod in before) if len(now) > 1 else now

    holds(
        writable,
        accept=lambda pods: len(pods) < 2,
        for_s=for_s,
        what="at most one server taking writes",
        show=lambda pods: f"{', '.join(pods)} are not in recovery",
    )
    sentence = f"never more than one server took writes in {for_s:g} s"
    return Finding("one-server-takes-writes", "holds", sentence, {"for_s": for_s})


def promotions_recorded(before: Observation, after: Observation) -> Finding:
    """Judge that the timeline was raised as often as Patroni's history records a promotion.

    A crash recovered in place raises neither; a force-deleted primary that leads again raises both
    without a change of the leader.
    """
    old = before.servers[primary(before).pod].timeline
    new = after.servers[primary(after).pod].timeline
    recorded = len(after.history) - len(before.history)
    numbers = {"timeline_before": old, "timeline_after": new, "promotions_recorded": recorded}
    rule = "timeline-as-recorded"
    if new - old == recorded:
        sentence = f"the timeline went from {old} to {new}, as Patroni recorded"
        return Finding(rule, "holds", sentence, numbers)
    sentence = f"the timeline went from {old} to {new}, but Patroni recorded {recorded} promotions"
    return Finding(rule, "violated", sentence, numbers, tuple(map(str, after.history[-5:])))


def not_raised(before: Observation, after: Observation) -> Finding:
    """Judge that no promotion happened at all."""
    old = before.servers[primary(before).pod].timeline
    new = after.servers[primary(after).pod].timeline
    outcome = "holds" if old == new else "violated"
    told = (
        f"the timeline is still {new}" if old == new else f"the timeline went from {old} to {new}"
    )
    return Finding("timeline-not-raised", outcome, told, {"before": old, "after": new})  # type: ignore[arg-type]


def all_streaming(postgres: PostgresCluster, expected: int, within_s: float) -> Observation:
    """Wait until all instances run, one is the primary by all witnesses, and the others stream."""

    def accept(seen: Observation) -> bool:
        return _not_streaming(seen, expected) is None

    return postgres.wait(
        accept, within_s=within_s, sql=True, what=f"{expected} instances running and streaming"
    )


def all_recovered(postgres: PostgresCluster, expected: int, within_s: float) -> Observation:
    """The same, and where replication is synchronous one standby is attached again.

    For some seconds behind a promotion nobody is synchronous. A primary that is lost in that time
    may not be replaced by anybody: the others could lack what it acknowledged.
    """

    def accept(seen: Observation) -> bool:
        if _not_streaming(seen, expected) is not None:
            return False
        return not seen.is_synchronous or synchronous_problem(seen) is None

    what = f"{expected} instances running and streaming, a synchronous one among them if declared"
    return postgres.wait(accept, within_s=within_s, sql=True, what=what)


def keep_streaming(postgres: PostgresCluster, expected: int, for_s: float) -> Finding:
    """Watch that every replica streams from the primary all the time."""
    holds(
        lambda: postgres.observe(sql=True),
        accept=lambda seen: _not_streaming(seen, expected) is None,
        for_s=for_s,
        what="every replica streaming from the primary",
        show=lambda seen: f"{_not_streaming(seen, expected)}\n  {seen}",
    )
    sentence = f"{expected - 1} replicas streamed from the primary for {for_s:g} s"
    return Finding("replicas-stream", "holds", sentence, {"for_s": for_s, "replicas": expected - 1})


def _not_streaming(seen: Observation, expected: int) -> str | None:
    running = [one for one in seen.instances if one.is_running]
    if len(running) != expected:
        return f"{len(running)} of {expected} instances are running"
    trouble = disagreement(seen, expected)
    if trouble:
        return trouble
    server = seen.servers[seen.writable[0]]
    streaming = {one.application_name for one in server.senders if one.is_streaming}
    missing = {one.pod for one in seen.instances} - {seen.writable[0]} - streaming
    if missing:
        return f"the primary sends to no {', '.join(sorted(missing))}"
    idle = [pod for pod in streaming if pod in seen.servers and not seen.servers[pod].is_streaming]
    return f"{', '.join(idle)} receives nothing" if idle else None


def streams_as_replica(postgres: PostgresCluster, pod: str, within_s: float) -> Finding:
    """Wait until the instance under this pod's name is a running, streaming replica."""

    def accept(seen: Observation) -> bool:
        one = seen.instance(pod)
        server = seen.servers.get(pod)
        return bool(
            one and one.is_running and server and server.in_recovery and server.is_streaming
        )

    postgres.wait(accept, within_s=within_s, sql=True, what=f"{pod} to stream as a replica")
    return Finding("comes-back-as-replica", "holds", f"{pod} streams as a replica", {})


def one_synchronous(postgres: PostgresCluster, within_s: float) -> Finding:
    """Wait until exactly one replica is synchronous, by Patroni's record and by the primary."""
    seen = postgres.wait(
        lambda now: synchronous_problem(now) is None,
        within_s=within_s,
        sql=True,
        what="exactly one synchronous replica, known alike to Patroni's record and the primary",
    )
    name = synchronous_standby(seen).pod
    return Finding("one-synchronous-standby", "holds", f"{name} is the synchronous standby")


def require_members(seen: Observation, expected: int) -> None:
    """Demand one primary and the rest replicas, by SQL.

    :raises Violation: it is otherwise.
    """
    if len(seen.writable) != 1 or len(replicas(seen)) != expected - 1:
        raise Violation(
            f"{len(seen.writable)} primaries and {len(replicas(seen))} replicas answer, expected 1 "
            f"and {expected - 1}:\n  {seen}"
        )
