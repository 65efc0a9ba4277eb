"""What one looks at first when a cluster does not do what it should."""

from __future__ import annotations

from pytest_bdd import parsers, then

from pytest_pgo_eks.scenario import diagnosis
from pytest_pgo_eks.scenario.stage import Stage


@then("nothing keeps a pod or a volume of the cluster from working")
def nothing_amiss(stage: Stage) -> None:
    """No image that cannot be pulled, no crash loop, no pod or claim that waits."""
    stage.keep(diagnosis.working(stage.postgres))


@then("no container of the cluster ran out of memory")
def enough_memory(stage: Stage) -> None:
    """No container's state, now or before, says OOMKilled."""
    stage.keep(diagnosis.within_memory(stage.postgres))


@then("no server's log speaks of damaged data")
def undamaged(stage: Stage) -> None:
    """No PANIC, no page or record with a wrong checksum; in previous containers' logs as well."""
    stage.keep(diagnosis.undamaged(stage.postgres))


@then(
    parsers.re(
        r"every replica is within (?P<megabytes>\d+) MB of the primary within (?P<budget>.+)"
    ),
    converters={"megabytes": int},
)
def replicas_keep_up(stage: Stage, megabytes: int, budget: str) -> None:
    """By what each server replayed, against what the primary wrote."""
    found = diagnosis.keeping_up(stage.postgres, megabytes << 20, stage.seconds(budget))
    stage.keep(found)


@then(
    parsers.re(
        r"no session (?P<what>waits for a lock|is idle in a transaction) for longer than "
        r"(?P<longest>.+)"
    )
)
def nobody_waits(stage: Stage, what: str, longest: str) -> None:
    """Asked of every server: pg_locks and pg_stat_activity."""
    stage.keep(diagnosis.waiting(stage.postgres, what, stage.seconds(longest)))


@then(
    parsers.re(r"a durable write to every data volume takes at most (?P<most>\d+) milliseconds"),
    converters={"most": int},
)
def storage_in_time(stage: Stage, most: int) -> None:
    """The mean of 64 pages, each on the disk before the next is written, as commits are."""
    seconds = most / 1000 * stage.settings.timeout_scale
    stage.keep(diagnosis.durable_writes(stage.postgres, seconds))


@then("every server lets the replication user in with its certificate")
def replication_rule(stage: Stage) -> None:
    """The first access rule that fits a replication connection decides."""
    stage.keep(diagnosis.replication_allowed(stage.postgres))
