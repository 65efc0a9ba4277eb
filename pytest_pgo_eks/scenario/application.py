"""One session of an application: how it connected, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pytest_pgo_eks.errors import Inconclusive, Violation
from pytest_pgo_eks.pgo import Instance
from pytest_pgo_eks.probe.plan import Answer
from pytest_pgo_eks.scenario.stage import Stage

_WHO = (
    "SELECT current_user, (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), "
    "pg_is_in_recovery(), current_setting('transaction_read_only'), host(inet_server_addr())"
)


@dataclass(frozen=True)
class Connected:
    """What one session came to. ``user`` is the one it wanted to be."""

    answer: Answer
    user: str
    pooled: bool

    def demand_encrypted(self) -> None:
        """Demand TLS on the client's side; without a pooler between also on the server's."""
        row = self._row()
        if not self.answer.tls or (not self.pooled and row[1] != "t"):
            raise Violation(
                f"the session is not encrypted: client {self.answer.tls}, server {row[1]}"
            )

    def demand_user(self) -> None:
        """Demand that the session is the user's."""
        if self._row()[0] != self.user:
            raise Violation(f"connected as {self._row()[0]}, not as {self.user}")

    def demand_writable(self) -> None:
        """Demand a server that is not in recovery and takes writes."""
        _, _, recovery, read_only, address = self._row()
        if recovery != "f" or read_only != "off":
            raise Violation(f"{address}: in recovery {recovery}, transaction_read_only {read_only}")

    def demand_address(self, expected: Instance) -> None:
        """Demand the server of this instance."""
        if self._row()[4] != expected.ip:
            raise Violation(f"reached {self._row()[4]}, not {expected.pod} at {expected.ip}")

    def demand_failure(self, code: str) -> None:
        """Demand that no session came about, for this very reason."""
        if self.answer.ok:
            raise Violation("the connection was made")
        if self.answer.code != code:
            raise Inconclusive(
                f"the connection failed for another reason than {code}: "
                f"{self.answer.code} {self.answer.message}"
            )

    def _row(self) -> tuple[str | None, ...]:
        if not self.answer.ok:
            raise Violation(
                f"{self.user} could not connect: {self.answer.code} {self.answer.message} "
                f"(at {self.answer.stage})"
            )
        return self.answer.rows[0]


def connect(stage: Stage, *, pooled: bool = False, **login: Any) -> Connected:
    """Make one session with what the application's Secret says."""
    target = stage.targets.from_secret(pooled=pooled, **login)
    (answer,) = stage.probe.ask(target, _WHO)
    return Connected(answer, target.user, pooled)


def foreign_authority(stage: Stage) -> str:
    """Return a real certificate authority that did not sign the servers' certificates: Kubernetes'.

    :raises Inconclusive: it is the same one.
    """
    found = stage.kube.get("ConfigMap", "kube-root-ca.crt", stage.namespace)["data"]["ca.crt"]
    if found.strip() == stage.targets.authority().strip():
        raise Inconclusive("Kubernetes and PostgreSQL share one authority here")
    return str(found)


def require_pgbouncer(stage: Stage) -> None:
    """Skip, visibly, where the PostgresCluster declares no PgBouncer."""
    if not stage.targets.has_pgbouncer:
        pytest.skip("the PostgresCluster declares no PgBouncer")
