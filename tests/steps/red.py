"""For every Then-step: how it is called, what a healthy world shows it, and what must turn it red."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pgo.conftest import PRIMARY, REPLICA, STANDBY

from pytest_pgo_eks.faults.bench import Injected, Proof
from pytest_pgo_eks.faults.processes import StandbyStopped
from pytest_pgo_eks.faults.servers import ReplicaHeldBack
from pytest_pgo_eks.findings import Finding, Outcome
from pytest_pgo_eks.history.history import (
    FAIL,
    OK,
    PACED,
    PINNED,
    READ,
    SCOUT,
    TXN,
    WRITE,
    History,
    Table,
)
from pytest_pgo_eks.pgo.observation import Promotion
from pytest_pgo_eks.postgres import HbaRule
from pytest_pgo_eks.scenario.access import Attempt
from pytest_pgo_eks.scenario.application import Connected
from pytest_pgo_eks.scenario.changes import Change
from pytest_pgo_eks.scenario.exposure import ReadBack
from pytest_pgo_eks.scenario.recovery import _PRIMARIES
from pytest_pgo_eks.scenario.routes import Arrival
from pytest_pgo_eks.scenario.rows import NAMES, Rows
from pytest_pgo_eks.steps import access, configuration, deployment, failover, replication, routing
from steps.world import World, answer, refusal

Act = Callable[[World], object]
ROLE = "postgres-operator.crunchydata.com/role"


@dataclass(frozen=True)
class Case:
    """``call`` runs the step; ``spoil`` makes the promise broken; ``prepare`` makes it hold."""

    step: Callable[..., Any]
    call: Act
    spoil: Act
    prepare: Act = lambda _world: None

    @property
    def name(self) -> str:
        return f"{self.step.__module__.rpartition('.')[2]}.{self.step.__name__}"


def simple(
    step: Callable[..., Any], spoil: Act, prepare: Act = lambda _w: None, **told: Any
) -> Case:
    """Return a case of a step that takes the world's own fixtures and the words of its sentence."""
    import inspect

    names = inspect.signature(step).parameters

    def call(world: World) -> object:
        fixtures: dict[str, Any] = {
            "stage": world.stage,
            "pgo_postgres": world.postgres,
            "pgo_operator": world.operator(),
        }
        given = {k: v(world) if callable(v) else v for k, v in told.items()}
        return step(**{k: v for k, v in fixtures.items() if k in names}, **given)

    return Case(step, call, spoil, prepare)


def _object(kind: str, change: Callable[[dict[str, Any]], object], index: int = 0) -> Act:
    return lambda world: change(world.kube.objects[kind][index])


def _status(world: World) -> Any:
    return world.kube.objects["PostgresCluster"][0]["status"]


def _connected(
    row: tuple[str | None, ...] | None = None, **changes: Any
) -> Callable[[World], Connected]:
    good = ("testuser", "t", "f", "off", "10.42.0.20")
    return lambda world: Connected(
        cast(Any, world).session if hasattr(world, "session") else answer(row or good, **changes),
        "testuser",
        pooled=False,
    )


def _session(*row: str | None, **changes: Any) -> Act:
    def spoil(world: World) -> None:
        cast(Any, world).session = answer(row, **changes)

    return spoil


def _ip(world: World, pod: str) -> str:
    instance = world.seen.instance(pod)
    assert instance is not None
    return str(instance.ip)


def _ends(**changes: Any) -> Act:
    """A session that ended otherwise."""

    def spoil(world: World) -> None:
        cast(Any, world).session = (
            answer(**changes)
            if changes.get("stage", "done") == "done"
            else (refusal(changes["code"]))
        )

    return spoil


def _failing(code: str) -> Callable[[World], Connected]:
    def make(world: World) -> Connected:
        session = getattr(world, "session", None) or refusal(code)
        return Connected(session, "testuser", pooled=False)

    return make


def _backup(world: World, *, kind: str = "full", start: str = "000000010000000000000002") -> None:
    import json

    from steps.world import shell

    told = [
        {
            "backup": [{"type": kind, "label": "1F", "error": False, "archive": {"start": start}}],
            "archive": [{"min": "000000010000000000000002", "max": "000000010000000000000009"}],
        }
    ]
    world.kube.shell = shell(json.dumps(told))


