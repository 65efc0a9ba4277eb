"""Another release of the operator in place of the one that runs. There is no way back."""

from __future__ import annotations

from collections.abc import Callable

from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.pgo import Operator
from pytest_pgo_eks.pgo.operator import current


class OperatorUpgraded:
    """``put`` applies the other release; proven by another pod that leads and says another version."""

    kind = "operator-upgrade"

    def __init__(
        self, kube: Kube, before: Operator, put: Callable[[], None], *, within_s: float
    ) -> None:
        self.target = f"{before.namespace}/{before.deployment}"
        self.after: Operator | None = None
        self._kube = kube
        self._before = before
        self._put = put
        self._within_s = within_s

    def inject(self) -> None:
        self._put()

    def prove(self) -> Proof:
        before = self._before

        def look() -> Operator | str:
            try:
                found = current(self._kube, before.namespace)
            except ApiProblem as problem:
                return str(problem)
            if found.pod_uid == before.pod_uid:
                return f"{found.pod} of {before.version} still runs"
            return found

        found = eventually(
            look,
            accept=lambda seen: isinstance(seen, Operator) and seen.version != before.version,
            within_s=self._within_s,
            what="the other release of the operator to lead",
            show=str,
            successes=1,
        )
        assert isinstance(found, Operator)
        self.after = found
        return Proof(
            f"the operator went from {before.version} to {found.version}; {found.pod} leads",
            {"from": before.version, "to": found.version},
        )

    def undo(self) -> None:
        """Leave it: PGO knows no way to an earlier release."""
