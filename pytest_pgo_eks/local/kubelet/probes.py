"""What a probe means: thresholds, start-up, and holding still after a failure. No I/O, no clock.

The rules are those of the kubelet's prober worker and result manager.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Kind(enum.StrEnum):
    """Which probe of a container; the value is how Events call it."""

    LIVENESS = "Liveness"
    READINESS = "Readiness"
    STARTUP = "Startup"

    @property
    def spec_key(self) -> str:
        return f"{self.value.lower()}Probe"


class Result(enum.Enum):
    """What the rest of the kubelet believes of a container."""

    UNKNOWN = "unknown"
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True)
class Timing:
    """A probe's numbers with the API's defaults; seconds, except the thresholds."""

    initial_delay_s: float
    period_s: float
    timeout_s: float
    success_threshold: int
    failure_threshold: int
    grace_s: float | None

    def first_s(self, kind: Kind) -> float:
        """Return when the first attempt is, after the container's start.

        A kubelet's clock for liveness and start-up runs from before the start: the first attempt
        is at the first whole period after the initial delay. Readiness is asked sooner, because
        the pod is synchronised while its containers start.
        """
        if kind is Kind.READINESS:
            return self.initial_delay_s
        return self.period_s * max(1, math.ceil(self.initial_delay_s / self.period_s))

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> Timing:
        grace = probe.get("terminationGracePeriodSeconds")
        return cls(
            initial_delay_s=float(probe.get("initialDelaySeconds") or 0),
            period_s=float(probe.get("periodSeconds") or 10),
            timeout_s=float(probe.get("timeoutSeconds") or 1),
            success_threshold=int(probe.get("successThreshold") or 1),
            failure_threshold=int(probe.get("failureThreshold") or 3),
            grace_s=None if grace is None else float(grace),
        )


@dataclass
class ProbeState:
    """One probe of one run of a container."""

    kind: Kind
    timing: Timing
    result: Result = field(init=False)
    on_hold: bool = False
    _last: bool | None = None
    _run: int = 0

    def __post_init__(self) -> None:
        self.result = {
            Kind.LIVENESS: Result.SUCCESS,
            Kind.READINESS: Result.FAILURE,
            Kind.STARTUP: Result.UNKNOWN,
        }[self.kind]

    def due(self, *, running_s: float, started: bool, terminating: bool) -> bool:
        """Say whether an attempt makes sense now.

        Liveness and readiness wait for the start-up probe. While the pod ends nobody cares
        whether it is alive, but it may still become unready.
        """
        if self.on_hold or running_s < self.timing.initial_delay_s:
            return False
        if self.kind is Kind.STARTUP:
            return not started and not terminating
        return started and not (terminating and self.kind is Kind.LIVENESS)

    def take(self, *, success: bool) -> bool:
        """Count one attempt; say whether the result changed."""
        if self._last is success:
            self._run += 1
        else:
            self._last, self._run = success, 1
        threshold = self.timing.success_threshold if success else self.timing.failure_threshold
        if self._run < threshold:
            return False
        fresh = Result.SUCCESS if success else Result.FAILURE
        changed = fresh is not self.result
        self.result = fresh
        if not success and self.kind is not Kind.READINESS:
            # The container is being killed: no more attempts until the next one runs.
            self.on_hold = True
            self._run = 0
            return True
        return changed
