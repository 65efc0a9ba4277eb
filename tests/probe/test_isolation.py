"""List-append runs on a real server show what each level allows, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_pgo_eks.history.history import FAIL, OK, TXN, History
from pytest_pgo_eks.history.isolation import FORBIDDEN, Isolation, check_isolation
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login, PathSpec


@pytest.mark.parametrize("level", FORBIDDEN)
def test_postgresql_keeps_its_level(
    level: Isolation, installed: Installed, login: Login, tmp_path: Path
) -> None:
    installed.prepare(login)
    path = PathSpec("primary", login, appenders=6, isolation=level, append_pace_s=0.0)
    with installed.start([path], tmp_path / "h.jsonl.gz") as probe:
        for _ in range(60):
            probe.stream.wait(len(probe.stream.lines), 0.2)
            if (History.of(probe.lines()).ops.kind == TXN).sum() > 1500:
                break
        probe.quiet()
    history = History.load(tmp_path / "h.jsonl.gz")
    txns = history.ops.kind == TXN
    assert (txns & (history.ops.outcome == OK)).sum() > 500
    codes = {
        history.word(c) for c in np.unique(history.ops.code[txns & (history.ops.outcome == FAIL)])
    }
    assert codes <= {"40001", "40P01", "stopped"}
    assert ("40001" in codes) == (level != "read committed")
    findings = check_isolation(history, level)
    assert [f for f in judge(history, "sync") if f.rule.startswith("isolation")] == findings
    assert findings[0].outcome == "holds", "\n".join(map(str, findings))
    assert not [f for f in findings if f.outcome == "violated"]
    seen = {f.rule.rpartition(": ")[2] for f in findings[1:]}
    # What is allowed does happen with such a load, so the checker is not blind.
    if level == "read committed":
        assert "G-single" in seen
    if level == "repeatable read":
        assert seen == {"G2-item"}
    if level == "serializable":
        assert not seen
