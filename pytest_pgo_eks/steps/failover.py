"""The primary goes away: what is done to it, and what clients may notice."""

from __future__ import annotations

from pytest_bdd import parsers, then, when

from pytest_pgo_eks.scenario import aim, recovery, roles
from pytest_pgo_eks.scenario.stage import Stage


@when("the primary is switched over")
def switched_over(stage: Stage) -> None:
    """A planned switchover, asked of the operator; proven by its status and another leader."""
    aim.at_primary(stage, "switched over")


@when(parsers.re(r"the primary pod is (?P<how>deleted|force-deleted)"))
def pod_deleted(stage: Stage, how: str) -> None:
    """Proven by the pod's UID being gone; its controller makes another of the same name."""
    aim.at_primary(stage, f"pod is {how}")


@when("the primary's postmaster is killed")
def postmaster_killed(stage: Stage) -> None:
    """SIGKILL, proven by the process being gone; Patroni restarts it in place."""
    aim.at_primary(stage, "postmaster is killed")


@when("the primary's Patroni is frozen")
def patroni_frozen(stage: Stage) -> None:
    """SIGSTOP, proven by state T; PostgreSQL goes on, but nobody renews the lease."""
    aim.at_primary(stage, "Patroni is frozen")


@when(
    parsers.re(
        r"the primary pod is deleted (?P<times>\d+) times, each time after the cluster recovered"
    ),
    converters={"times": int},
)
def pod_deleted_repeatedly(stage: Stage, times: int) -> None:
    """Each time the pod of whoever is the primary then."""
    recovery.repeatedly(stage, times)


@then(parsers.re(r"writes are acknowledged again within (?P<budget>.+)"))
def acknowledged_again(stage: Stage, budget: str) -> None:
    """On every path that is written through, from the begin of the fault to the last outage's end."""
    stage.keep(*stage.clients.acknowledged_again(stage.seconds(budget)))


@then(parsers.re(r"another instance leads within (?P<budget>.+)"))
def another_leads(stage: Stage, budget: str) -> None:
    """The leader record names another instance *and* its server takes writes."""
    stage.keep(roles.another_leads(stage.postgres, stage.beginning, stage.seconds(budget)))


@then(
    parsers.re(r"(?P<count>\d+) instances are running and streaming within (?P<budget>.+)"),
    converters={"count": int},
)
def running_and_streaming(stage: Stage, count: int, budget: str) -> None:
    """One primary by all witnesses, everybody else streams from it, as both ends say."""
    roles.all_streaming(stage.postgres, count, stage.seconds(budget))


@then(
    parsers.re(
        r"after Patroni runs again (?P<count>\d+) instances are running and streaming "
        r"within (?P<budget>.+)"
    ),
    converters={"count": int},
)
def streaming_after_thaw(stage: Stage, count: int, budget: str) -> None:
    """Lets the frozen process run, unless the kubelet has replaced it; then as above."""
    recovery.thaw(stage)
    roles.all_streaming(stage.postgres, count, stage.seconds(budget))


@then("the timeline was raised exactly as often as Patroni recorded a promotion")
def timeline_as_recorded(stage: Stage) -> None:
    """The servers' timeline against Patroni's history."""
    stage.keep(roles.promotions_recorded(stage.beginning, stage.postgres.observe(sql=True)))


@then(parsers.re(r"the deleted instance streams as a replica within (?P<budget>.+)"))
def comes_back(stage: Stage, budget: str) -> None:
    """The instance whose pod was deleted, under its old name, in recovery and receiving."""
    pod = roles.primary(stage.beginning).pod
    stage.keep(roles.streams_as_replica(stage.postgres, pod, stage.seconds(budget)))


@then("no acknowledged write is lost")
def nothing_lost(stage: Stage) -> None:
    """Ends the clients, reads back what is there, and judges every acknowledged write."""
    stage.keep(*recovery.losses(stage))


@then("only the end of the log is lost")
def only_the_end_is_lost(stage: Stage) -> None:
    """What is lost lies behind everything that survived, in WAL order; how much is told."""
    stage.keep(*recovery.losses(stage))


@then("no two primaries acknowledged writes at the same time")
def one_primary_at_a_time(stage: Stage) -> None:
    """No counter value acknowledged on two timelines, no acknowledgement on an old one after a new."""
    stage.keep(*recovery.overlaps(stage))
