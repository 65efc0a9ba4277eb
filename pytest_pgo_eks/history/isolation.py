"""Isolation from list-append transactions: which anomalies happened, with the cycles that show them.

Every element is appended once, so a read of a list tells the order of all writes before it. From
the longest read of each list comes the version order; from that the dependencies ww (next version),
wr (read it), rw (read the version before it). A cycle's kinds of edges name the anomaly, in Adya's
terms as Elle uses them: G0 only ww; G1c ww and wr; G-single one rw; G-nonadjacent several rw, no two in a
row; G2-item the rest. Real-time order adds an edge from what had ended to what began later, through
a chain of barriers (n edges instead of n²).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.cycles import (
    KINDS,
    RT,
    RW,
    WR,
    WW,
    Component,
    Edge,
    components,
)
from pytest_pgo_eks.history.dependencies import Anomalies, Graph, describe, infer
from pytest_pgo_eks.history.history import INFO, History

Isolation = Literal["read committed", "repeatable read", "serializable"]
ISOLATION: tuple[Isolation, ...] = ("read committed", "repeatable read", "serializable")
"""By the number in the column ``key`` of a transaction."""

_ALWAYS = ("garbage", "duplicate", "internal", "incompatible-order", "G0", "G1a", "G1b", "G1c")
FORBIDDEN: Mapping[Isolation, tuple[str, ...]] = {
    "read committed": _ALWAYS,
    "repeatable read": (*_ALWAYS, "G-single", "G-nonadjacent"),
    "serializable": (*_ALWAYS, "G-single", "G-nonadjacent", "G2-item"),
}
"""What must not happen on the primary at each level; PostgreSQL's repeatable read is snapshot isolation."""


def find_anomalies(history: History, *, real_time: bool = False) -> Anomalies:
    """Return every anomaly of the list-append transactions in ``history``."""
    found = Anomalies()
    graph = infer(history, found)
    found.transactions = len(graph.ops)
    found.edges = len(graph.source)
    _name_cycles(history, graph, found, real_time=real_time)
    return found


def check_isolation(
    history: History, level: Isolation, *, allowed_loss: bool = False
) -> list[Finding]:
    """Judge the transactions of a run against ``level``.

    ``allowed_loss``: asynchronous replication may lose what was read, so lists may end differently
    after a failover; that is ``expected`` then, and cycles are judged as always.
    """
    anomalies = find_anomalies(history)
    numbers: dict[str, Number] = {
        "transactions": anomalies.transactions,
        "edges": anomalies.edges,
    }
    rule = f"isolation-{level.replace(' ', '-')}"
    if not anomalies.transactions:
        return [Finding(rule, "unknown", "no list-append transaction ran", numbers)]
    findings = []
    for name, count in sorted(anomalies.counts.items()):
        numbers[name] = count
        forbidden = name in FORBIDDEN[level]
        if allowed_loss and name == "incompatible-order":
            forbidden = False
        findings.append(
            Finding(
                f"{rule}: {name}",
                "violated" if forbidden else "expected",
                f"{count} times {name} at {level}",
                {"count": count},
                tuple(anomalies.examples[name]),
            )
        )
    if not any(f.outcome == "violated" for f in findings):
        sentence = f"{anomalies.transactions} transactions kept {level}"
        findings.insert(0, Finding(rule, "holds", sentence, numbers))
    return findings


def _name_cycles(history: History, graph: Graph, found: Anomalies, *, real_time: bool) -> None:
    nodes = len(graph.ops)
    if not nodes:
        return
    done = history.ops.done[graph.ops]
    order = np.argsort(done, kind="stable")
    position = np.empty(nodes, np.int32)
    position[order] = np.arange(nodes, dtype=np.int32)
    for members in components(nodes, graph.source, graph.target, position):
        _name(history, graph, _edges_within(graph, members), found)
    if real_time:
        _name_real_time(history, graph, found)


