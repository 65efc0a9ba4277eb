"""What a provider tells of a cluster when the run is over: what it cost, left and did otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Deviation:
    """A known difference from the AWS pattern's text.

    ``id`` is ``D1`` … ``D16``; ``text`` is what the pattern says, ``did`` what the run had instead,
    ``why`` the reason.
    """

    id: str
    text: str
    did: str
    why: str


@dataclass(frozen=True)
class CostLine:
    """One thing that costs by the hour: how long it was there, and its price in US dollars."""

    what: str
    hours: float
    usd: float


@dataclass(frozen=True)
class Cost:
    """The estimated cost of a run in US dollars, from list prices.

    ``estimate_usd`` is what the plan had said, None where there was none. ``prices_of`` is the date
    of the price table (ISO 8601).
    """

    lines: tuple[CostLine, ...]
    usd: float
    estimate_usd: float | None
    prices_of: str


@dataclass(frozen=True)
class ProviderRecord:
    """What a provider's method ``record(handle)`` returns, asked when the cluster is gone, or kept.

    ``leftovers`` name what is still there, each with the shell line that removes it.
    """

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
        return cls(
            region=found.get("region"),
            cost=Cost(**{**cost, "lines": tuple(CostLine(**line) for line in cost["lines"])})
            if cost
            else None,
            leftovers=tuple(found.get("leftovers", ())),
            deviations=tuple(Deviation(**each) for each in found.get("deviations", ())),
        )