def _rows(world: World) -> Rows:
    rows = Rows(world.stage)
    rows._given = rows._states()
    rows.refusal = refusal("25006", "read-only", stage="statement")
    rows._many = 2000
    if hasattr(world, "meddle"):
        cast(Any, world).meddle(rows)
    return rows


def _meddle(change: Callable[[Rows], object]) -> Act:
    def spoil(world: World) -> None:
        cast(Any, world).meddle = change

    return spoil


def _spoil_row(world: World) -> None:
    def change(_rows: Rows) -> None:
        world.rows[STANDBY] = {"rows": "1 trace", "tables": "", "last": 1}

    cast(Any, world).meddle = change


def _arrivals(*wrong: Arrival) -> Callable[[World], list[Arrival]]:
    def make(world: World) -> list[Arrival]:
        return cast(Any, world).arrivals if hasattr(world, "arrivals") else []

    return make


def _arrive(make: Callable[[World], list[Arrival]]) -> Act:
    def prepare(world: World) -> None:
        cast(Any, world).arrivals = make(world)

    return prepare


def _led_to(pod: str) -> Act:
    """Every connection arrives at one pod."""

    def prepare(world: World) -> None:
        recovery = "f" if pod == PRIMARY else "t"
        world.answers_with(answer((_ip(world, pod), recovery)))

    return prepare


def _finding(rule: str, outcome: Outcome) -> Finding:
    return Finding(rule, outcome, f"{rule} {outcome}")


def _judged(*broken: str) -> Act:
    rules = ("no-acknowledged-write-lost", *_PRIMARIES)

    def prepare(world: World) -> None:
        world.clients.findings = [
            _finding(rule, "violated" if rule in broken else "holds") for rule in rules
        ]

    return prepare


def _set(name: str, value: Any) -> Act:
    return lambda world: setattr(world.clients, name, value)


def _promotion(world: World) -> None:
    seen = world.seen
    more = (*seen.history, Promotion(1, 1, "x", None, PRIMARY))
    world.observation = dataclasses.replace(seen, history=more)


def _old_started(world: World) -> None:
    from datetime import timedelta

    for pod, one in world.servers.items():
        world.change_server(pod, started=one.started + timedelta(minutes=1))


def _degraded(world: World) -> None:
    world.change_server(PRIMARY, synchronous_standby_names="", senders=())
    seen = world.seen
    assert seen.sync is not None
    world.observation = dataclasses.replace(seen, sync=dataclasses.replace(seen.sync, standbys=()))


def _not_degraded(world: World) -> None:
    world.observation = None


def _alone(world: World) -> None:
    """A history in which writes were acknowledged after the standbys went."""
    op = {
        "op": 1, "kind": WRITE, "outcome": OK, "session": PACED, "path": 1, "invoke": 20, "done": 30,
    }  # fmt: skip
    mark = {"kind": "mark", "name": f"fault injected: {StandbyStopped.kind} x", "at": 10}
    world.clients.history = History(ops=Table.rows("ops", [op]), events=(mark,), paths={1: "p"})


def _never_alone(world: World) -> None:
    world.clients.history = History(ops=Table.rows("ops", []), events=(), paths={1: "p"})


def _another_primary(world: World) -> None:
    """Before this scenario somebody else was the primary."""
    now = world.seen
    old = dataclasses.replace(world.servers[PRIMARY], in_recovery=True)
    new = dataclasses.replace(world.servers[STANDBY], in_recovery=False)
    assert now.leader is not None
    instances = tuple(
        dataclasses.replace(
            one,
            role_label="master" if one.pod == STANDBY else "replica",
        )
        for one in now.instances
    )
    world.stage.before = dataclasses.replace(
        now,
        instances=instances,
        leader=dataclasses.replace(now.leader, leader=STANDBY),
        servers={**now.servers, PRIMARY: old, STANDBY: new},
    )


def _same_primary(world: World) -> None:
    world.stage.before = world.seen


