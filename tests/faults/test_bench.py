from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pytest_pgo_eks.errors import ExecProblem, FaultNotProven, WaitTimeout
from pytest_pgo_eks.faults.bench import Bench, Injected, Proof


@dataclass
class Recorded:
    """A fault that records its calls and fails where it is told to."""

    kind: str
    calls: list[str]
    fail_at: str = ""
    target: str = "pod-0"
    proof: Proof = field(default_factory=lambda: Proof("seen", {"pid": 7}))

    def inject(self) -> None:
        self._call("inject")

    def prove(self) -> Proof:
        self._call("prove")
        return self.proof

    def undo(self) -> None:
        self._call("undo")

    def _call(self, name: str) -> None:
        self.calls.append(f"{name} {self.kind}")
        if self.fail_at == name:
            if name == "prove":
                raise WaitTimeout("nothing happened")
            raise ExecProblem("no such container")


def test_a_proven_fault_is_recorded_and_marked_before_and_after() -> None:
    calls: list[str] = []
    records: list[Injected] = []
    marks: list[str] = []
    bench = Bench(records.append, marks.append)
    bench.inject(Recorded("a", calls))
    assert [r.proof.numbers["pid"] for r in records] == [7]
    assert records[0].began <= records[0].injected <= records[0].proven
    assert marks == ["fault begins: a pod-0", "fault injected: a pod-0"]


def test_a_fault_without_effect_is_an_error_and_is_undone_all_the_same() -> None:
    calls: list[str] = []
    bench = Bench()
    with pytest.raises(FaultNotProven, match="no visible effect"):
        bench.inject(Recorded("a", calls, fail_at="prove"))
    assert not bench.injected
    bench.undo_all()
    assert calls == ["inject a", "prove a", "undo a"]


def test_a_fault_that_failed_half_way_is_undone() -> None:
    calls: list[str] = []
    bench = Bench()
    with pytest.raises(ExecProblem):
        bench.inject(Recorded("a", calls, fail_at="inject"))
    bench.undo_all()
    assert calls == ["inject a", "undo a"]


def test_undo_runs_backwards_and_a_failing_one_does_not_stop_the_others() -> None:
    calls: list[str] = []
    bench = Bench()
    for kind, fail_at in (("a", ""), ("b", "undo"), ("c", "")):
        bench.inject(Recorded(kind, calls, fail_at))
    calls.clear()
    with pytest.raises(ExecProblem):
        bench.undo_all()
    assert calls == ["undo c", "undo b", "undo a"]
    bench.undo_all()
    assert len(calls) == 3, "each undo runs once"


def test_one_fault_can_be_undone_early_by_its_kind() -> None:
    calls: list[str] = []
    bench = Bench()
    bench.inject(Recorded("a", calls))
    bench.inject(Recorded("b", calls))
    bench.undo("a")
    bench.undo_all()
    assert calls[-2:] == ["undo a", "undo b"]
    with pytest.raises(LookupError):
        bench.undo("a")
