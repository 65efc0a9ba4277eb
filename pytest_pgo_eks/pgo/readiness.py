"""When a PostgresCluster is up, and what it lacks until then."""

from __future__ import annotations

from pytest_pgo_eks.pgo.manifest import Declared
from pytest_pgo_eks.pgo.observation import Observation, Status


def missing(seen: Observation, expected: Declared) -> list[str]:
    """Return what a cluster still lacks to be up, empty when it is up.

    Up means: the newest generation is observed; each declared set has all instances ready and up to
    date; the system identifier is known; exactly one live pod holds the leader lock and is labelled
    so; a synchronous standby is chosen where that is declared; every repository has its stanza, and
    the first one its first backup; PgBouncer, if declared, is available.
    """
    status = seen.status
    if status is None:
        return ["the PostgresCluster itself"]
    lacking = []
    if status.observed_generation != status.generation:
        lacking.append(
            f"generation {status.generation} is not observed yet ({status.observed_generation} is)"
        )
    lacking += _instances(seen, status, expected)
    if not status.system_identifier:
        lacking.append("no system identifier: PostgreSQL is not bootstrapped")
    lacking += _leader(seen)
    if seen.is_synchronous and expected.instances > 1 and not (seen.sync and seen.sync.standbys):
        lacking.append("synchronous replication is declared, but nobody is the synchronous standby")
    lacking += _backups(status, expected)
    if expected.proxy and not status.is_true("ProxyAvailable"):
        why = status.reasons.get("ProxyAvailable", "nothing is said of it yet")
        lacking.append(f"PgBouncer is not available: {why}")
    return lacking


def _instances(seen: Observation, status: Status, expected: Declared) -> list[str]:
    lacking = []
    for name, count in expected.sets.items():
        live = [one for one in seen.instances if one.instance_set == name and one.is_running]
        said = status.sets.get(name)
        counts = (said.replicas, said.ready, said.updated) if said else (0, 0, 0)
        if len(live) != count or counts != (count, count, count):
            lacking.append(
                f"set {name}: {len(live)} of {count} instances ready; status counts {counts[0]} "
                f"pods, {counts[1]} ready, {counts[2]} up to date"
            )
    return lacking


def _leader(seen: Observation) -> list[str]:
    leader = seen.leader.leader if seen.leader else None
    holder = seen.instance(leader) if leader else None
    if holder is None or holder.terminating:
        return [f"no live leader: the record names {leader or 'nobody'}"]
    if seen.labelled_primaries != (holder.pod,):
        labelled = ", ".join(seen.labelled_primaries) or "nobody"
        return [f"{holder.pod} leads, but {labelled} is labelled as the primary"]
    return []


def _backups(status: Status, expected: Declared) -> list[str]:
    lacking = []
    for index, repo in enumerate(expected.repos):
        _, stanza, backup = status.repos.get(repo, (False, False, False))
        if not stanza:
            lacking.append(f"{repo} has no stanza yet")
        elif not backup and index == 0:
            # New replicas are made from the first repository's first backup.
            lacking.append(f"{repo} has no first backup yet")
    return lacking
