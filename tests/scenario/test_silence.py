"""Writes that have to go on: a server that is silent, and a probe that is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_pgo_eks.history.history import FAIL, OK, PACED, WRITE, History, Table
from pytest_pgo_eks.scenario.silence import writes_go_on
from pytest_pgo_eks.scenario.stage import Stage

SECOND = 10**9


def stage(*ops: tuple[float, int]) -> Stage:
    """Clients that wrote at these seconds, with these outcomes."""
    rows: list[dict[str, Any]] = [
        {
            "op": number,
            "kind": WRITE,
            "outcome": outcome,
            "session": PACED,
            "path": 1,
            "invoke": int(at_s * SECOND),
            "done": int(at_s * SECOND) + SECOND // 100,
        }
        for number, (at_s, outcome) in enumerate(ops, 1)
    ]
    history = History(ops=Table.rows("ops", rows), paths={1: "the primary Service"})
    clients = SimpleNamespace(mark=lambda _name: 0, so_far=lambda: history)
    return cast("Stage", SimpleNamespace(clients=clients))


@pytest.mark.parametrize(
    ("between", "outcome"),
    [
        ([(at / 10, OK) for at in range(1, 60)], "holds"),
        ([(at / 10, FAIL) for at in range(1, 60)], "violated"),
        # In a long hang a new attempt every second is all there is.
        ([(1.0, FAIL), (2.0, FAIL), (3.0, FAIL), (4.0, FAIL), (5.0, FAIL)], "violated"),
        ([(1.0, OK), (5.5, OK)], "unknown"),
        ([(1.0, OK), (3.5, FAIL), (5.5, OK)], "violated"),
    ],
)
def test_a_silence_counts_only_while_somebody_tries(
    between: list[tuple[float, int]], outcome: str
) -> None:
    found = writes_go_on(stage((0.0, OK), *between, (6.0, OK)), 0.01, 2.0)
    assert found.outcome == "holds", "nothing was silent in that time"
    longer = stage((0.0, OK), *between, (6.0, OK))
    judged = writes_go_on_for(longer, 6.0)
    assert judged.outcome == outcome, judged.sentence


def writes_go_on_for(given: Stage, for_s: float) -> Any:
    """Judge without waiting: the history is complete, so only the clock has to say so."""
    with pytest.MonkeyPatch.context() as patch:
        began = iter([0.0])
        patch.setattr(
            "pytest_pgo_eks.scenario.silence.time.monotonic", lambda: next(began, for_s + 1)
        )
        return writes_go_on(given, for_s, 2.0)
