"""For how long anybody went on reading from a server that was the primary and is not any more.

A session that was opened before a failover stays where it is unless somebody ends it. Its writes
are refused there or acknowledged; its reads are answered all the same, and nothing about them looks
wrong: what they lack was acknowledged elsewhere. Only comparing shows it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.history import OK, PINNED, READ, WRITE, History
from pytest_pgo_eks.history.reads import staleness

_SECOND = 1e9
_SHOWN = 4


def check_reads_of_demoted(history: History, paths: Collection[str], within_s: float) -> Finding:
    """Judge for how long reads through ``paths`` lacked what another primary had acknowledged.

    ``paths`` are those that should lead to the primary. A primary shows every write that it has
    acknowledged, so a read that began after the first acknowledgement on a newer timeline and lacks
    an acknowledged write was answered by the old one, whether that still believes to lead or is in
    recovery already. The time counts from that first acknowledgement to the end of the last such read.
    """
    rule = "stale-reads-of-the-old-primary-end"
    ops = history.ops
    written = np.flatnonzero((ops.kind == WRITE) & (ops.outcome == OK) & (ops.timeline > 0))
    timelines = np.unique(ops.timeline[written])
    numbers: dict[str, Number] = {"budget_s": within_s}
    if len(timelines) < 2:
        return Finding(rule, "unknown", "writes were acknowledged on one timeline only", numbers)
    here = [number for number, name in history.paths.items() if name in paths]
    reads = np.flatnonzero((ops.kind == READ) & (ops.outcome == OK) & np.isin(ops.path, here))
    seen = staleness(history, reads)
    begins = [int(ops.done[written[ops.timeline[written] == t]].min()) for t in timelines[1:]]
    begun = ops.invoke[seen.index]
    after = begun > begins[0]
    numbers["reads"] = int(after.sum())
    if not after.any():
        sentence = f"nobody read through {' or '.join(sorted(paths))} after another primary wrote"
        return Finding(rule, "unknown", sentence, numbers)
    stale = seen.index[after & (seen.versions > 0)]
    # Each belongs to the failover that it followed.
    which = np.searchsorted(np.array(begins), ops.invoke[stale], side="left") - 1
    lasted = (ops.done[stale] - np.array(begins)[which]) / _SECOND
    worst_s = float(lasted.max()) if len(stale) else 0.0
    numbers |= {
        "stale": len(stale),
        "pinned": int((ops.session[stale] == PINNED).sum()),
        "longest_s": round(worst_s, 3),
    }
    if not len(stale):
        sentence = (
            f"none of {int(after.sum())} reads after the failover was answered by the old primary"
        )
        return Finding(rule, "holds", sentence, numbers)
    last = stale[np.argsort(-lasted)][:_SHOWN]
    proof = tuple(history.describe(int(one)) for one in last)
    told = f"{len(stale)} reads were answered by a demoted primary, for {worst_s:.2f} s at most"
    if worst_s <= within_s:
        return Finding(rule, "holds", told, numbers, proof)
    return Finding(rule, "violated", f"{told}; allowed were {within_s:g} s", numbers, proof)
