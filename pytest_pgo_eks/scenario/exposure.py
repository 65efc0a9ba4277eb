"""What synchronous replication is worth at a moment: one copy, two, and who says so."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pgo_eks.faults.processes import StandbyStopped
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.history.history import OK, WRITE
from pytest_pgo_eks.history.reads import check_staleness
from pytest_pgo_eks.pgo import Observation
from pytest_pgo_eks.scenario import roles
from pytest_pgo_eks.scenario.rows import Rows
from pytest_pgo_eks.scenario.stage import Stage


@dataclass(frozen=True)
class ReadBack:
    """What reading acknowledged rows on the synchronous standby came to."""

    finding: Finding


def write_and_read(stage: Stage, count: int) -> ReadBack:
    """Write rows under ``remote_apply`` and read each on the standby that is synchronous.

    The promise is about a standby that was synchronous for that commit. If another one is by the
    end, nothing is proven either way.
    """
    pod = roles.synchronous_standby(stage.postgres.observe(sql=True)).pod
    finding = Rows(stage).read_your_writes(pod, count)
    after = stage.postgres.observe(sql=True)
    if roles.synchronous_problem(after) or roles.synchronous_standby(after).pod != pod:
        sentence = f"{pod} did not stay the synchronous standby while rows were written"
        return ReadBack(Finding(finding.rule, "unknown", sentence, finding.numbers))
    return ReadBack(finding)


def told_degraded(stage: Stage) -> Finding:
    """Wait until record and primary both say that no standby is synchronous."""

    def degraded(seen: Observation) -> bool:
        if len(seen.writable) != 1:
            return False
        server = seen.servers[seen.writable[0]]
        recorded = seen.sync.standbys if seen.sync else ()
        return not recorded and server.synchronous_standby_names == ""

    stage.postgres.wait(
        degraded,
        within_s=stage.seconds("a lease"),
        sql=True,
        what="the cluster to say that no standby is synchronous",
    )
    sentence = "Patroni's record and the primary both say that no standby is synchronous"
    return Finding("degraded-is-told", "holds", sentence)


def single_copy(stage: Stage) -> Finding:
    """Measure for how long, and how often, writes were acknowledged that only the primary had.

    Not strict, synchronous replication promises to go on: the figures are told, not judged.
    """
    history = stage.clients.so_far()
    marks = history.marks(f"fault injected: {StandbyStopped.kind}")
    rule = "single-copy-exposure"
    if not marks:
        return Finding(rule, "unknown", "no standby was stopped while clients were writing")
    since, ops = int(marks[-1]["at"]), history.ops
    alone = (ops.kind == WRITE) & (ops.outcome == OK) & (ops.invoke > since)
    count = int(alone.sum())
    if not count:
        return Finding(
            rule, "unknown", "no write was acknowledged with a single copy", {"writes": 0}
        )
    span_s = float(ops.done[alone].max() - ops.done[alone].min()) / 1e9
    waited_s = float(ops.done[alone].min() - since) / 1e9
    sentence = (
        f"{count} writes were acknowledged with a single copy over {span_s:.1f} s, the first "
        f"{waited_s:.1f} s after the last standby went"
    )
    numbers = {"writes": count, "span_s": round(span_s, 3), "waited_s": round(waited_s, 3)}
    return Finding(rule, "expected", sentence, numbers)


def acknowledged_after_return(stage: Stage, within_s: float) -> list[Finding]:
    """Let one standby after the other run again, and wait until writes are acknowledged."""
    stage.clients.mark("the standbys may run again")
    while any(done.kind == StandbyStopped.kind for done in stage.bench.standing):
        stage.bench.undo(StandbyStopped.kind)
    return stage.clients.acknowledged_from_now(within_s)


def stale_by(stage: Stage, least_s: float) -> Finding:
    """Judge that staleness was seen at all, as old as the fault must have made it."""
    rule = "staleness-is-seen"
    told = check_staleness(stage.clients.so_far()).numbers
    most_s = float(str(told.get("max_s", 0.0)))
    numbers = {"least_s": least_s, "max_s": most_s}
    if most_s < least_s:
        sentence = f"no read of a replica was stale by more than {most_s:.2f} s"
        return Finding(rule, "unknown", sentence, numbers)
    sentence = f"reads of replicas were stale by up to {most_s:.2f} s"
    return Finding(rule, "holds", sentence, numbers)
