"""PgBouncer's log-in retry comes on top of a budget, unless nobody's log-in may fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.history.history import History, Table
from pytest_pgo_eks.scenario import clients
from pytest_pgo_eks.scenario.clients import LOGIN_RETRY_S, POOLED, PRIMARY, Clients


@pytest.mark.parametrize(("asked_s", "more_s"), [(None, LOGIN_RETRY_S), (0.0, 0.0)])
def test_each_path_has_its_budget(
    monkeypatch: pytest.MonkeyPatch, asked_s: float | None, more_s: float
) -> None:
    judged: dict[str, float] = {}

    def in_time(
        _history: History, path: str, _since: int, within_s: float, _sessions: Sequence[int] = ()
    ) -> Finding:
        judged[path] = within_s
        return Finding("acknowledged-again-in-time", "holds", path)

    monkeypatch.setattr(clients, "in_time", in_time)
    monkeypatch.setattr(clients, "calm", lambda *_: True)
    targets: Any = type("Targets", (), {"has_pgbouncer": True})
    one = Clients(cast(Any, None), targets, "sync", Path("unused"))
    one._disturbed = (0, 0.0)
    one._history = History(ops=Table.rows("ops", []), paths={})
    one.acknowledged_again(1.0, login_retry_s=asked_s)
    assert judged == {PRIMARY: 1.0, POOLED: 1.0 + more_s}
