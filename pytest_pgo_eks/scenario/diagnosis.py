"""The questions that one asks of a cluster that does not do what it should, each with its answer."""

from __future__ import annotations

import re
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, Inconclusive, WaitTimeout
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.kube import eventually
from pytest_pgo_eks.pgo import Instance, PostgresCluster, names
from pytest_pgo_eks.pgo.trouble import troubles
from pytest_pgo_eks.secrets import filtered

# What PostgreSQL says when its files are not what it wrote: nothing of it is ever usual.
_DAMAGE = re.compile(
    r"PANIC:|invalid page in block|page verification failed|could not read block"
    r"|invalid primary checkpoint record|incorrect resource manager data checksum in record"
    r"|unexpected data beyond EOF|missing chunk number"
)
_REPLICATION_USER = "_crunchyrepl"
_WRITES = 64
# Each write of one page returns when it is on the disk, as a commit does.
_WRITE = (
    f"f=/pgdata/.write-latency; dd if=/dev/zero of=$f bs=8192 count={_WRITES} oflag=dsync 2>&1; "
    "rm -f $f"
)
_TOOK = re.compile(r"copied, ([0-9.e-]+) s(?:econds)?,")
_LOCK_WAIT = (
    "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8 "
    "FROM pg_locks WHERE NOT granted"
)
_IDLE_IN_TRANSACTION = (
    "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0)::float8 "
    "FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
)
WAITS = {"waits for a lock": _LOCK_WAIT, "is idle in a transaction": _IDLE_IN_TRANSACTION}


def working(postgres: PostgresCluster) -> Finding:
    """Judge whether anything keeps a pod or a volume of the cluster from working."""
    mine = {names.CLUSTER: postgres.name}
    pods = postgres.kube.list("Pod", postgres.namespace, labels=mine)
    claims = postgres.kube.list("PersistentVolumeClaim", postgres.namespace, labels=mine)
    if not pods:
        raise Inconclusive(f"PostgresCluster {postgres.name} has no pods")
    found = [one.sentence for one in troubles(pods, claims)]
    return _finding(
        "pods-and-volumes-work",
        found,
        f"{len(pods)} pods and {len(claims)} volumes work",
        {"pods": len(pods), "volumes": len(claims)},
    )


def within_memory(postgres: PostgresCluster) -> Finding:
    """Judge whether the kernel killed a container for its memory."""
    pods = postgres.kube.list("Pod", postgres.namespace, labels={names.CLUSTER: postgres.name})
    killed = [
        f"{pod['metadata']['name']}/{one['name']} was killed for its memory"
        for pod in pods
        for one in (pod.get("status") or {}).get("containerStatuses") or []
        for state in (one.get("state") or {}, one.get("lastState") or {})
        if (state.get("terminated") or {}).get("reason") == "OOMKilled"
    ]
    return _finding("no-container-out-of-memory", killed, "no container ran out of memory")


def undamaged(postgres: PostgresCluster) -> Finding:
    """Judge whether a server's log speaks of damaged data, in its previous life too."""
    said: list[str] = []
    heard = 0
    for one in _running(postgres):
        for previous in (False, True):
            try:
                text = postgres.kube.logs(
                    postgres.namespace, one.pod, container=names.DATABASE, previous=previous
                )
            except ApiProblem:
                continue  # most have no previous life
            heard += 1
            said += [
                f"{one.pod}: {filtered(line.strip())[:200]}"
                for line in text.splitlines()
                if _DAMAGE.search(line)
            ]
    if not heard:
        raise Inconclusive("no server's log can be read")
    return _finding("no-damaged-data", said, f"{heard} logs speak of no damaged data")


