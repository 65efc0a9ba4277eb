"""Red cases of what moves: routing, replication, failover."""

from __future__ import annotations

from pgo.conftest import PRIMARY, REPLICA, STANDBY

from pytest_pgo_eks.history.history import (
    FAIL,
    PINNED,
)
from pytest_pgo_eks.scenario.exposure import ReadBack
from pytest_pgo_eks.scenario.recovery import _PRIMARIES
from pytest_pgo_eks.scenario.routes import Arrival
from pytest_pgo_eks.scenario.rows import NAMES
from pytest_pgo_eks.steps import failover, replication, routing
from steps.spoiling import (
    Case,
    address_of,
    alone,
    another_primary,
    arrivals,
    arrive,
    degraded,
    demoted_reads,
    fault_marks,
    finding,
    give,
    held_back,
    judged,
    led_to,
    meddle,
    never_alone,
    no_leader_label,
    not_degraded,
    promotion,
    rejoined,
    replica_reads,
    rows,
    same_primary,
    simple,
    spoil_row,
    stale_replica_read,
    steadily,
    transactions,
    write,
    wrote,
)
from steps.world import answer

CASES: tuple[Case, ...] = (
    # routing
    simple(
        routing.customers_on_replicas,
        lambda w: w.answers_with(answer(("t", "Ada"))),
        prepare=lambda w: w.answers_with(answer(("t", ",".join(NAMES)))),
        rows=rows,
        budget="0.1 seconds",
    ),
    simple(
        routing.refused_with,
        meddle(lambda rows: setattr(rows, "refusal", answer())),
        rows=rows,
        sqlstate="25006",
    ),
    simple(routing.no_trace, spoil_row, rows=rows),
    simple(
        routing.reached_the_primary,
        arrive(lambda w: [Arrival(address_of(w, STANDBY), in_recovery=False)]),
        prepare=arrive(lambda w: [Arrival(address_of(w, PRIMARY), in_recovery=False)]),
        arrivals=arrivals(),
    ),
    simple(
        routing.reached_replicas,
        arrive(lambda w: [Arrival(address_of(w, PRIMARY), in_recovery=False)]),
        prepare=arrive(lambda w: [Arrival(address_of(w, STANDBY), in_recovery=True)]),
        arrivals=arrivals(),
    ),
    simple(
        routing.reached_every_replica,
        arrive(lambda w: [Arrival(address_of(w, STANDBY), in_recovery=True)]),
        prepare=arrive(
            lambda w: [Arrival(address_of(w, pod), in_recovery=True) for pod in (STANDBY, REPLICA)]
        ),
        arrivals=arrivals(),
    ),
    simple(routing.roles_agree, no_leader_label, time="0.2 seconds"),
    simple(
        routing.roles_agree_on_another, same_primary, prepare=another_primary, budget="1 second"
    ),
    simple(routing.service_follows, led_to(STANDBY), prepare=led_to(PRIMARY), budget="0.1 seconds"),
    simple(
        routing.pgbouncer_follows, led_to(STANDBY), prepare=led_to(PRIMARY), budget="0.1 seconds"
    ),
    simple(
        routing.replicas_service_follows,
        led_to(PRIMARY),
        prepare=led_to(STANDBY),
        budget="0.1 seconds",
    ),
    # replication
    simple(
        replication.keeps_streaming,
        lambda w: w.change_server(REPLICA, receiver=None),
        time="0.2 seconds",
    ),
    simple(
        replication.replayed,
        lambda w: w.values.update({"count(*)": 1999}),
        rows=rows,
        budget="0.1 seconds",
    ),
    simple(replication.one_synchronous, lambda w: w.change_server(PRIMARY, senders=())),
    simple(
        replication.one_synchronous_within,
        lambda w: w.change_server(PRIMARY, senders=()),
        budget="1 second",
    ),
    Case(
        replication.all_visible,
        lambda w: replication.all_visible(
            w.stage, ReadBack(finding("read-your-writes", getattr(w, "outcome", "holds")))
        ),
        lambda w: setattr(w, "outcome", "violated"),
    ),
    simple(
        replication.says_none_synchronous,
        not_degraded,
        prepare=degraded,
    ),
    simple(
        replication.none_acknowledged,
        give("silent", finding("strict-mode-blocks", "violated")),
        time="1 second",
    ),
    simple(
        replication.acknowledged_after_return,
        give("again", [finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(replication.most_advanced_promoted, held_back(PRIMARY), prepare=held_back(REPLICA)),
    simple(replication.not_raised, lambda w: w.change_server(PRIMARY, timeline=2)),
    # failover
    simple(
        failover.acknowledged_again,
        give("again", [finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(
        failover.acknowledged_all_the_same,
        give("again", [finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(failover.another_leads, same_primary, prepare=another_primary, budget="1 second"),
    simple(
        failover.running_and_streaming,
        lambda w: w.change_server(REPLICA, receiver=None),
        count=3,
        budget="1 second",
    ),
    simple(
        failover.declared_streaming,
        lambda w: w.change_server(REPLICA, receiver=None),
        budget="1 second",
    ),
    simple(
        failover.streaming_after_thaw,
        lambda w: w.change_server(REPLICA, receiver=None),
        count=3,
        budget="1 second",
    ),
    simple(failover.timeline_as_recorded, promotion),
    simple(failover.comes_back, same_primary, prepare=another_primary, budget="1 second"),
    simple(
        failover.acknowledged_directly,
        give("again", [finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(
        failover.new_sessions_write,
        give("again", [finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(
        failover.acknowledged_from_now,
        give("again", [finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(
        failover.writes_go_on,
        wrote(*steadily()[:2], *steadily(outcome=FAIL)[2:]),
        prepare=wrote(*steadily()),
        time="0.4 seconds",
        pause="0.2 seconds",
    ),
    simple(
        failover.old_sessions_go_on,
        wrote(*steadily()),
        prepare=wrote(*steadily(session=PINNED)),
        time="0.4 seconds",
        pause="0.2 seconds",
    ),
    simple(
        failover.writes_stop,
        wrote(write(1), write(5)),
        prepare=wrote(write(1), write(5, outcome=FAIL)),
        budget="0.1 seconds",
    ),
    simple(
        failover.old_primary_left,
        wrote(write(1), write(2, timeline=2), write(4)),
        prepare=wrote(write(1), write(2, timeline=2)),
        budget="1 second",
    ),
    simple(
        failover.old_primary_read,
        demoted_reads(3, 4.0),
        prepare=demoted_reads(3, 2.5),
        budget="1 second",
    ),
    simple(
        failover.one_writable,
        lambda w: w.change_server(STANDBY, in_recovery=False),
        time="0.3 seconds",
    ),
    simple(
        failover.archives_again,
        lambda w: setattr(w, "archived", "000000010000000000000006"),
        budget="0.1 seconds",
    ),
    simple(failover.rejoined, rejoined(1, 2, 3), prepare=rejoined(1, 3)),
    simple(
        failover.isolation_kept,
        transactions(8, 16, 99),
        prepare=transactions(8, 16),
        level="serializable",
    ),
    simple(failover.nothing_lost, judged("no-acknowledged-write-lost"), prepare=judged()),
    simple(failover.only_the_end_is_lost, judged("no-acknowledged-write-lost"), prepare=judged()),
    simple(failover.one_primary_at_a_time, judged(_PRIMARIES[1]), prepare=judged()),
)

# Measured and told, never judged: it can only be inconclusive.
MEASURED = (
    simple(
        replication.exposure_reported,
        never_alone,
        prepare=alone,
    ),
    simple(failover.outages_reported, never_alone, prepare=fault_marks),
    simple(replication.staleness_reported, never_alone, prepare=replica_reads),
    simple(
        replication.stale_by,
        stale_replica_read(1.5),
        prepare=stale_replica_read(5.5),
        least="4 seconds",
    ),
)
