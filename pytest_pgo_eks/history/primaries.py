"""Two primaries at once: proven by values, measured by the one clock that all clients share."""

from __future__ import annotations

import numpy as np

from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.history import OK, WRITE, History
from pytest_pgo_eks.history.writes import acknowledged

_SHOWN = 4


def check_twin_values(history: History, *, allowed: bool) -> Finding:
    """Judge that no counter value was acknowledged on two timelines.

    A counter has one writer and only grows, so the same value twice means that the second server
    did not know of the first acknowledgement: it was lost there, or both were primaries. With
    asynchronous replication that is the known loss, and ``expected``.
    """
    rule = "no-value-on-two-timelines"
    ops = history.ops
    mine = np.flatnonzero(acknowledged(history) & (ops.key >= 0))
    order = np.lexsort((ops.done[mine], ops.value[mine], ops.key[mine]))
    mine = mine[order]
    same = (ops.key[mine[1:]] == ops.key[mine[:-1]]) & (ops.value[mine[1:]] == ops.value[mine[:-1]])
    twins = np.flatnonzero(same)
    numbers: dict[str, Number] = {"acknowledged": len(mine), "twins": len(twins)}
    if not len(twins):
        sentence = "no counter value was acknowledged twice"
        return Finding(rule, "holds", sentence, numbers)
    lines = tuple(
        line
        for i in twins[:_SHOWN]
        for line in (history.describe(mine[i]), "  and: " + history.describe(mine[i + 1]))
    )
    elsewhere = ops.timeline[mine[twins]] != ops.timeline[mine[twins + 1]]
    where = "on two timelines" if elsewhere.all() else "twice"
    sentence = f"{len(twins)} counter values were acknowledged {where}"
    return Finding(rule, "expected" if allowed else "violated", sentence, numbers, lines)


def check_overlap(history: History, *, allowed: bool = False) -> Finding:
    """Judge that no server acknowledged on an old timeline once a newer one acknowledged.

    Only operations *begun* after the first acknowledgement on the newer timeline count: an answer
    that was merely on its way proves nothing. ``overlap_s`` is from that first acknowledgement to
    the last one on the older timeline.
    """
    rule = "one-primary-at-a-time"
    ops = history.ops
    mine = np.flatnonzero((ops.kind == WRITE) & (ops.outcome == OK) & (ops.timeline > 0))
    timelines = np.unique(ops.timeline[mine])
    worst_s, count = 0.0, 0
    lines: list[str] = []
    for newer in timelines[1:]:
        there = mine[ops.timeline[mine] == newer]
        first = there[np.argmin(ops.done[there])]
        late = mine[(ops.timeline[mine] < newer) & (ops.invoke[mine] > ops.done[first])]
        if not len(late):
            continue
        last = late[np.argmax(ops.done[late])]
        count += len(late)
        worst_s = max(worst_s, float(ops.done[last] - ops.done[first]) / 1e9)
        lines += [
            f"first on timeline {newer}: {history.describe(first)}",
            f"still on timeline {ops.timeline[last]}: {history.describe(last)}",
        ]
    numbers: dict[str, Number] = {
        "timelines": len(timelines),
        "acknowledged_on_old": count,
        "overlap_s": round(worst_s, 4),
    }
    if not len(mine):
        return Finding(rule, "unknown", "no write was acknowledged", numbers)
    if not count:
        sentence = f"writes were acknowledged on one timeline at a time ({len(timelines)} in all)"
        return Finding(rule, "holds", sentence, numbers)
    sentence = (
        f"two primaries acknowledged writes at once for {worst_s:.3f} s ({count} on the old one)"
    )
    return Finding(rule, "expected" if allowed else "violated", sentence, numbers, tuple(lines))
