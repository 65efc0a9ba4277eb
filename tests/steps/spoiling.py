"""How a step is shown red: a case, and the ways in which a healthy world can be spoiled."""

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
from pytest_pgo_eks.scenario.access import Attempt
from pytest_pgo_eks.scenario.application import Connected
from pytest_pgo_eks.scenario.clients import READS
from pytest_pgo_eks.scenario.recovery import _PRIMARIES
from pytest_pgo_eks.scenario.routes import Arrival
from pytest_pgo_eks.scenario.rows import Rows
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


def change_object(kind: str, change: Callable[[dict[str, Any]], object], index: int = 0) -> Act:
    return lambda world: change(world.kube.objects[kind][index])


def status(world: World) -> Any:
    return world.kube.objects["PostgresCluster"][0]["status"]


def connected(
    row: tuple[str | None, ...] | None = None, **changes: Any
) -> Callable[[World], Connected]:
    good = ("testuser", "t", "f", "off", "10.42.0.20")
    return lambda world: Connected(
        cast(Any, world).session if hasattr(world, "session") else answer(row or good, **changes),
        "testuser",
        pooled=False,
    )


def session(*row: str | None, **changes: Any) -> Act:
    def spoil(world: World) -> None:
        cast(Any, world).session = answer(row, **changes)

    return spoil


def address_of(world: World, pod: str) -> str:
    instance = world.seen.instance(pod)
    assert instance is not None
    return str(instance.ip)


def failing(code: str) -> Callable[[World], Connected]:
    def make(world: World) -> Connected:
        session = getattr(world, "session", None) or refusal(code)
        return Connected(session, "testuser", pooled=False)

    return make


def backup(world: World, *, kind: str = "full", start: str = "000000010000000000000002") -> None:
    import json

    from steps.world import shell

    told = [
        {
            "backup": [{"type": kind, "label": "1F", "error": False, "archive": {"start": start}}],
            "archive": [{"min": "000000010000000000000002", "max": "000000010000000000000009"}],
        }
    ]
    world.kube.shell = shell(json.dumps(told))


def rows(world: World) -> Rows:
    rows = Rows(world.stage)
    rows._given = rows._states()
    rows.refusal = refusal("25006", "read-only", stage="statement")
    rows._many = 2000
    if hasattr(world, "meddle"):
        cast(Any, world).meddle(rows)
    return rows


def meddle(change: Callable[[Rows], object]) -> Act:
    def spoil(world: World) -> None:
        cast(Any, world).meddle = change

    return spoil


def spoil_row(world: World) -> None:
    def change(rows: Rows) -> None:
        world.rows[STANDBY] = {"rows": "1 trace", "tables": "", "last": 1}

    cast(Any, world).meddle = change


def arrivals(*wrong: Arrival) -> Callable[[World], list[Arrival]]:
    def make(world: World) -> list[Arrival]:
        return cast(Any, world).arrivals if hasattr(world, "arrivals") else []

    return make


def arrive(make: Callable[[World], list[Arrival]]) -> Act:
    def prepare(world: World) -> None:
        cast(Any, world).arrivals = make(world)

    return prepare


def led_to(pod: str) -> Act:
    """Every connection arrives at one pod."""

    def prepare(world: World) -> None:
        recovery = "f" if pod == PRIMARY else "t"
        world.answers_with(answer((address_of(world, pod), recovery)))

    return prepare


def finding(rule: str, outcome: Outcome) -> Finding:
    return Finding(rule, outcome, f"{rule} {outcome}")


def judged(*broken: str) -> Act:
    rules = ("no-acknowledged-write-lost", *_PRIMARIES)

    def prepare(world: World) -> None:
        world.clients.findings = [
            finding(rule, "violated" if rule in broken else "holds") for rule in rules
        ]

    return prepare


def give(name: str, value: Any) -> Act:
    return lambda world: setattr(world.clients, name, value)


def promotion(world: World) -> None:
    seen = world.seen
    more = (*seen.history, Promotion(1, 1, "x", None, PRIMARY))
    world.observation = dataclasses.replace(seen, history=more)


def old_started(world: World) -> None:
    from datetime import timedelta

    for pod, one in world.servers.items():
        world.change_server(pod, started=one.started + timedelta(minutes=1))


def degraded(world: World) -> None:
    world.change_server(PRIMARY, synchronous_standby_names="", senders=())
    seen = world.seen
    assert seen.sync is not None
    world.observation = dataclasses.replace(seen, sync=dataclasses.replace(seen.sync, standbys=()))


def not_degraded(world: World) -> None:
    world.observation = None


def alone(world: World) -> None:
    """A history in which writes were acknowledged after the standbys went."""
    op = {
        "op": 1, "kind": WRITE, "outcome": OK, "session": PACED, "path": 1, "invoke": 20, "done": 30,
    }  # fmt: skip
    mark = {"kind": "mark", "name": f"fault injected: {StandbyStopped.kind} x", "at": 10}
    world.clients.history = History(ops=Table.rows("ops", [op]), events=(mark,), paths={1: "p"})


def never_alone(world: World) -> None:
    world.clients.history = History(ops=Table.rows("ops", []), events=(), paths={1: "p"})


def another_primary(world: World) -> None:
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


