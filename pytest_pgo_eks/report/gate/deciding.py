"""A policy applied to runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from pytest_pgo_eks.report.gate.catalogue import Listed, combined, shipped_scenarios, told_by
from pytest_pgo_eks.report.gate.decision import Reason, Ruling, as_json
from pytest_pgo_eks.report.gate.policy import Policy, refuse_unknown
from pytest_pgo_eks.report.gate.regression import check_regression
from pytest_pgo_eks.report.gate.rules import check_budgets, check_deviations, check_evidence
from pytest_pgo_eks.report.gate.scenarios import check_scenarios
from pytest_pgo_eks.secrets import masked

Run = Mapping[str, Any]
# Runs are repeats of each other only if they judged the same thing.
_SUBJECT = ("provider", "kubernetes", "pgo", "postgresql", "manifest_sha256")


def decide(
    policy: Policy,
    runs: Sequence[Run],
    *,
    today: date,
    earlier: Sequence[Run] | None = None,
    known: Iterable[Listed] = (),
    unverified: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the decision (``gate.json``) about ``runs``, which may be of several subjects.

    Each subject has to meet the policy by its own runs. ``known`` are scenarios beside the shipped
    ones, ``earlier`` the runs of the baseline (None: there is none), ``unverified`` says of runs why
    their verdicts do not follow from their evidence.

    :raises UsageProblem: the policy names what does not exist.
    """
    every = combined(shipped_scenarios(), known, *map(told_by, runs))
    refuse_unknown(policy, every)
    cells: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        cells.setdefault(tuple(str(run["subject"][key]) for key in _SUBJECT), []).append(run)
    whole = Ruling()
    for line in unverified:
        whole.against("unverified", line)
    for cell in cells.values():
        ruling = Ruling()
        value = policy.value
        check_evidence(value, cell, today, ruling)
        check_scenarios(value, cell, every, today, ruling)
        check_budgets(value, cell, ruling)
        check_deviations(value, cell, today, ruling)
        check_regression(value, cell, earlier, ruling)
        label = "" if len(cells) == 1 else f"{_label(cell[0])}: "
        whole.reasons += [
            Reason(one.code, one.kind, label + one.sentence, one.scenario) for one in ruling.reasons
        ]
        whole.allowed += [label + one for one in ruling.allowed]
        whole.required = max(whole.required, ruling.required)
    found: dict[str, Any] = masked(as_json(policy, runs, whole))
    return found


def _label(run: Run) -> str:
    subject = run["subject"]
    return (
        f"{subject['provider']}, PGO {subject['pgo']}, PostgreSQL {subject['postgresql']}, "
        f"Kubernetes {subject['kubernetes']}"
    )
