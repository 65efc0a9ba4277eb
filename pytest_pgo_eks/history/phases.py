"""An outage in phases: what had to happen between the fault and the first acknowledgement.

Clients' moments are operations, the cluster's are watch events that the probe received; both carry
the same clock. A watch event is the moment at which the news arrived, some milliseconds after it
was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.history import History
from pytest_pgo_eks.history.outage import Outage

_FAULT = "fault begins"
_SLACK_NS = 500_000_000


@dataclass(frozen=True)
class Phase:
    """A moment of an outage: its name, when (ns), and what shows it."""

    name: str
    at: int
    proof: str


def phases(history: History, outage: Outage) -> list[Phase]:
    """Return the moments of ``outage`` that are known, in time order.

    Names: ``fault``, ``first failure``, ``leader changed``, ``service followed``, ``label moved``,
    ``first acknowledgement``.
    """
    begin = outage.began[0] - _SLACK_NS
    fault = next(
        (e for e in reversed(history.marks(_FAULT)) if e["at"] <= outage.ended[1]),
        None,
    )
    if fault is not None:
        begin = int(fault["at"])
    found = []
    if fault is not None:
        found.append(Phase("fault", int(fault["at"]), str(fault["name"])))
    ops = history.ops
    if outage.first_failure is not None:
        i = outage.first_failure
        found.append(Phase("first failure", int(ops.done[i]), history.describe(i)))
    found += _cluster(history, begin, outage.ended[1] + _SLACK_NS)
    if outage.first_ack is not None:
        i = outage.first_ack
        found.append(Phase("first acknowledgement", int(ops.done[i]), history.describe(i)))
    return sorted(found, key=lambda p: p.at)


def _cluster(history: History, begin: int, end: int) -> list[Phase]:
    """Return the last change of each kind within the outage: the one that let clients in again."""
    leaders = {str(e.get("object")) for e in history.events if _leads(e.get("now"))}
    latest: dict[str, Phase] = {}
    for event in history.events:
        if event["kind"] != "cluster" or not begin <= event["at"] <= end:
            continue
        for name in _meanings(event, leaders):
            latest[name] = Phase(name, int(event["at"]), str(event["what"]))
    return list(latest.values())


def _leads(now: object) -> bool:
    """Tell the Endpoints with the leader record from Patroni's others, which name a leader too."""
    return isinstance(now, Mapping) and bool(now.get("leader")) and bool(now.get("acquired"))


def _meanings(event: Mapping[str, Any], leaders: set[str]) -> list[str]:
    """Return what an event is in our words; Patroni moves leader and address in one write."""
    now, was, thing = event.get("now"), event.get("was"), str(event.get("object", ""))
    if not isinstance(now, Mapping) or not isinstance(was, Mapping):
        return []
    told = []
    if thing in leaders and now.get("leader"):
        told.append("leader changed")
    if thing in leaders and now.get("addresses"):
        told.append("service followed")
    if thing.startswith("pod/") and now.get("role") in {"master", "primary"}:
        told.append("label moved")
    return told


def explain(history: History, outage: Outage) -> Finding:
    """Tell an outage in phases; a measurement, never a violation."""
    found = phases(history, outage)
    first = found[0].at if found else outage.began[0]
    numbers: dict[str, Number] = {
        f"{phase.name.replace(' ', '_')}_s": round((phase.at - first) / 1e9, 4) for phase in found
    }
    told = ", ".join(f"{p.name} +{(p.at - first) / 1e9:.2f} s" for p in found)
    return Finding(
        "outage-in-phases",
        "expected",
        f"{outage.path}, {outage.session} sessions: {told or 'nothing is known'}",
        numbers,
        tuple(f"+{(p.at - first) / 1e9:.3f} s {p.name}: {p.proof}" for p in found),
    )