def same_primary(world: World) -> None:
    world.stage.before = world.seen


def no_leader_label(world: World) -> None:
    world.pod(PRIMARY)["metadata"]["labels"][ROLE] = "replica"


def attempts(*answers: Any) -> Callable[[World], list[Attempt]]:
    def make(world: World) -> list[Attempt]:
        found = getattr(world, "attempts", None) or answers
        return [Attempt(f"server {n}", one) for n, one in enumerate(found)]

    return make


def let_in(world: World) -> None:
    cast(Any, world).attempts = [refusal("28P01"), answer(("postgres", "t", "f"))]


def created_lately(world: World) -> None:
    created = "2026-11-23T10:00:00Z"
    world.kube.objects["PostgresCluster"][0]["metadata"]["creationTimestamp"] = created
    for pod in world.kube.objects["Pod"]:
        for condition in pod["status"]["conditions"]:
            condition["lastTransitionTime"] = "2026-11-23T10:00:30Z"


SECOND = 1_000_000_000


def write(at_s: float, **changes: int) -> dict[str, int]:
    """One acknowledged write that took a hundredth of a second."""
    at = int(at_s * SECOND)
    return {
        "op": changes.get("op", at // 1000 + 1), "kind": WRITE, "outcome": OK, "session": PACED,
        "path": 1, "key": -1, "timeline": 1, "invoke": at, "done": at + SECOND // 100,
    } | changes  # fmt: skip


def wrote(*ops: dict[str, int], events: tuple[dict[str, Any], ...] = (), **more: Any) -> Act:
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


def demoted_reads(behind: int, *at_s: float) -> Act:
    """Reads of an old primary that lack ``behind`` writes; another acknowledges from 2 s on."""
    writes = [write(1, op=1, key=0, value=1), write(2, op=2, key=0, value=9, timeline=2)]
    reads = [
        write(at, op=10 + number, kind=READ, session=PINNED, path=2)
        for number, at in enumerate(at_s)
    ]
    cells = [{"op": one["op"], "key": 0, "value": 9 - behind} for one in reads]
    prepare = wrote(*writes, *reads, cells=Table.rows("cells", cells))

    def named(world: World) -> None:
        prepare(world)
        history = world.clients.history
        world.clients.history = dataclasses.replace(history, paths={**history.paths, 2: READS})

    return named


def steadily(**changes: int) -> list[dict[str, int]]:
    return [write(number / 20, **changes) for number in range(9)]


def rejoined(*old_rows: int, log: str = "INFO: running pg_rewind from x in progress") -> Act:
    """The old primary follows now; what it alone acknowledged (op 2) was read back as told."""

    def prepare(world: World) -> None:
        another_primary(world)
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
        ops = [write(0, op=1), write(1, op=2), write(2, op=3, timeline=2)]
        rows = [{"op": op, "source": 1} for op in (1, 3)]
        rows += [{"op": op, "source": 2} for op in old_rows]
        wrote(*ops, events=sources, rows=Table.rows("rows", rows))(world)

    return prepare


def held_back(pod: str) -> Act:
    """A replica that was held back before somebody else was promoted."""

    def prepare(world: World) -> None:
        another_primary(world)
        proof = Proof("held back", {"behind_bytes": 4096})
        world.stage.bench.injected[:] = [Injected(ReplicaHeldBack.kind, pod, proof, 0, 0, 0)]

    return prepare


def transactions(*seen: int) -> Act:
    """One transaction appended 8, then a later one 16, and a third one read this."""

    def prepare(world: World) -> None:
        ops = [write(at, op=at + 1, kind=TXN, key=0) for at in range(3)]
        micro = [
            {"op": 1, "key": 1, "value": 8, "kind": 0, "count": -1},
            {"op": 2, "key": 1, "value": 16, "kind": 0, "count": -1, "at": 1},
            {"op": 3, "key": 1, "kind": 1, "count": len(seen), "at": 2},
        ]
        wrote(
            *ops,
            micro=Table.rows("micro", micro),
            elements=Table.rows("elements", [{"value": one} for one in seen]),
        )(world)

    return prepare


def fault_marks(world: World) -> None:
    scouts = [write(number / 10, session=SCOUT) for number in (1, 2, 3, 4, 40, 41, 42, 43)]
    mark = {"kind": "mark", "name": "fault begins: x", "at": SECOND // 2}
    wrote(*scouts, events=(mark,))(world)


def replica_reads(world: World) -> None:
    reads = [
        {"op": 7, "kind": READ, "outcome": OK, "path": 1, "recovery": 1, "key": -1, "invoke": SECOND, "done": SECOND + 9}
    ]  # fmt: skip
    cells = [{"op": 7, "key": 0, "value": 3}]
    wrote(*reads, cells=Table.rows("cells", cells))(world)


def stale_replica_read(at_s: float) -> Act:
    """A read of a replica that lacks what was acknowledged at 1 s."""
    written = write(0.99, op=1, key=0, value=3)
    read = write(at_s, op=7, kind=READ, path=1, timeline=0, recovery=1)
    return wrote(written, read, cells=Table.rows("cells", [{"op": 7, "key": 0, "value": 2}]))


LETS_IN = ("testuser", "f", "f", "off", "10.42.0.1")
