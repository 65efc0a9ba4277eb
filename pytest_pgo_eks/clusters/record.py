"""What a provider tells of itself at the end of a run: its place, its cost, what it left.

A provider that has something to tell has a method ``record(handle) -> ProviderRecord | None``; the
session asks it after the cluster has been removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Deviation:
    """A known difference between the pattern's text and what was done.

    ``id`` is D1 … D16, ``text`` what the pattern says, ``did`` what was done, ``why`` the reason.
    """

    id: str
    text: str
    did: str
    why: str


@dataclass(frozen=True)
class CostLine:
    """One kind of thing that was paid for: hours (of each piece, summed) and US dollars."""

    what: str
    hours: float
    usd: float


@dataclass(frozen=True)
class Cost:
    """What a run is reckoned to have cost. ``prices_of`` is the day of the price table (ISO)."""

    lines: tuple[CostLine, ...]
    usd: float
    estimate_usd: float | None
    prices_of: str


@dataclass(frozen=True)
class ProviderRecord:
    """``leftovers`` are lines that each name what is left and the command that removes it."""

    region: str | None = None
    cost: Cost | None = None
    leftovers: tuple[str, ...] = ()
    deviations: tuple[Deviation, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return a form for ``json.dumps``, from which :meth:`from_json` makes the same record."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ProviderRecord:
        cost = found.get("cost")
        if cost:
            lines = tuple(CostLine(**line) for line in cost["lines"])
            cost = Cost(lines, cost["usd"], cost["estimate_usd"], cost["prices_of"])
        return cls(
            region=found.get("region"),
            cost=cost or None,
            leftovers=tuple(found.get("leftovers", ())),
            deviations=tuple(Deviation(**one) for one in found.get("deviations", ())),
        )