def keeping_up(postgres: PostgresCluster, most_bytes: int, within_s: float) -> Finding:
    """Wait until every replica has received and replayed all but ``most_bytes`` of the primary's WAL."""

    def behind() -> dict[str, int | None]:
        seen = postgres.observe(sql=True)
        primary = next((one for one in seen.servers.values() if not one.in_recovery), None)
        if primary is None:
            return {"primary": None}
        return {
            pod: one.behind(primary) for pod, one in seen.servers.items() if one.in_recovery
        } or {"replicas": None}

    try:
        found = eventually(
            behind,
            accept=lambda seen: all(one is not None and one <= most_bytes for one in seen.values()),
            within_s=within_s,
            what=f"every replica to be at most {most_bytes} bytes behind",
            successes=1,
            show=str,
        )
    except WaitTimeout as late:
        return Finding("replicas-keep-up", "violated", str(late), {"most_bytes": most_bytes})
    worst = max(one or 0 for one in found.values())
    return Finding(
        "replicas-keep-up",
        "holds",
        f"the replica furthest behind lacks {worst} bytes",
        {"worst_bytes": worst, "most_bytes": most_bytes},
    )


def waiting(postgres: PostgresCluster, what: str, longest_s: float) -> Finding:
    """Judge the longest wait of one of the kinds in :data:`WAITS`, over all servers."""
    longest = {
        one.pod: float(postgres.server(one.pod).value(WAITS[what])) for one in _running(postgres)
    }
    found = [
        f"a session on {pod} {what} for {seconds:.0f} s"
        for pod, seconds in longest.items()
        if seconds > longest_s
    ]
    most = max(longest.values())
    return _finding(
        "no-session-waits-long",
        found,
        f"no session {what} for longer than {most:.1f} s",
        {"longest_s": round(most, 1), "allowed_s": longest_s},
    )


def durable_writes(postgres: PostgresCluster, most_s: float) -> Finding:
    """Measure how long a page takes to be on each instance's data volume, by the servers' own image.

    :raises Inconclusive: it could not be measured.
    """
    took: dict[str, float] = {}
    for one in _running(postgres):
        done = postgres.kube.exec(
            postgres.namespace, one.pod, ["sh", "-c", f"LC_ALL=C; export LC_ALL; {_WRITE}"],
            container=names.DATABASE, deadline_s=60.0,
        )  # fmt: skip
        match = _TOOK.search(done.text)
        if match is None:
            raise Inconclusive(f"no time for writes on {one.pod}: {done.text.strip()[:200]}")
        took[one.pod] = float(match[1]) / _WRITES
    slow = [
        f"a durable write on {pod} takes {seconds * 1000:.1f} ms"
        for pod, seconds in took.items()
        if seconds > most_s
    ]
    worst = max(took.values())
    return _finding(
        "durable-writes-in-time",
        slow,
        f"a durable write takes up to {worst * 1000:.1f} ms on average",
        {"worst_s": round(worst, 5), "allowed_s": most_s},
    )


def replication_allowed(postgres: PostgresCluster) -> Finding:
    """Judge whether every server's access rules let the operator's replication user in.

    The first rule that fits decides; it has to ask for a certificate, over TLS.
    """
    closed: list[str] = []
    for one in _running(postgres):
        fitting = [
            rule
            for rule in postgres.server(one.pod).hba_rules()
            if rule.type != "local"
            and "replication" in rule.databases
            and {_REPLICATION_USER, "all"} & set(rule.users)
        ]
        first = fitting[0] if fitting else None
        if first is None or first.method != "cert" or first.type != "hostssl":
            closed.append(f"{one.pod}: {first or 'no rule'} decides on replication")
    return _finding(
        "replication-allowed",
        closed,
        f"{_REPLICATION_USER} may replicate from every server, with its certificate",
    )


def _running(postgres: PostgresCluster) -> list[Instance]:
    found = [one for one in postgres.observe().instances if one.is_running]
    if not found:
        raise Inconclusive(f"no instance of {postgres.name} runs")
    return found


def _finding(
    rule: str, wrong: list[str], good: str, numbers: dict[str, Any] | None = None
) -> Finding:
    sentence = "; ".join(wrong[:5]) if wrong else good
    return Finding(rule, "violated" if wrong else "holds", sentence, numbers or {}, tuple(wrong))
