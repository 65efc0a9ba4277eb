"""In a long hang the probe leaves few backends behind, and still sees the end at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_postgres import Server

from pytest_pgo_eks.history.history import OK, SCOUT, WRITE, History
from pytest_pgo_eks.history.outage import outages
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login, PathSpec

_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
    "AND wait_event_type IN ('IPC', 'Lock')"
)


@pytest.fixture
def server(postgres: Server, installed: Installed, login: Login) -> Iterator[Server]:
    installed.prepare(login, counters=16)
    yield postgres
    postgres.sql("ALTER SYSTEM RESET synchronous_standby_names")
    postgres.reload()


def test_a_long_hang_does_not_use_up_the_connections(
    server: Server, installed: Installed, login: Login, tmp_path: Path
) -> None:
    path = PathSpec(
        "primary", login, workers=2, deadline_s=0.2, scout_every_s=0.02, scout_deadline_s=0.2
    )
    with installed.start([path], tmp_path / "h.jsonl.gz") as probe:
        probe.wait_for_ack("primary", probe.mark("begin"), 10)
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
        server.reload()
        most = 0
        for _ in range(16):
            probe.stream.wait(len(probe.stream.lines) + 2, 0.25)
            most = max(most, int(server.sql(_WAITING)))
        server.sql("ALTER SYSTEM RESET synchronous_standby_names")
        before = probe.mark("released")
        server.reload()
        released = probe.wait_for_ack("primary", 0, 10)
        assert released
        for _ in range(8):
            probe.stream.wait(len(probe.stream.lines) + 2, 0.25)
    # Without a bound: 50 a second and 2 workers every 0.2 s for four seconds, 240 in all.
    assert 8 <= most <= 60
    history = History.load(tmp_path / "h.jsonl.gz")
    ops = history.ops
    longest = max(outages(history, "primary"), key=lambda o: o.upper_s)
    assert longest.over
    assert longest.upper_s > 3
    # Nobody who waits a second or two between tries could tell the end to half of it.
    assert longest.upper_s - longest.lower_s < longest.upper_s / 2
    first = longest.first_ack
    assert first is not None
    assert ops.done[first] - before < 5_000_000_000
    late = (ops.kind == WRITE) & (ops.session == SCOUT) & (ops.outcome == OK)
    assert ((ops.done - ops.invoke)[late] > 1_000_000_000).sum() >= 4, "sentinels saw the end"