def _no_leader_label(world: World) -> None:
    world.pod(PRIMARY)["metadata"]["labels"][ROLE] = "replica"


def _attempts(*answers: Any) -> Callable[[World], list[Attempt]]:
    def make(world: World) -> list[Attempt]:
        found = getattr(world, "attempts", None) or answers
        return [Attempt(f"server {n}", one) for n, one in enumerate(found)]

    return make


def _let_in(world: World) -> None:
    cast(Any, world).attempts = [refusal("28P01"), answer(("postgres", "t", "f"))]


def _created_lately(world: World) -> None:
    created = "2026-11-23T10:00:00Z"
    world.kube.objects["PostgresCluster"][0]["metadata"]["creationTimestamp"] = created
    for pod in world.kube.objects["Pod"]:
        for condition in pod["status"]["conditions"]:
            condition["lastTransitionTime"] = "2026-11-23T10:00:30Z"


_S = 1_000_000_000


def _write(at_s: float, **changes: int) -> dict[str, int]:
    """One acknowledged write that took a hundredth of a second."""
    at = int(at_s * _S)
    return {
        "op": changes.get("op", at // 1000 + 1), "kind": WRITE, "outcome": OK, "session": PACED,
        "path": 1, "key": -1, "timeline": 1, "invoke": at, "done": at + _S // 100,
    } | changes  # fmt: skip


def _wrote(*ops: dict[str, int], events: tuple[dict[str, Any], ...] = (), **more: Any) -> Act:
    """Clients whose history is this."""

    def prepare(world: World) -> None:
        world.clients.history = History(
            ops=Table.rows("ops", list(ops)),
            events=events,
            paths={1: "the primary Service"},
            servers={0: {"address": "10.42.0.20", "port": 5432}},
            words={0: ""},
            **more,
        )

    return prepare


def _steadily(**changes: int) -> list[dict[str, int]]:
    return [_write(number / 20, **changes) for number in range(8)]


def _rejoined(*old_rows: int, log: str = "INFO: running pg_rewind from x in progress") -> Act:
    """The old primary follows now; what it alone acknowledged (op 2) was read back as told."""

    def prepare(world: World) -> None:
        _another_primary(world)
        before = world.stage.before
        assert before is not None
        # Who led before is a replica of a newer timeline now.
        world.change_server(PRIMARY, timeline=2)
        world.change_server(STANDBY, timeline=2)
        world.change_server(REPLICA, timeline=2)
        world.kube.texts[STANDBY, "database", False] = log
        sources = tuple(
            {
                "kind": "read-back", "source": number, "name": pod, "at": 9, "timeline": 2,
                "in_recovery": pod != PRIMARY,
            }
            for number, pod in ((1, PRIMARY), (2, STANDBY))
        )  # fmt: skip
        ops = [_write(0, op=1), _write(1, op=2), _write(2, op=3, timeline=2)]
        rows = [{"op": op, "source": 1} for op in (1, 3)]
        rows += [{"op": op, "source": 2} for op in old_rows]
        _wrote(*ops, events=sources, rows=Table.rows("rows", rows))(world)

    return prepare


def _held_back(pod: str) -> Act:
    """A replica that was held back before somebody else was promoted."""

    def prepare(world: World) -> None:
        _another_primary(world)
        proof = Proof("held back", {"behind_bytes": 4096})
        world.stage.bench.injected[:] = [Injected(ReplicaHeldBack.kind, pod, proof, 0, 0, 0)]

    return prepare


def _transactions(*seen: int) -> Act:
    """One transaction appended 8, then a later one 16, and a third one read this."""

    def prepare(world: World) -> None:
        ops = [_write(at, op=at + 1, kind=TXN, key=0) for at in range(3)]
        micro = [
            {"op": 1, "key": 1, "value": 8, "kind": 0, "count": -1},
            {"op": 2, "key": 1, "value": 16, "kind": 0, "count": -1, "at": 1},
            {"op": 3, "key": 1, "kind": 1, "count": len(seen), "at": 2},
        ]
        _wrote(
            *ops,
            micro=Table.rows("micro", micro),
            elements=Table.rows("elements", [{"value": one} for one in seen]),
        )(world)

    return prepare


def _fault_marks(world: World) -> None:
    scouts = [_write(number / 10, session=SCOUT) for number in (1, 2, 3, 4, 40, 41, 42, 43)]
    mark = {"kind": "mark", "name": "fault begins: x", "at": _S // 2}
    _wrote(*scouts, events=(mark,))(world)


def _replica_reads(world: World) -> None:
    reads = [
        {"op": 7, "kind": READ, "outcome": OK, "path": 1, "recovery": 1, "key": -1, "invoke": _S, "done": _S + 9}
    ]  # fmt: skip
    cells = [{"op": 7, "key": 0, "value": 3}]
    _wrote(*reads, cells=Table.rows("cells", cells))(world)


LETS_IN = ("testuser", "f", "f", "off", "10.42.0.1")

CASES: tuple[Case, ...] = (
    # deployment
    simple(
        deployment.operator_available,
        _object("Deployment", lambda o: o["status"].update(availableReplicas=0)),
    ),
    simple(
        deployment.resource_served,
        _object("CustomResourceDefinition", lambda o: o["spec"].update(versions=[])),
    ),
    Case(
        deployment.operator_version,
        lambda world: deployment.operator_version(getattr(world, "told", world.operator())),
        lambda world: setattr(world, "told", world.operator(version="")),
    ),
    simple(deployment.status_is_current, lambda w: _status(w).update(observedGeneration=0)),
    simple(
        deployment.status_counts,
        lambda w: _status(w)["instances"][0].update(readyReplicas=2),
        count=3,
    ),
    simple(
        deployment.ready_within,
        _object(
            "PostgresCluster",
            lambda o: o["metadata"].update(creationTimestamp="2020-01-01T00:00:00Z"),
        ),
        prepare=_created_lately,
        count=3,
        budget="1 hour",
    ),
    simple(deployment.one_primary, lambda w: w.change_server(STANDBY, in_recovery=False), count=2),
    simple(
        deployment.bound_volumes,
        _object("PersistentVolumeClaim", lambda o: o["status"].update(phase="Pending")),
    ),
    simple(
        deployment.bound_repository,
        lambda w: [
            claim["status"].update(phase="Lost")
            for claim in w.kube.objects["PersistentVolumeClaim"]
        ],
    ),
    simple(
        deployment.own_place,
        lambda w: w.pod(STANDBY)["spec"].update(nodeName=w.pod(PRIMARY)["spec"]["nodeName"]),
        place="node",
    ),
    simple(
        deployment.pod_labels,
        lambda w: w.pod(STANDBY)["metadata"]["labels"].update(
            {"postgres-operator.crunchydata.com/instance": "another"}
        ),
    ),
    simple(
        deployment.role_labels,
        lambda w: w.pod(STANDBY)["metadata"]["labels"].update({ROLE: "master"}),
        count=2,
    ),
    simple(
        deployment.service_port,
        _object("Service", lambda o: o["spec"].update(ports=[{"port": 5433}])),
        service="ha",
        port=5432,
    ),
    simple(
        deployment.service_endpoint,
        lambda w: w.kube.one("Endpoints", "hippo-ha").update(subsets=[]),
        service="ha",
    ),
    simple(deployment.secret_keys, lambda w: w.kube.values.pop("password")),
    simple(
        deployment.disruption_budget,
        _object("PodDisruptionBudget", lambda o: o["spec"].update(minAvailable=0)),
    ),
    simple(deployment.encrypted, _session("testuser", "f", tls=False), connected=_connected()),
    simple(deployment.connected_user, _session("somebody", "t"), connected=_connected()),
    simple(
        deployment.accepts_writes,
        _session("testuser", "t", "t", "on", "10.42.0.20"),
        connected=_connected(),
    ),
    Case(
        deployment.is_primary,
        lambda world: deployment.is_primary(
            world.stage,
            Connected(
                answer(
                    ("testuser", "t", "f", "off", _ip(world, getattr(world, "reached", PRIMARY)))
                ),
                "testuser",
                pooled=True,
            ),
        ),
        lambda world: setattr(world, "reached", REPLICA),
    ),
    simple(deployment.not_trusted, _session(*LETS_IN), connected=_failing("certificate")),
    simple(deployment.users_exist, lambda w: w.roles.pop("testuser")),
    simple(deployment.databases_exist, lambda w: w.databases.pop("testdb")),
    simple(
        deployment.options_in_force,
        lambda w: w.roles.update(
            testuser=dataclasses.replace(w.roles["testuser"], is_superuser=True)
        ),
    ),
    simple(
        deployment.full_backup,
        lambda w: _backup(w, kind="incr"),
        prepare=_backup,
        budget="0.1 seconds",
    ),
    simple(
        deployment.archive_complete,
        lambda w: _backup(w, start="000000010000000000000001"),
        prepare=_backup,
    ),
    simple(
        deployment.segment_archived,
        lambda w: setattr(w, "archived", "000000010000000000000006"),
        segment="000000010000000000000007",
        budget="0.1 seconds",
    ),
    # access
    simple(access.nobody_is_let_in, _let_in, tried=_attempts(refusal("28P01"), refusal("28000"))),
    simple(access.refused_unencrypted, _session(*LETS_IN), connected=_failing("28000")),
    # configuration
    simple(
        configuration.setting_everywhere,
        lambda w: w.settings[REPLICA].update(wal_level="minimal"),
        name="wal_level",
        comparison="one of",
        value="replica, logical",
    ),
    simple(
        configuration.standby_configuration,
        lambda w: w.settings[REPLICA].update(
            primary_conninfo="host=x user=_crunchyrepl sslmode=prefer"
        ),
    ),
    simple(configuration.declared_rules, lambda w: setattr(w, "rules", w.rules[:1])),
    simple(
        configuration.rules_loaded,
        lambda w: setattr(
            w, "rules", (HbaRule(3, "host", (), (), None, None, "", (), "invalid"), *w.rules)
        ),
    ),
    simple(
        configuration.setting_arrives,
        lambda w: w.settings[REPLICA].update(work_mem="4MB"),
        name="work_mem",
        value="5MB",
        budget="0.1 seconds",
    ),
    simple(
        configuration.new_value_arrives,
        lambda w: w.settings[REPLICA].update(max_connections="100"),
        change=Change("max_connections", "110", "100"),
        name="max_connections",
        budget="0.1 seconds",
    ),
    simple(configuration.not_restarted, _old_started),
    simple(
        configuration.restarted_in_place, lambda w: setattr(w.stage, "before", w.seen), _old_started
    ),
    simple(configuration.none_pending, lambda w: w.pending.append("max_connections")),
    # routing
    simple(
        routing.customers_on_replicas,
        lambda w: w.answers_with(answer(("t", "Ada"))),
        prepare=lambda w: w.answers_with(answer(("t", ",".join(NAMES)))),
        rows=_rows,
        budget="0.1 seconds",
    ),
    simple(
        routing.refused_with,
        _meddle(lambda rows: setattr(rows, "refusal", answer())),
        rows=_rows,
        sqlstate="25006",
    ),
    simple(routing.no_trace, _spoil_row, rows=_rows),
    simple(
        routing.reached_the_primary,
        _arrive(lambda w: [Arrival(_ip(w, STANDBY), in_recovery=False)]),
        prepare=_arrive(lambda w: [Arrival(_ip(w, PRIMARY), in_recovery=False)]),
        arrivals=_arrivals(),
    ),
    simple(
        routing.reached_replicas,
        _arrive(lambda w: [Arrival(_ip(w, PRIMARY), in_recovery=False)]),
        prepare=_arrive(lambda w: [Arrival(_ip(w, STANDBY), in_recovery=True)]),
        arrivals=_arrivals(),
    ),
    simple(
        routing.reached_every_replica,
        _arrive(lambda w: [Arrival(_ip(w, STANDBY), in_recovery=True)]),
        prepare=_arrive(
            lambda w: [Arrival(_ip(w, pod), in_recovery=True) for pod in (STANDBY, REPLICA)]
        ),
        arrivals=_arrivals(),
    ),
    simple(routing.roles_agree, _no_leader_label, time="0.2 seconds"),
    simple(
        routing.roles_agree_on_another, _same_primary, prepare=_another_primary, budget="1 second"
    ),
    simple(
        routing.service_follows, _led_to(STANDBY), prepare=_led_to(PRIMARY), budget="0.1 seconds"
    ),
    simple(
        routing.pgbouncer_follows, _led_to(STANDBY), prepare=_led_to(PRIMARY), budget="0.1 seconds"
    ),
    simple(
        routing.replicas_service_follows,
        _led_to(PRIMARY),
        prepare=_led_to(STANDBY),
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
        rows=_rows,
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
            w.stage, ReadBack(_finding("read-your-writes", getattr(w, "outcome", "holds")))
        ),
        lambda w: setattr(w, "outcome", "violated"),
    ),
    simple(
        replication.says_none_synchronous,
        _not_degraded,
        prepare=_degraded,
    ),
    simple(
        replication.none_acknowledged,
        _set("silent", _finding("strict-mode-blocks", "violated")),
        time="1 second",
    ),
    simple(
        replication.acknowledged_after_return,
        _set("again", [_finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(replication.most_advanced_promoted, _held_back(PRIMARY), prepare=_held_back(REPLICA)),
    simple(replication.not_raised, lambda w: w.change_server(PRIMARY, timeline=2)),
    # failover
    simple(
        failover.acknowledged_again,
        _set("again", [_finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(failover.another_leads, _same_primary, prepare=_another_primary, budget="1 second"),
    simple(
        failover.running_and_streaming,
        lambda w: w.change_server(REPLICA, receiver=None),
        count=3,
        budget="1 second",
    ),
    simple(
        failover.streaming_after_thaw,
        lambda w: w.change_server(REPLICA, receiver=None),
        count=3,
        budget="1 second",
    ),
    simple(failover.timeline_as_recorded, _promotion),
    simple(failover.comes_back, _same_primary, prepare=_another_primary, budget="1 second"),
    simple(
        failover.acknowledged_directly,
        _set("again", [_finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(
        failover.new_sessions_write,
        _set("again", [_finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(
        failover.acknowledged_from_now,
        _set("again", [_finding("acknowledged-again-in-time", "violated")]),
        budget="1 second",
    ),
    simple(
        failover.writes_go_on,
        _wrote(*_steadily()[:2]),
        prepare=_wrote(*_steadily()),
        time="0.4 seconds",
        pause="0.2 seconds",
    ),
    simple(
        failover.old_sessions_go_on,
        _wrote(*_steadily()),
        prepare=_wrote(*_steadily(session=PINNED)),
        time="0.4 seconds",
        pause="0.2 seconds",
    ),
    simple(
        failover.writes_stop,
        _wrote(_write(1), _write(5)),
        prepare=_wrote(_write(1), _write(5, outcome=FAIL)),
        budget="0.1 seconds",
    ),
    simple(
        failover.old_primary_left,
        _wrote(_write(1), _write(2, timeline=2), _write(4)),
        prepare=_wrote(_write(1), _write(2, timeline=2)),
        budget="1 second",
    ),
    simple(failover.rejoined, _rejoined(1, 2, 3), prepare=_rejoined(1, 3)),
    simple(
        failover.isolation_kept,
        _transactions(8, 16, 99),
        prepare=_transactions(8, 16),
        level="serializable",
    ),
    simple(failover.nothing_lost, _judged("no-acknowledged-write-lost"), prepare=_judged()),
    simple(failover.only_the_end_is_lost, _judged("no-acknowledged-write-lost"), prepare=_judged()),
    simple(failover.one_primary_at_a_time, _judged(_PRIMARIES[1]), prepare=_judged()),
)

# Measured and told, never judged: it can only be inconclusive.
MEASURED = (
    simple(
        replication.exposure_reported,
        _never_alone,
        prepare=_alone,
    ),
    simple(failover.outages_reported, _never_alone, prepare=_fault_marks),
    simple(replication.staleness_reported, _never_alone, prepare=_replica_reads),
)
