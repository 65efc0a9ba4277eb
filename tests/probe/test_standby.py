"""A synchronous pair: every trap of the wait for a standby, then a failover, judged without alarm."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import local_postgres
import numpy as np
import pytest
from local_postgres import Server

from pytest_pgo_eks.history.exposure import check_exposure, reads_of_synchronous_standby
from pytest_pgo_eks.history.history import INFO, OK, PINNED, UNSAFE, WRITE, History
from pytest_pgo_eks.history.judge import judge, measure
from pytest_pgo_eks.history.outage import outages, within
from pytest_pgo_eks.history.reads import check_read_your_writes
from pytest_pgo_eks.history.timeline import facts, svg
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login, MonitorSpec, PathSpec
from pytest_pgo_eks.secrets import Secret


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    found = local_postgres.binaries()
    if found is None:
        pytest.skip("no PostgreSQL server programs on this machine")
    with local_postgres.server(found) as primary:
        standby = primary.standby("s1")
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = 's1'")
        primary.reload()
        yield primary, standby


def _login(*servers: Server, **rest: str) -> Login:
    hosts = tuple(("127.0.0.1", s.port) for s in servers)
    secret = Secret("app-secret")
    return Login(hosts, user="app", database="app", password=secret, tls="disable", **rest)  # type: ignore[arg-type]


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


def test_traps_then_failover(
    pair: tuple[Server, Server], installed: Installed, tmp_path: Path
) -> None:
    primary, standby = pair
    installed.prepare(_login(primary), counters=16)
    paths = [
        PathSpec(
            "primary",
            _login(primary),
            workers=3,
            pinned=1,
            deadline_s=10,
            scout_every_s=0.05,
            scout_deadline_s=10,
        ),
        PathSpec(
            "multi-host",
            _login(primary, standby, attributes="read-write"),
            workers=2,
            deadline_s=10,
        ),
        PathSpec("standby", _login(standby), reads=True, workers=1, pace_s=0.01),
    ]
    superuser = replace(_login(primary), user="open", password=None)
    monitors = [MonitorSpec("primary", superuser, 0.05)]
    with installed.start(paths, tmp_path / "h.jsonl.gz", monitors=monitors) as probe:
        probe.wait_for_ack("primary", probe.mark("begin"), 10)
        (receiver,) = standby.children("walreceiver")
        os.kill(receiver, signal.SIGSTOP)
        for _ in range(200):
            if int(primary.sql(WAITING)) > 6:
                break
            probe.stream.wait(len(probe.stream.lines), 0.05)
        primary.sql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        )
        for _ in range(200):
            if (History.of(probe.lines()).ops.outcome == UNSAFE).sum() > 5:
                break
            probe.stream.wait(len(probe.stream.lines), 0.05)
        primary.stop("immediate")
        os.kill(receiver, signal.SIGKILL)
        promoted = probe.mark("promote")
        standby.promote()
        probe.wait_for_ack("multi-host", promoted, 15)
        probe.quiet()
        told = probe.read_back("s1", _login(standby))
    assert told["timeline"] == 2
    history = History.load(tmp_path / "h.jsonl.gz")
    ops = history.ops
    writes = ops.kind == WRITE
    unsafe = np.flatnonzero(writes & (ops.outcome == UNSAFE))
    gone = ~np.isin(ops.op[unsafe], history.rows.op)
    assert gone.sum() > 3, "cancelled waits must be lost here, or the trap did not spring"
    assert (writes & (ops.outcome == INFO)).any()
    assert set(np.unique(ops.timeline[writes & (ops.outcome == OK)])) == {1, 2}
    findings = judge(history, "sync")
    assert {f.outcome for f in findings} == {"holds"}, "\n".join(map(str, findings))
    (pinned,) = outages(history, "primary", session=PINNED)
    assert not pinned.over
    # However quickly the standby was promoted, it took longer than this.
    assert within(history, [pinned], 0.01, "primary").outcome == "violated"
    assert {f.rule for f in measure(history)} >= {"replica-staleness", "long-fork"}
    picture = svg(history, "traps & failover")
    assert "timeline 2" in picture
    assert "<script" not in picture
    assert {s["timeline"] for s in facts(history)["servers"]} == {1, 2}


def test_remote_apply_shows_every_acknowledged_write(
    pair: tuple[Server, Server], installed: Installed, tmp_path: Path
) -> None:
    primary, standby = pair
    primary.sql("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
    primary.reload()
    installed.prepare(_login(primary), counters=8)
    paths = [
        PathSpec("primary", _login(primary), workers=3, pace_s=0.002),
        PathSpec("s1", _login(standby), reads=True, workers=3, pace_s=0.002),
    ]
    superuser = replace(_login(primary), user="open", password=None)
    monitors = [MonitorSpec("primary", superuser, 0.05)]
    with installed.start(paths, tmp_path / "h.jsonl.gz", monitors=monitors) as probe:
        probe.wait_for_ack("primary", probe.mark("begin"), 10)
        for _ in range(30):
            probe.stream.wait(len(probe.stream.lines), 0.2)
        primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
        primary.reload()
        alone = probe.mark("no standby is waited for")
        probe.wait_for_ack("primary", alone, 10)
        for _ in range(5):
            probe.stream.wait(len(probe.stream.lines), 0.2)
        probe.quiet()
        probe.read_back("primary", _login(primary))
    history = History.load(tmp_path / "h.jsonl.gz")
    which = reads_of_synchronous_standby(history, "s1", "s1")
    assert len(which) > 50
    assert (history.ops.done[which] < alone + 100_000_000).all()
    assert check_read_your_writes(history, which, promised=True).outcome == "holds"
    assert set(np.unique(history.ops.level[history.ops.kind == WRITE])) == {5}
    exposed = check_exposure(history, strict=True)
    assert exposed.outcome == "violated"
    assert check_exposure(history, strict=False).outcome == "expected"
    judged = {f.rule: f.outcome for f in judge(history, "sync", "remote_apply")}
    assert judged.pop("no-unreplicated-acknowledgement") == "expected"
    assert judged["read-your-writes-on-the-synchronous-standby"] == "holds"
    assert set(judged.values()) == {"holds"}
