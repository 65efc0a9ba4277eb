"""A planned switchover, asked of the operator by annotation."""

from __future__ import annotations

from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.pgo import Instance, Observation, PostgresCluster


class Switchover:
    """A switchover through the operator; proven by its status and by another leader.

    With a ``target`` only that instance will do. The operator wants the instance's own name, and
    the leader record names its pod: with one in place of the other PGO says that it found no such
    instance, and waits.
    """

    kind = "switchover"

    def __init__(
        self, postgres: PostgresCluster, *, within_s: float, target: Instance | None = None
    ) -> None:
        self.target = target.pod if target else postgres.name
        self._postgres = postgres
        self._candidate = target
        self._within_s = within_s
        self._trigger = ""
        self._before: Observation | None = None

    def inject(self) -> None:
        self._before = self._postgres.observe()
        self._trigger = self._postgres.request_switchover(
            self._candidate.name if self._candidate else None
        )

    def prove(self) -> Proof:
        old = _leader(self._before)

        def done(seen: Observation) -> bool:
            status = seen.status
            carried_out = status is not None and status.switchover == self._trigger
            now = _leader(seen)
            wanted = now == self._candidate.pod if self._candidate else now not in {None, old}
            return carried_out and wanted

        seen = self._postgres.wait(
            done, within_s=self._within_s, what=f"the switchover {self._trigger} to be carried out"
        )
        return Proof(
            f"PGO reports switchover {self._trigger} done; the leader went from {old} to "
            f"{_leader(seen)}"
        )

    def undo(self) -> None:
        """Stop asking, so that a later reconcile does not see a request; the roles stay."""
        self._postgres.change({"spec": {"patroni": {"switchover": None}}})


def _leader(seen: Observation | None) -> str | None:
    return seen.leader.leader if seen and seen.leader else None
