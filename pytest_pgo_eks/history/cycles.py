"""Strongly connected components of a dependency graph that is almost acyclic, in NumPy alone.

A history of n transactions has a few edges each, and nearly all of them point forward in the order
in which transactions ended. A component cannot span a moment that no backward edge crosses, so the
graph falls apart into short segments; inside them, whatever has no edge in or no edge out is
peeled off in rounds. What is left is cyclic or between cycles, tiny in a healthy history, and goes
through Tarjan's algorithm. On a million transactions this beats building a sparse matrix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[Any]


def components(nodes: int, source: Ints, target: Ints, position: Ints) -> list[list[int]]:
    """Return the components with more than one node, each sorted; ``position`` orders the nodes.

    ``position`` is a permutation of 0 … nodes-1; any one is right, a good one (time) is quick.
    """
    keep = source != target
    source, target = source[keep], target[keep]
    source, target = _inside_segments(nodes, source, target, position)
    source, target = _peel(nodes, source, target)
    if not len(source):
        return []
    return sorted(sorted(c) for c in _tarjan(source.tolist(), target.tolist()) if len(c) > 1)


def _inside_segments(nodes: int, source: Ints, target: Ints, position: Ints) -> tuple[Ints, Ints]:
    """Drop every edge that crosses a moment which no backward edge crosses."""
    begin, end = position[source], position[target]
    backward = begin > end
    if not backward.any():
        return source[:0], target[:0]
    crossing = np.bincount(end[backward], minlength=nodes + 1)
    crossing -= np.bincount(begin[backward], minlength=nodes + 1)
    # segment[p] changes wherever nothing is crossed between p-1 and p
    segment = np.cumsum(np.cumsum(crossing)[:-1] == 0)
    segment = np.concatenate(([0], segment[:-1]))
    keep = segment[begin] == segment[end]
    return source[keep], target[keep]


def _peel(nodes: int, source: Ints, target: Ints) -> tuple[Ints, Ints]:
    """Remove nodes without an edge in or out until there are none."""
    while len(source):
        has_in = np.zeros(nodes, np.bool_)
        has_out = np.zeros(nodes, np.bool_)
        has_in[target] = True
        has_out[source] = True
        keep = has_in[source] & has_out[target]
        if keep.all():
            break
        source, target = source[keep], target[keep]
    return source, target


def _tarjan(source: list[int], target: list[int]) -> Iterator[list[int]]:
    """Yield strongly connected components, without recursion."""
    after: dict[int, list[int]] = {}
    for s, t in zip(source, target, strict=True):
        after.setdefault(s, []).append(t)
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in after:
        if root in number:
            continue
        work = [(root, iter(after.get(root, ())))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, edges = work[-1]
            for to in edges:
                if to not in number:
                    number[to] = low[to] = len(number)
                    stack.append(to)
                    on_stack.add(to)
                    work.append((to, iter(after.get(to, ()))))
                    break
                if to in on_stack:
                    low[node] = min(low[node], number[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    found = []
                    while True:
                        top = stack.pop()
                        on_stack.discard(top)
                        found.append(top)
                        if top == node:
                            break
                    yield found


Edge = tuple[int, int, int]
"""source, target, kind"""

WW, WR, RW, RT = range(4)
KINDS = ("ww", "wr", "rw", "rt")


class Component:
    """One component's edges, searched for the smallest cycle of each kind."""

    def __init__(self, edges: list[Edge]) -> None:
        self.after: dict[int, list[tuple[int, int]]] = {}
        self.edges = edges
        for source, target, kind in edges:
            self.after.setdefault(source, []).append((target, kind))

    def shortest(self, kinds: frozenset[int], *, first: int | None = None) -> list[Edge] | None:
        """Return the shortest cycle over edges of ``kinds``; ``first``: it has one edge of that kind
        and otherwise only ``kinds``."""
        best: list[Edge] | None = None
        for source, target, kind in self.edges:
            if kind != first if first is not None else kind not in kinds:
                continue
            back = self._path(target, source, kinds)
            if back is not None and (best is None or len(back) + 1 < len(best)):
                best = [(source, target, kind), *back]
                if len(best) == 2:
                    break
        return best

    def nonadjacent(self, kinds: frozenset[int]) -> list[Edge] | None:
        """Return the shortest cycle with at least two rw edges, no two of them adjacent."""
        best: list[Edge] | None = None
        for source, target, kind in self.edges:
            if kind != RW:
                continue
            back = self._path_nonadjacent(target, source, kinds)
            if back is not None and (best is None or len(back) + 1 < len(best)):
                best = [(source, target, RW), *back]
        return best

    def _path(self, start: int, goal: int, kinds: frozenset[int]) -> list[Edge] | None:
        came: dict[int, Edge | None] = {start: None}
        queue = deque([start])
        while queue:
            node = queue.popleft()
            if node == goal:
                return _walk(came, goal)
            for to, kind in self.after.get(node, ()):
                if kind in kinds and to not in came:
                    came[to] = (node, to, kind)
                    queue.append(to)
        return None

    def _path_nonadjacent(self, start: int, goal: int, kinds: frozenset[int]) -> list[Edge] | None:
        """Search over (node, was the last edge rw): the closing edge before ``start`` was."""
        first = (start, True)
        came: dict[tuple[int, bool], tuple[tuple[int, bool], Edge] | None] = {first: None}
        queue = deque([first])
        while queue:
            state = queue.popleft()
            node, was_rw = state
            if node == goal and not was_rw:
                path: list[Edge] = []
                at: tuple[int, bool] | None = state
                while at is not None and (step := came[at]) is not None:
                    path.append(step[1])
                    at = step[0]
                path.reverse()
                if any(edge[2] == RW for edge in path):
                    return path
            for to, kind in self.after.get(node, ()):
                if kind == RW:
                    if was_rw:
                        continue
                elif kind not in kinds:
                    continue
                following = (to, kind == RW)
                if following not in came:
                    came[following] = (state, (node, to, kind))
                    queue.append(following)
        return None


def _walk(came: dict[int, Edge | None], goal: int) -> list[Edge]:
    path: list[Edge] = []
    edge = came[goal]
    while edge is not None:
        path.append(edge)
        edge = came[edge[0]]
    path.reverse()
    return path