def _edges_within(graph: Graph, members: list[int]) -> list[Edge]:
    inside = np.isin(graph.source, members) & np.isin(graph.target, members)
    return [
        (s, t, k)
        for s, t, k in zip(
            graph.source[inside].tolist(),
            graph.target[inside].tolist(),
            graph.kind[inside].tolist(),
            strict=True,
        )
    ]


def _name(history: History, graph: Graph, edges: list[Edge], found: Anomalies) -> None:
    """Add the kinds of cycle that this component has, each with its smallest example.

    The milder kinds are named only where no graver one is.
    """
    component = Component(edges)
    dirty = frozenset({WW, WR})
    named = False
    for name, cycle in (
        ("G0", component.shortest(frozenset({WW}))),
        ("G1c", _with(component.shortest(dirty, first=WR), WR)),
        ("G-single", component.shortest(dirty, first=RW)),
    ):
        if cycle:
            named = True
            found.add(name, explain(history, graph, cycle))
    if named:
        return
    # A closed walk without two rw edges in a row contradicts snapshot isolation, even if it meets a
    # transaction twice; with a G-single in it, it would only repeat that one.
    if cycle := component.nonadjacent(dirty):
        found.add("G-nonadjacent", explain(history, graph, cycle))
    elif cycle := component.shortest(frozenset({WW, WR, RW})):
        found.add("G2-item", explain(history, graph, cycle))


def _with(cycle: list[Edge] | None, kind: int) -> list[Edge] | None:
    return cycle if cycle and any(edge[2] == kind for edge in cycle) else None


def _name_real_time(history: History, graph: Graph, found: Anomalies) -> None:
    """Look for cycles that need real-time order: what had ended is overtaken by what began later."""
    nodes = len(graph.ops)
    ops = history.ops
    invoke, done = ops.invoke[graph.ops], ops.done[graph.ops]
    sure = np.flatnonzero(ops.outcome[graph.ops] != INFO)
    order = sure[np.argsort(done[sure], kind="stable")].astype(np.int32)
    # Barrier i stands right after the i-th end; a transaction follows the last barrier before it.
    barrier = nodes + np.arange(len(order), dtype=np.int32)
    before = np.searchsorted(done[order], invoke, side="left") - 1
    follows = np.flatnonzero(before >= 0).astype(np.int32)
    source = np.concatenate((graph.source, order, barrier[:-1], barrier[before[follows]]))
    target = np.concatenate((graph.target, barrier, barrier[1:], follows))
    kind = np.concatenate(
        (graph.kind, np.full(len(source) - len(graph.source), RT, graph.kind.dtype))
    )
    moment = np.concatenate((done, done[order]))
    position = np.empty(len(moment), np.int32)
    position[np.argsort(moment, kind="stable")] = np.arange(len(moment), dtype=np.int32)
    for members in components(len(moment), source, target, position):
        edges = _edges_within(Graph(graph.ops, source, target, kind), members)
        component = Component(edges)
        if component.shortest(frozenset({WW, WR, RW})):
            continue  # named already, without real time
        cycle = component.shortest(frozenset({WW, WR, RT}), first=RW) or component.shortest(
            frozenset({WW, WR, RW, RT})
        )
        if cycle:
            found.add("real-time", explain(history, graph, cycle))


def explain(history: History, graph: Graph, cycle: list[Edge]) -> str:
    """Print a cycle so that a person can follow it; chains of real-time barriers are one step."""
    why = {
        WW: "wrote the version before that of",
        WR: "was read by",
        RW: "did not see the next version, of",
        RT: "had ended before the begin of",
    }
    nodes = len(graph.ops)
    steps = []
    for source, target, kind in cycle:
        if source < nodes:
            steps.append(describe(history, int(graph.ops[source])))
            steps.append(f"–{KINDS[kind]}→ ({why[kind]})")
        del target
    first = describe(history, int(graph.ops[next(s for s, _, _ in cycle if s < nodes)]))
    return " ".join([*steps, first.split(" ")[0]])
