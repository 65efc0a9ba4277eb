"""The primary goes away: what is done to it, and what clients may notice."""

from __future__ import annotations

from pytest_bdd import parsers, then, when

from pytest_pgo_eks.history.history import SCOUT
from pytest_pgo_eks.history.isolation import Isolation
from pytest_pgo_eks.scenario import aim, backups, recovery, rejoin, roles, silence
from pytest_pgo_eks.scenario.clients import PRIMARY
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


@when("the primary's postmaster is frozen")
def postmaster_frozen(stage: Stage) -> None:
    """SIGSTOP, proven by state T: open sessions go on, nobody gets a new one."""
    aim.at_primary(stage, "postmaster is frozen")


@when("a backend of the primary is killed")
def backend_killed(stage: Stage) -> None:
    """SIGKILL to one session's process, proven by the postmaster starting all others anew."""
    aim.at_primary(stage, "backend is killed")


@when("the primary's checkpointer is frozen")
def checkpointer_frozen(stage: Stage) -> None:
    """SIGSTOP, proven by state T: writes go on, only no checkpoint ends."""
    aim.at_primary(stage, "checkpointer is frozen")


@when("the primary's Patroni is frozen")
def patroni_frozen(stage: Stage) -> None:
    """SIGSTOP, proven by state T; PostgreSQL goes on, but nobody renews the lease."""
    aim.at_primary(stage, "Patroni is frozen")


@when("the primary's Patroni is killed")
def patroni_killed(stage: Stage) -> None:
    """SIGKILL, proven by the process being gone; its container ends with it."""
    aim.at_primary(stage, "Patroni is killed")


@when("the primary's database container is killed")
def container_killed(stage: Stage) -> None:
    """SIGKILL to its main process, proven by the kubelet's restart count."""
    aim.at_primary(stage, "database container is killed")


@when("PgBouncer is killed")
def pgbouncer_killed(stage: Stage) -> None:
    """SIGKILL to its container's main process, proven by the kubelet's restart count."""
    aim.at_pgbouncer(stage, "killed")


@when("PgBouncer's pod is force-deleted")
def pgbouncer_deleted(stage: Stage) -> None:
    """Proven by its UID being gone; its Deployment makes another."""
    aim.at_pgbouncer(stage, "pod is force-deleted")


@when("the servers' certificate is replaced")
def certificate_replaced(stage: Stage) -> None:
    """Its Secret deleted, proven by every server showing another certificate."""
    aim.replace_certificate(stage)


@when("the primary's archiving fails")
def archiving_fails(stage: Stage) -> None:
    """pgBackRest stopped there, proven by the primary's own count of failed archive commands."""
    aim.fail_archiving(stage)


@when("the primary cannot reach the API server")
def api_lost_at_primary(stage: Stage) -> None:
    """Its packets to the API server are dropped, proven by their count."""
    aim.at_primary(stage, "API server is unreachable")


@when("no instance can reach the API server")
def api_lost(stage: Stage) -> None:
    """Packets of every instance to the API server are dropped, proven by their counts."""
    stage.remember()
    aim.api_lost_everywhere(stage)


@when(parsers.re(r"the primary (?P<how>is cut off|can send nothing|can receive nothing)"))
def primary_cut_off(stage: Stage, how: str) -> None:
    """From and to everybody, or one way; proven by the packets that were dropped."""
    aim.at_primary(stage, how.removeprefix("is "))


@when("every packet from and to the primary is answered by a reset")
def primary_reset(stage: Stage) -> None:
    """Cut off as above, but everybody is told at once. Proven by the packets that were answered."""
    aim.at_primary(stage, "connections are reset")


@when("the primary is cut off from everybody but its clients")
def primary_in_minority(stage: Stage) -> None:
    """What a second primary needs. Proven by the packets that were dropped."""
    aim.at_primary(stage, "cut off from everybody but its clients")


@when("one packet in ten of the primary is lost")
def packets_lost(stage: Stage) -> None:
    """At random, both ways; proven by the packets that were dropped."""
    aim.at_primary(stage, "packets are lost")


@when("every packet of the primary is a tenth of a second late")
def packets_delayed(stage: Stage) -> None:
    """Each way; proven by how long a new session takes."""
    aim.at_primary(stage, "packets are delayed")


@when("the clock of the primary's node is ten minutes ahead")
def clock_ahead(stage: Stage) -> None:
    """Proven by its server's clock against another's; only where nodes are machines."""
    aim.at_primary(stage, "clock is shifted")


@when("the primary's data volume is full")
def volume_full(stage: Stage) -> None:
    """A file takes the last byte; proven by df and by what the server says to a new page."""
    aim.at_primary(stage, "data volume is full")


@when("other processes beside the primary take processors and memory")
def pressed(stage: Stage) -> None:
    """Proven by the CPU time that they used and the memory that they hold."""
    aim.press(stage)


@when("a NetworkPolicy isolates the primary")
def policy_isolates(stage: Stage) -> None:
    """Nothing in and nothing out; proven by new sessions that do not arrive any more."""
    aim.at_primary(stage, "isolated by a NetworkPolicy")


@when(
    parsers.re(
        r"the primary's (?P<what>node is cut off|node vanishes|zone vanishes|node is drained)"
    )
)
def place_lost(stage: Stage, what: str) -> None:
    """Proven by dropped packets; a drain by the UIDs of the evicted pods being gone."""
    aim.at_primary(stage, what)


@when("the fault is taken back")
def taken_back(stage: Stage) -> None:
    """Packets pass again, nodes return, frozen processes run."""
    recovery.take_back(stage)


