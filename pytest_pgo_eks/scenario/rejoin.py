"""What becomes of an old primary, of a replica that was behind, and of outages one after another."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np

from pytest_pgo_eks.errors import BrokenHistory
from pytest_pgo_eks.faults.servers import ReplicaHeldBack
from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.history import SCOUT, History
from pytest_pgo_eks.history.isolation import Isolation, check_isolation
from pytest_pgo_eks.history.outage import outages
from pytest_pgo_eks.history.recovery import FAULT_BEGINS, NOISE_S
from pytest_pgo_eks.history.writes import lost, rows_of
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.scenario import roles
from pytest_pgo_eks.scenario.clients import PRIMARY
from pytest_pgo_eks.scenario.stage import Stage

_REWIND = "running pg_rewind"


def rewound(stage: Stage) -> list[Finding]:
    """Judge that the old primary is a replica on the new timeline, by rewind, without its own rows.

    The rows are compared as read back from both servers. Where the old primary had acknowledged
    nothing that the new one lacks, nothing had diverged and nothing is proven.
    """
    old = roles.primary(stage.beginning).pod
    before = stage.beginning.servers[old].timeline
    seen = stage.postgres.observe(sql=True)
    new = roles.primary(seen).pod
    server = seen.servers.get(old)
    rule = "old-primary-rejoins"
    if new == old:
        return [Finding(rule, "unknown", f"{old} is the primary again, nobody took over")]
    numbers: dict[str, Number] = {
        "timeline_before": before,
        "timeline": server.timeline if server else None,
    }
    told = f"{old}, primary of timeline {before}"
    if server is None or not server.in_recovery or server.timeline != seen.servers[new].timeline:
        sentence = f"{told}, does not follow {new} on timeline {seen.servers[new].timeline}"
        return [Finding(rule, "violated", sentence, numbers)]
    found = [Finding(rule, "holds", f"{told}, follows {new} on {server.timeline}", numbers)]
    return [*found, _rewind_logged(stage, old), _divergent_gone(stage, old)]


def _rewind_logged(stage: Stage, pod: str) -> Finding:
    """Judge by Patroni's own log that it ran pg_rewind since the fault."""
    rule = "rejoined-by-rewind"
    began = min((one.began for one in stage.bench.injected), default=time.monotonic())
    since_s = int(time.monotonic() - began) + 1
    text = stage.kube.logs(stage.namespace, pod, container=names.DATABASE, since_s=since_s)
    lines = [line.strip() for line in text.splitlines() if _REWIND in line]
    if lines:
        return Finding(rule, "holds", f"Patroni in {pod} ran pg_rewind", {}, (lines[-1],))
    return Finding(rule, "violated", f"the log of {pod} tells of no pg_rewind since the fault")


def _divergent_gone(stage: Stage, pod: str) -> Finding:
    """Judge that no row is on the old primary that the new one lacks, though some had been."""
    rule = "divergent-rows-are-gone"
    history = stage.clients.finish([one.pod for one in stage.postgres.observe().instances])
    primary, mine = history.primary_source(), _source(history, pod)
    if primary is None or mine is None:
        return Finding(rule, "unknown", f"{pod} or the primary was not read back")
    gone = lost(history, primary)
    diverged = [int(i) for i in gone if _on(history, int(i), pod, stage)]
    numbers: dict[str, Number] = {"diverged": len(diverged)}
    extra = np.setdiff1d(
        history.rows.op[rows_of(history, mine)], history.rows.op[rows_of(history, primary)]
    )
    numbers["left"] = len(extra)
    if len(extra):
        sentence = f"{len(extra)} rows are on {pod} that the primary has not"
        return Finding(rule, "violated", sentence, numbers)
    if not diverged:
        sentence = f"nothing that {pod} had acknowledged is missing, so nothing had diverged"
        return Finding(rule, "unknown", sentence, numbers)
    sentence = f"{len(diverged)} rows that only {pod} had acknowledged are gone from it too"
    proof = tuple(history.describe(one) for one in diverged[:4])
    return Finding(rule, "holds", sentence, numbers, proof)


def _on(history: History, index: int, pod: str, stage: Stage) -> bool:
    """Say whether an operation was acknowledged on the timeline that the old primary led."""
    return int(history.ops.timeline[index]) == stage.beginning.servers[pod].timeline


def _source(history: History, pod: str) -> Mapping[str, Any] | None:
    found = [one for one in history.sources.values() if one.get("name") == pod]
    return max(found, key=lambda one: one["at"], default=None)


def not_promoted(stage: Stage) -> Finding:
    """Judge that the replica that was held back did not become the primary, and who did.

    The other replica had everything that the primary sent, so it is the most advanced one.
    """
    rule = "most-advanced-is-promoted"
    held = [done.target for done in stage.bench.injected if done.kind == ReplicaHeldBack.kind]
    if not held:
        return Finding(rule, "unknown", "no replica was held back")
    now = roles.primary(stage.postgres.observe(sql=True)).pod
    old = roles.primary(stage.beginning).pod
    behind = max(
        int(str(done.proof.numbers["behind_bytes"]))
        for done in stage.bench.injected
        if done.kind == ReplicaHeldBack.kind
    )
    numbers: dict[str, Number] = {"behind_bytes": behind}
    if now in held:
        return Finding(rule, "violated", f"{now} leads and lacked {behind} bytes", numbers)
    if now == old:
        return Finding(rule, "unknown", f"{old} leads still, so nobody was promoted", numbers)
    sentence = f"{now} was promoted, not {', '.join(held)}, which lacked {behind} bytes of WAL"
    return Finding(rule, "holds", sentence, numbers)


def distribution(stage: Stage) -> Finding:
    """Tell how long new sessions were locked out at each fault of this scenario."""
    rule = "outage-distribution"
    history = stage.clients.so_far()
    began = [int(mark["at"]) for mark in history.marks(FAULT_BEGINS)]
    if not began:
        return Finding(rule, "unknown", "no fault was injected while clients were writing")
    try:
        every = outages(history, PRIMARY, session=SCOUT, min_s=NOISE_S)
    except BrokenHistory:
        every = []
    ends = [*began[1:], np.iinfo(np.int64).max]
    spans = [
        [one.upper_s for one in every if begin <= one.ended[1] and one.began[0] < end]
        for begin, end in zip(began, ends, strict=True)
    ]
    longest = sorted(max(span, default=0.0) for span in spans)
    numbers: dict[str, Number] = {
        "faults": len(longest),
        "least_s": round(longest[0], 3),
        "median_s": round(median(longest), 3),
        "most_s": round(longest[-1], 3),
    }
    told = ", ".join(f"{one:.2f}" for one in longest)
    sentence = (
        f"new sessions were out for {told} s at {len(longest)} faults: median "
        f"{median(longest):.2f} s"
    )
    return Finding(rule, "expected", sentence, numbers)


def kept_isolation(stage: Stage, level: Isolation) -> list[Finding]:
    """Judge the list-append transactions that ran on the primary against their level."""
    pods = [one.pod for one in stage.postgres.observe().instances if one.is_running]
    history = stage.clients.finish(pods)
    return check_isolation(history, level, allowed_loss=stage.clients.mode == "async")
