"""The policy that a run was told to meet by ``--pgo-gate``: refused early, decided at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.gate.catalogue import (
    Listed,
    combined,
    scenarios_below,
    shipped_scenarios,
)
from pytest_pgo_eks.report.gate.deciding import decide
from pytest_pgo_eks.report.gate.decision import FILE
from pytest_pgo_eks.report.gate.policy import Policy, load, refuse_unknown
from pytest_pgo_eks.report.store import kept_at
from pytest_pgo_eks.report.views import written

# More earlier runs than any policy compares with.
_EARLIER = 200


class Gate:
    """Holds the policy, what it may name, and the runs that it compares with.

    :raises UsageProblem: no such policy, a misspelt one, one that names what does not exist, or a
        baseline that cannot be read: all of it before anything is created.
    """

    def __init__(self, config: pytest.Config, place: str, provider: str) -> None:
        try:
            self._policy: Policy = load(place)
            self._known: list[Listed] = list(scenarios_below(_arguments(config)))
            refuse_unknown(self._policy, combined(shipped_scenarios(), self._known))
            baseline = self._policy.baseline
            self._earlier = kept_at(baseline, newest=_EARLIER) if baseline else None
        except UsageProblem as problem:
            raise UsageProblem(f"--pgo-gate: {problem}") from None
        self._provider = provider

    def announcement(self) -> Iterator[str]:
        """Yield what is already certain: a run on this provider cannot meet the policy."""
        evidence = self._policy.value["evidence"]
        if self._provider not in evidence["providers"]:
            wanted = ", ".join(evidence["providers"])
            yield f"policy {self._policy.name} takes no runs on {self._provider}, only on {wanted}"

    def decide(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the decision about a finished run."""
        return decide(
            self._policy,
            [document],
            today=datetime.now(UTC).date(),
            earlier=self._earlier.runs if self._earlier else None,
            known=self._known,
        )


def write_decision(decision: Mapping[str, Any], run_dir: Path) -> None:
    """Write ``gate.json`` into the run's folder."""
    written(run_dir / FILE, json.dumps(decision, indent=1, ensure_ascii=False) + "\n")


def _arguments(config: pytest.Config) -> Iterator[Path]:
    for argument in config.args:
        yield config.invocation_params.dir / argument.partition("::")[0]
