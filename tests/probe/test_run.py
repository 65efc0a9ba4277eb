"""A whole run against a real server: start, mark, read back, stop, judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from local_postgres import Server

from pytest_pgo_eks.history.history import CONNECT, OK, SCOUT, WRITE, History
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.history.outage import outages
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login, PathSpec


@pytest.fixture
def prepared(installed: Installed, login: Login) -> Installed:
    installed.prepare(login, counters=16)
    return installed


def test_a_quiet_run_is_judged_clean(prepared: Installed, login: Login, tmp_path: Path) -> None:
    paths = [
        PathSpec("primary", login, workers=3, pace_s=0.005, scout_every_s=0.02, pinned=1),
        PathSpec("reads", login, reads=True, workers=1, pace_s=0.02),
    ]
    with prepared.start(paths, tmp_path / "h.jsonl.gz", settings={"mode": "sync"}) as probe:
        begin = probe.mark("begin")
        at = probe.wait_for_ack("primary", begin, 10)
        assert at > begin
        probe.stream.wait(12, 5)
        probe.quiet()
        told = probe.read_back("primary", login)
    assert told["rows"] > 0
    history = History.load(tmp_path / "h.jsonl.gz")
    assert history.end == "stopped"
    assert history.is_complete
    assert history.settings == {"mode": "sync"}
    findings = judge(history, "sync")
    assert {f.outcome for f in findings} == {"holds"}, "\n".join(map(str, findings))
    ops = history.ops
    written = (ops.kind == WRITE) & (ops.outcome == OK)
    assert np.all(ops.timeline[written] == 1)
    assert np.all(ops.lsn[written] > 0)
    assert (ops.session[written] == SCOUT).sum() > 10
    assert len(history.cells) > 0
    assert {history.server(s) for s in np.unique(ops.server[written])} == {
        f"127.0.0.1:{login.hosts[0][1]}"
    }
    assert not (ops.kind[ops.outcome != OK] == WRITE).any()


def test_a_restart_is_an_outage_and_loses_nothing(
    prepared: Installed, login: Login, postgres: Server, tmp_path: Path
) -> None:
    paths = [PathSpec("primary", login, workers=3, scout_every_s=0.01, pinned=1)]
    with prepared.start(paths, tmp_path / "h.jsonl.gz") as probe:
        probe.wait_for_ack("primary", probe.mark("begin"), 10)
        before = probe.mark("fault begins: crash")
        postgres.stop("immediate")
        down = probe.mark("down")
        postgres.start()
        up = probe.mark("up")
        probe.wait_for_ack("primary", up, 10)
        probe.stream.wait(len(probe.stream.lines) + 5, 2)
        probe.quiet()
        probe.read_back("primary", login)
    history = History.load(tmp_path / "h.jsonl.gz")
    findings = judge(history, "async")
    assert {f.outcome for f in findings} == {"holds"}, "\n".join(map(str, findings))
    # A busy machine is silent now and then, too: the one that is meant has the crash in it.
    (outage,) = [o for o in outages(history, "primary") if o.began[0] <= down <= o.ended[1]]
    assert outage.over
    assert outage.began[0] >= before - 50_000_000
    assert outage.began[1] <= down
    assert outage.ended[1] >= down
    assert outage.lower_s <= outage.upper_s
    assert [e["kind"] for e in history.events].count("pinned-ended") == 1
    assert len(np.unique(history.ops.server[history.ops.server > 0])) == 2
    assert ((history.ops.kind == CONNECT) & (history.ops.outcome != OK)).any()


def test_what_is_acknowledged_is_read_at_once_by_another_session(
    installed: Installed, login: Login
) -> None:
    installed.ask(login, "CREATE TABLE relayed (n int PRIMARY KEY)")
    pairs = [
        (
            f"INSERT INTO relayed VALUES ({n})",
            f"SELECT count(*), max(n) FROM relayed WHERE n <= {n}",
        )
        for n in range(50)
    ]
    pairs.append(("INSERT INTO relayed VALUES (7)", "SELECT 1"))
    pairs.append(("DO $$ BEGIN RAISE WARNING 'cut short'; END $$", "SELECT 1"))
    pairs.append(("SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 1"))
    pairs.append(("INSERT INTO relayed VALUES (99)", "SELECT count(*) FROM relayed"))
    told = installed.relay(login, login, pairs, deadline_s=30)
    installed.ask(login, "DROP TABLE relayed")
    assert [read.rows for _, read in told[:50] if read] == [
        ((f"{n + 1}", f"{n}"),) for n in range(50)
    ]
    twice, warned, lost, again = told[50:]
    assert (twice[0].code, twice[1]) == ("23505", None)
    assert warned[0].ok
    assert warned[0].notices
    assert warned[1] is None, "a write with a warning is not plainly acknowledged"
    assert not lost[0].ok
    assert lost[1] is None
    assert again[1] is not None
    assert again[1].rows == (("51",),)
