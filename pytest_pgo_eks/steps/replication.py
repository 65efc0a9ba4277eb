"""Streaming and synchronous replication."""

from __future__ import annotations

from pytest_bdd import parsers, then, when

from pytest_pgo_eks.history.reads import check_staleness
from pytest_pgo_eks.scenario import aim, exposure, rejoin, roles
from pytest_pgo_eks.scenario.rows import Rows
from pytest_pgo_eks.scenario.stage import Stage


@then(parsers.re(r"every replica streams from the primary for (?P<time>.+)"))
def keeps_streaming(stage: Stage, time: str) -> None:
    """Both ends say so, again and again for that long."""
    declared = stage.postgres.declared()
    stage.keep(roles.keep_streaming(stage.postgres, declared, stage.seconds(time)))


@when(
    parsers.re(r"(?P<count>\d+) rows are written through the primary Service"),
    target_fixture="rows",
    converters={"count": int},
)
def write_rows(stage: Stage, count: int) -> Rows:
    """In one transaction, acknowledged before the step ends."""
    rows = Rows(stage)
    rows.write_many(count)
    return rows


@then(parsers.re(r"every replica has replayed them within (?P<budget>.+)"))
def replayed(stage: Stage, rows: Rows, budget: str) -> None:
    """Counted on every replica by SQL."""
    stage.keep(rows.many_replayed(stage.seconds(budget)))


@then("exactly one replica is synchronous, and Patroni's record and the primary name the same one")
def one_synchronous(stage: Stage) -> None:
    """Patroni's sync record and ``pg_stat_replication`` agree."""
    stage.keep(roles.one_synchronous(stage.postgres, stage.seconds("a sync period")))


@then(parsers.re(r"exactly one replica is synchronous within (?P<budget>.+)"))
def one_synchronous_within(stage: Stage, budget: str) -> None:
    """The same, waited for."""
    stage.keep(roles.one_synchronous(stage.postgres, stage.seconds(budget)))


@when(
    parsers.re(
        r"(?P<count>\d+) rows are written under remote_apply, each read at once on the "
        r"synchronous standby"
    ),
    target_fixture="read_back",
    converters={"count": int},
)
def write_and_read(stage: Stage, count: int) -> exposure.ReadBack:
    """One session writes and waits for its acknowledgement, another then reads on the standby."""
    return exposure.write_and_read(stage, count)


@then("every one of them was visible there")
def all_visible(stage: Stage, read_back: exposure.ReadBack) -> None:
    """Judged only if the same standby was synchronous before and after."""
    stage.keep(read_back.finding)


@when("the synchronous standby's pod is force-deleted")
def standby_deleted(stage: Stage) -> None:
    """Proven by its UID being gone."""
    aim.at_synchronous_standby(stage, "pod is force-deleted")


@when("both standbys are stopped")
def standbys_stopped(stage: Stage) -> None:
    """Patroni frozen and PostgreSQL stopped in each, so that it stays away for about a lease."""
    aim.at_every_standby(stage)


@then("the cluster says that no standby is synchronous")
def says_none_synchronous(stage: Stage) -> None:
    """Patroni's record names no standby and the primary's setting is empty."""
    stage.keep(exposure.told_degraded(stage))


@then("the time with a single copy is measured and reported")
def exposure_reported(stage: Stage) -> None:
    """How long, and for how many acknowledged writes, only the primary had them."""
    stage.keep(exposure.single_copy(stage))


@then(parsers.re(r"no write is acknowledged for (?P<time>.+)"))
def none_acknowledged(stage: Stage, time: str) -> None:
    """Every write begun in that time stays without an answer, while clients keep trying."""
    stage.keep(stage.clients.nothing_acknowledged(stage.seconds(time)))


@then(parsers.re(r"after a standby is back writes are acknowledged again within (?P<budget>.+)"))
def acknowledged_after_return(stage: Stage, budget: str) -> None:
    """Lets the standbys run again; the time counts from there."""
    stage.keep(*exposure.acknowledged_after_return(stage, stage.seconds(budget)))


@then("the timeline was not raised")
def not_raised(stage: Stage) -> None:
    """Nobody was promoted."""
    stage.keep(roles.not_raised(stage.beginning, stage.postgres.observe(sql=True)))


@when("a replica is held back")
def replica_held_back(stage: Stage) -> None:
    """Its walreceiver frozen and WAL written since, proven by what it lacks in bytes."""
    aim.hold_back(stage)


@when("replay on every replica is paused")
def replay_paused(stage: Stage) -> None:
    """They receive and show nothing new, proven by the lag of each in bytes."""
    aim.pause_replay(stage)


@when("the synchronous standby's walreceiver is frozen")
def walreceiver_frozen(stage: Stage) -> None:
    """SIGSTOP, proven by state T: it is connected and confirms nothing."""
    aim.at_synchronous_standby(stage, "walreceiver is frozen")


@then("the most advanced replica was promoted, not the one that was held back")
def most_advanced_promoted(stage: Stage) -> None:
    """The instance that leads now, against what the other one lacked when the fault was proven."""
    stage.keep(rejoin.not_promoted(stage))


@then("the staleness of replicas is measured and reported")
def staleness_reported(stage: Stage) -> None:
    """By how much reads of replicas trailed what had been acknowledged; told, not judged."""
    stage.keep(check_staleness(stage.clients.so_far()))


@then(parsers.re(r"some read of a replica was stale by (?P<least>.+) or more"))
def stale_by(stage: Stage, least: str) -> None:
    """What the fault must have caused: without it nothing was measured."""
    stage.keep(exposure.stale_by(stage, stage.seconds(least)))
