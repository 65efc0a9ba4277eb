"""Faults that users add by the hook ``pytest_pgo_faults``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_bdd import parsers, when

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.faults.bench import Fault
from pytest_pgo_eks.pgo import PostgresCluster
from pytest_pgo_eks.scenario.stage import Stage
from pytest_pgo_eks.settings import nearest


@when(parsers.parse('the fault "{name}" is injected'))
def named_fault(
    stage: Stage, pgo_faults: Mapping[str, Callable[[PostgresCluster], Fault]], name: str
) -> None:
    """A fault of your own, by its name in the hook ``pytest_pgo_faults``: injected and proven."""
    if name not in pgo_faults:
        raise UsageProblem(f"no fault is called {name!r}{nearest(name, pgo_faults)}")
    stage.bench.inject(pgo_faults[name](stage.postgres))
