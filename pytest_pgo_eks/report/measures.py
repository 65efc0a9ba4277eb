"""The figures of a scenario that are compared with budgets, with earlier runs, and over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MEASURES = ("rto_s", "lost_writes", "staleness_s", "duration_s")
# A judged run is one that came to a verdict about PGO; what infrastructure broke measures nothing.
JUDGED = ("pass", "violation")


@dataclass(frozen=True)
class Measured:
    """One figure: ``lower`` ≤ truth ≤ ``upper``. ``upper`` is None where it never came to an end.

    ``path`` and ``ordinal`` tell apart what one scenario measures several times.
    """

    measure: str
    lower: float
    upper: float | None
    path: str = ""
    ordinal: int = 0
    faults: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Which series of its scenario it belongs to."""
        told = f"{self.measure}, {self.path}" if self.path else self.measure
        return f"{told}, {self.ordinal + 1}" if self.ordinal else told

    @property
    def middle(self) -> float:
        """The single number to draw."""
        return self.lower if self.upper is None else (self.lower + self.upper) / 2


def measured(scenario: Mapping[str, Any]) -> Iterator[Measured]:
    """Yield the figures of a scenario that came to a verdict; none of any other."""
    if scenario["verdict"] not in JUDGED:
        return
    seen: dict[str, int] = {}
    for row in scenario["rto"]:
        if row["upper_s"] is None and row["outcome"] != "violated":
            continue  # nothing was measured
        ordinal = seen.get(row["path"], 0)
        seen[row["path"]] = ordinal + 1
        lower, upper = row["lower_s"], row["upper_s"]
        yield Measured(
            "rto_s",
            lower if lower is not None else upper or 0.0,
            upper,
            row["path"],
            ordinal,
            tuple(row["faults"]),
        )
    if loss := scenario["loss"]:
        yield Measured("lost_writes", loss["lost"], loss["lost"], faults=_faults(scenario))
    if (stale := scenario["staleness"]) and stale["max_s"] is not None:
        yield Measured("staleness_s", stale["max_s"], stale["max_s"], faults=_faults(scenario))
    yield Measured("duration_s", scenario["took_s"], scenario["took_s"], faults=_faults(scenario))


def _faults(scenario: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(fault["kind"] for fault in scenario["faults"]))
