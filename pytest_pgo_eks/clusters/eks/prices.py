"""What it costs: a dated table of list prices, an estimate before, a record after.

The table is for us-east-1 on demand, in US dollars, as of :data:`PRICES_OF`. Where AWS's price list
can be read it is asked for instances first; elsewhere the table holds, with a margin for regions
that cost more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pytest_pgo_eks.clusters.eks.calls import Aws
from pytest_pgo_eks.clusters.eks.wanted import ZONES, Wanted
from pytest_pgo_eks.clusters.record import Cost, CostLine
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem

PRICES_OF = "2026-11-23"
HOME = "us-east-1"
#: Most regions cost within a quarter of us-east-1.
_ELSEWHERE = 1.25

#: An hour of one instance.
INSTANCES: Mapping[str, float] = {
    "m7g.large": 0.0816,
    "m7g.xlarge": 0.1632,
    "m7g.2xlarge": 0.3264,
    "m6g.large": 0.077,
    "m6g.xlarge": 0.154,
    "m7i-flex.large": 0.09576,
    "m6a.large": 0.0864,
    "m6i.large": 0.096,
    "m5.large": 0.096,
    "m5.xlarge": 0.192,
    "m5.2xlarge": 0.384,
    "m5.4xlarge": 0.768,
    "m5.16xlarge": 3.072,
    "m6i.16xlarge": 3.072,
    "m6a.16xlarge": 2.7648,
    "m5a.16xlarge": 2.752,
}
CONTROL_PLANE = 0.10
CONTROL_PLANE_EXTENDED = 0.60
NAT = 0.045
NAT_GB = 0.045
IPV4 = 0.005
GP3_GB_MONTH = 0.08
_MONTH_H = 730.0
#: What a night's images and backups come to through the NAT gateways.
_NAT_TRAFFIC_GB = 1.0
DISK_GIB = 40

# From the pattern's timetable: nodes come a quarter of an hour after the control plane, AWS bills
# gateways and addresses by the hour begun.
_NODES_LESS_H = 0.35
_BEGUN_H = 3.0


@dataclass(frozen=True)
class Rates:
    """Prices that hold for one run: of an instance, and of everything else by ``factor``."""

    instance: Mapping[str, float]
    factor: float
    source: str


def rates(aws: Aws, types: Iterable[str]) -> Rates:
    """Return prices for these types in this region.

    :raises UsageProblem: the price of a type is known neither to AWS's list nor to the table.
    """
    factor = 1.0 if aws.region == HOME else _ELSEWHERE
    found: dict[str, float] = {}
    source = f"table of {PRICES_OF}"
    for name in types:
        listed = _listed(aws, name)
        if listed is not None:
            found[name], source = listed, "AWS price list"
        elif name in INSTANCES:
            found[name] = INSTANCES[name] * factor
        else:
            raise UsageProblem(
                f"--pgo-eks-instance-types: no price is known for {name}, so nothing can be held "
                "against --pgo-max-cost; allow pricing:GetProducts, or choose one of "
                f"{', '.join(INSTANCES)}"
            )
    return Rates(found, factor, source)


def _listed(aws: Aws, name: str) -> float | None:
    """Return the price of an hour from AWS's list, None where it cannot be read."""
    wanted = {
        "instanceType": name,
        "regionCode": aws.region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": k, "Value": v} for k, v in wanted.items()]
    try:
        answer = aws.call("pricing", "get_products", ServiceCode="AmazonEC2", Filters=filters)
    except ClusterProblem:
        return None
    for text in answer.get("PriceList", ()):
        for term in json.loads(text).get("terms", {}).get("OnDemand", {}).values():
            for dimension in term.get("priceDimensions", {}).values():
                price = float(dimension.get("pricePerUnit", {}).get("USD", 0))
                if price > 0:
                    return price
    return None


def estimate(wanted: Wanted, type_: str, known: Rates, *, extended: bool = False) -> Cost:
    """Return what one night of this shape costs."""
    hours = wanted.shape.hours
    return _cost(
        wanted.nodes,
        wanted.gateways,
        type_,
        known,
        control_h=hours,
        nodes_h=hours - _NODES_LESS_H,
        begun_h=_BEGUN_H,
        extended=extended,
    )


def hourly(wanted: Wanted, type_: str, known: Rates) -> float:
    """Return what an hour costs that nobody meant to have."""
    return _cost(wanted.nodes, wanted.gateways, type_, known, control_h=1, nodes_h=1, begun_h=1).usd


@dataclass(frozen=True)
class Span:
    """When something that costs was there; ``until`` None is for what still is."""

    what: str
    count: int
    began: datetime
    until: datetime | None = None
    type: str = ""


def spent(spans: Iterable[Span], now: datetime, known: Rates, estimate_usd: float | None) -> Cost:
    """Return what was spent on what ran from when to when, at these rates."""
    lines: list[CostLine] = []
    for span in spans:
        hours = max(((span.until or now) - span.began).total_seconds(), 0.0) / 3600
        if span.what == "control plane":
            lines.append(_line(span.what, hours, CONTROL_PLANE * known.factor))
        elif span.what == "nodes":
            price = known.instance.get(span.type, INSTANCES.get(span.type, 0.0))
            lines.append(_line(f"{span.count} × {span.type}", hours, span.count * price))
            lines.append(_disks(span.count, hours, known))
        elif span.what == "network":
            lines.append(_gateways(span.count, hours, known))
    return _sum(lines, estimate_usd)


def _cost(
    nodes: int,
    gateways: int,
    type_: str,
    known: Rates,
    *,
    control_h: float,
    nodes_h: float,
    begun_h: float,
    extended: bool = False,
) -> Cost:
    control = CONTROL_PLANE_EXTENDED if extended else CONTROL_PLANE
    lines = [
        _line("control plane", control_h, control * known.factor),
        _line(f"{nodes} × {type_}", nodes_h, nodes * known.instance[type_]),
        _gateways(gateways, begun_h, known),
        _disks(nodes, nodes_h, known),
    ]
    return _sum(lines, None)


def _gateways(count: int, hours: float, known: Rates) -> CostLine:
    traffic = NAT_GB * _NAT_TRAFFIC_GB * known.factor
    what = f"{count} NAT gateway{'s' if count > 1 else ''} with address"
    line = _line(what, hours, count * (NAT + IPV4) * known.factor)
    return CostLine(line.what, line.hours, round(line.usd + traffic, 4))


def _disks(nodes: int, hours: float, known: Rates) -> CostLine:
    gib = nodes * DISK_GIB
    return _line(f"{gib} GiB gp3", hours, gib * GP3_GB_MONTH / _MONTH_H * known.factor)


def _line(what: str, hours: float, per_hour: float) -> CostLine:
    return CostLine(what, round(hours, 2), round(hours * per_hour, 4))


def _sum(lines: list[CostLine], estimate_usd: float | None) -> Cost:
    total = round(sum(line.usd for line in lines), 2)
    return Cost(tuple(lines), total, estimate_usd, PRICES_OF)


def refuse_dear(cost: Cost, wanted: Wanted) -> None:
    """Refuse what costs more than the user allows.

    :raises UsageProblem: it does; the line names both figures.
    """
    if cost.usd > wanted.max_usd:
        raise UsageProblem(
            f"--pgo-max-cost: the profile {wanted.shape.name} is estimated at {cost.usd:.2f} USD "
            f"({wanted.nodes} nodes in {ZONES} zones), more than the {wanted.max_usd:.2f} allowed; "
            "nothing was created"
        )
