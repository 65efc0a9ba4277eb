"""Every named timeout of the harness, with its meaning, per kind of provider, and one multiplier.

``local_s`` holds for the stand-in cluster on two cores, ``real_s`` for kind, k3s and EKS, where
images are pulled, volumes attached and load balancers made. Budgets that a scenario *promises*
(“within 45 seconds”) stand in the scenario's sentence and are scaled by nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pgo_eks.settings import Settings


@dataclass(frozen=True)
class Timeout:
    """One named timeout. ``local_s`` and ``real_s`` are seconds before the multiplier."""

    name: str
    what: str
    local_s: float
    real_s: float


def _registry(*timeouts: Timeout) -> Mapping[str, Timeout]:
    return {timeout.name: timeout for timeout in timeouts}


TIMEOUTS: Mapping[str, Timeout] = _registry(
    Timeout("cluster-created", "a provider makes its Kubernetes cluster", 60, 1800),
    Timeout("cluster-removed", "a provider removes everything it made", 60, 1800),
    Timeout("operator-ready", "the operator's Deployment is available and its CRD served", 60, 300),
    # The real PGO's third replica came 132 s after the first, its backup 140 s (spread checkpoints).
    Timeout("postgres-ready", "the PostgresCluster under test is up with all instances", 120, 900),
    Timeout("postgres-gone", "a PostgresCluster and all it owned are deleted", 60, 300),
    Timeout("healthy-again", "the cluster is back in its known state after a disruption", 120, 600),
    Timeout("switchover", "a requested switchover is carried out and recorded", 60, 180),
    Timeout("pod-ready", "one pod is scheduled, pulled, started and ready", 60, 300),
    Timeout("pod-gone", "one pod is gone after its grace period", 60, 120),
    Timeout("backup", "a backup Job runs to its end", 120, 900),
    Timeout("routing", "Services lead where roles say, after roles moved", 30, 90),
    Timeout("replication", "a replica streams and has caught up", 60, 300),
    Timeout("configuration", "a changed setting has arrived on every instance", 120, 300),
    Timeout("exec", "one short command in a container", 30, 60),
    Timeout("request", "one call to the Kubernetes API", 10, 30),
    Timeout("probe-installed", "the probe agent is copied into its pod and answers", 30, 180),
    Timeout("diagnostics", "everything that explains one failure is collected", 60, 180),
)


@dataclass(frozen=True)
class Timeouts:
    """The registry seen from one run: which column, and which multiplier."""

    stand_in: bool = True
    scale: float = 1.0

    @classmethod
    def of(cls, settings: Settings) -> Timeouts:
        """Return the timeouts of the provider and the multiplier that ``settings`` name."""
        return cls(stand_in=settings.provider == "local", scale=settings.timeout_scale)

    def __getitem__(self, name: str) -> float:
        """Return the seconds of the timeout called ``name``.

        :raises KeyError: nothing is called so; the message has the nearest name.
        """
        timeout = TIMEOUTS.get(name)
        if timeout is None:
            near = difflib.get_close_matches(name, TIMEOUTS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"no timeout is called {name!r}{hint}")
        return (timeout.local_s if self.stand_in else timeout.real_s) * self.scale
