"""From what happened to the verdict: per scenario, then for the run.

========================  =========================================================================
verdict of the run        when
========================  =========================================================================
``violation``             at least one scenario is a violation
``inconclusive``          none is, but at least one could not be judged, or nothing was judged
``pass``                  every scenario that ran passed, and at least one did
========================  =========================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pytest_pgo_eks.errors import Inconclusive, Violation, WaitTimeout
from pytest_pgo_eks.report.evidence import Verdict

EXIT_VIOLATION = 1
EXIT_INCONCLUSIVE = 6
EXIT_GATE = 7

_NO_EVIDENCE = (
    "This ran on the stand-in cluster: it rehearses the scenarios and is not evidence about PGO, "
    "Kubernetes or Amazon EKS."
)


def classify(
    error: BaseException, *, step: str | None, when: Literal["setup", "call", "teardown"]
) -> Verdict:
    """Say whether an exception means a broken promise or trouble that prevents judging.

    ``step`` is the kind of the step that raised it (given, when, then) or None outside steps. A
    wait that ran out in a Then-step is a violation only if its last look succeeded: then the
    promise was seen to be broken; otherwise we could not see. A bare assertion counts as a promise
    in a Then-step only: a Given or When prepares, it promises nothing.
    """
    in_then = when == "call" and step == "then"
    if isinstance(error, Violation):
        return "violation"
    if isinstance(error, WaitTimeout):
        return "violation" if in_then and error.looked else "inconclusive"
    if isinstance(error, Inconclusive):
        return "inconclusive"
    if isinstance(error, AssertionError):
        return "violation" if in_then else "inconclusive"
    return "inconclusive"


def run_verdict(scenarios: Iterable[Mapping[str, Any]]) -> Verdict:
    """Fold scenario verdicts into the run's. Skipped ones neither help nor harm it."""
    counts = Counter(scenario["verdict"] for scenario in scenarios)
    if counts["violation"]:
        return "violation"
    if counts["inconclusive"] or not counts["pass"]:
        return "inconclusive"
    return "pass"


def exit_status(verdict: Verdict) -> int:
    """Return the process's exit status for a run's verdict."""
    return {"pass": 0, "violation": EXIT_VIOLATION}.get(verdict, EXIT_INCONCLUSIVE)


def disclaimer(*, stand_in: bool) -> str | None:
    """Return the sentence that says what the run is no evidence about, or None."""
    return _NO_EVIDENCE if stand_in else None