@when(
    parsers.re(
        r"the primary pod is deleted (?P<times>\d+) times, each time after the cluster recovered"
    ),
    converters={"times": int},
)
def pod_deleted_repeatedly(stage: Stage, times: int) -> None:
    """Each time the pod of whoever is the primary then."""
    recovery.repeatedly(stage, times)


@when(
    "the primary pod is deleted as often as the run was told, each time after the cluster recovered"
)
def pod_deleted_as_told(stage: Stage) -> None:
    """``--pgo-failovers`` times, each time the pod of whoever is the primary then."""
    recovery.repeatedly(stage, stage.settings.failovers)


@then(parsers.re(r"writes are acknowledged again within (?P<budget>.+)"))
def acknowledged_again(stage: Stage, budget: str) -> None:
    """On every path that is written through, from the begin of the fault to the last outage's end."""
    stage.keep(*stage.clients.acknowledged_again(stage.seconds(budget)))


@then(parsers.re(r"writes on every path are acknowledged within (?P<budget>.+) all the same"))
def acknowledged_all_the_same(stage: Stage, budget: str) -> None:
    """Where nobody's log-in may fail: PgBouncer is allowed nothing more than the others."""
    stage.keep(*stage.clients.acknowledged_again(stage.seconds(budget), login_retry_s=0.0))


@then(
    parsers.re(r"writes through the primary Service are acknowledged again within (?P<budget>.+)")
)
def acknowledged_directly(stage: Stage, budget: str) -> None:
    """The same on that path alone, where the fault may have taken PgBouncer too."""
    stage.keep(*stage.clients.acknowledged_again(stage.seconds(budget), [PRIMARY]))


@then(parsers.re(r"new sessions write through the primary Service within (?P<budget>.+)"))
def new_sessions_write(stage: Stage, budget: str) -> None:
    """Sessions opened earlier may stay on a server that refuses writes: nothing ends them."""
    stage.keep(*stage.clients.acknowledged_again(stage.seconds(budget), [PRIMARY], [SCOUT]))


@then(
    parsers.re(
        r"writes are acknowledged for (?P<time>.+) without a pause of more than (?P<pause>.+)"
    )
)
def writes_go_on(stage: Stage, time: str, pause: str) -> None:
    """Through the primary Service, by whoever gets through."""
    stage.keep(silence.writes_go_on(stage, stage.seconds(time), stage.seconds(pause)))


@then(
    parsers.re(
        r"sessions from before are acknowledged for (?P<time>.+) without a pause of more "
        r"than (?P<pause>.+)"
    )
)
def old_sessions_go_on(stage: Stage, time: str, pause: str) -> None:
    """Sessions that were opened before the fault and never again."""
    found = silence.writes_go_on(stage, stage.seconds(time), stage.seconds(pause), pinned=True)
    stage.keep(found)


@then(parsers.re(r"writes stop within (?P<budget>.+)"))
def writes_stop(stage: Stage, budget: str) -> None:
    """No write is acknowledged any more on any path, while clients keep trying."""
    stage.keep(silence.writes_stop(stage, stage.seconds(budget)))


@then(parsers.re(r"writes begun from now on are acknowledged within (?P<budget>.+)"))
def acknowledged_from_now(stage: Stage, budget: str) -> None:
    """The time counts from this sentence, not from the fault."""
    stage.keep(*stage.clients.acknowledged_from_now(stage.seconds(budget)))


@then(parsers.re(r"nobody writes to a demoted primary for longer than (?P<budget>.+)"))
def old_primary_left(stage: Stage, budget: str) -> None:
    """From the first acknowledgement on the new timeline, on every path and kind of session."""
    stage.keep(silence.left_the_old_primary(stage, stage.seconds(budget)))


@then(parsers.re(r"nobody reads stale rows from a demoted primary for longer than (?P<budget>.+)"))
def old_primary_read(stage: Stage, budget: str) -> None:
    """From the first acknowledgement on the new timeline, by sessions opened before, pooled or not."""
    stage.keep(silence.left_reading_the_old_primary(stage, stage.seconds(budget)))


@then(parsers.re(r"at most one instance takes writes for (?P<time>.+)"))
def one_writable(stage: Stage, time: str) -> None:
    """By SQL on every instance that can be asked, all the time."""
    stage.keep(roles.at_most_one_writable(stage.postgres, stage.seconds(time)))


@then(parsers.re(r"the primary archives again within (?P<budget>.+)"))
def archives_again(stage: Stage, budget: str) -> None:
    """A segment that ends now arrives in the archive, by the server's own word."""
    segment = backups.switch_segment(stage.postgres)
    stage.keep(backups.archived(stage.postgres, segment, stage.seconds(budget)))


@then("the old primary has rejoined by rewind and its divergent rows are gone")
def rejoined(stage: Stage) -> None:
    """Its timeline, Patroni's log, and its rows as read back, against the new primary's."""
    stage.keep(*rejoin.rewound(stage))


@then("the distribution of outages is reported")
def outages_reported(stage: Stage) -> None:
    """How long new sessions were locked out at each fault; told, not judged."""
    stage.keep(rejoin.distribution(stage))


@then(
    parsers.re(
        r"the transactions kept (?P<level>read committed|repeatable read|serializable) isolation"
    )
)
def isolation_kept(stage: Stage, level: Isolation) -> None:
    """No anomaly that the level forbids, with the cycle as proof where there is one."""
    stage.keep(*rejoin.kept_isolation(stage, level))


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


@then(parsers.re(r"every declared instance is running and streaming within (?P<budget>.+)"))
def declared_streaming(stage: Stage, budget: str) -> None:
    """As many as the PostgresCluster declares now, one primary by all witnesses."""
    roles.all_streaming(stage.postgres, stage.postgres.declared(), stage.seconds(budget))


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
