"""After a fault: what came back, what was lost, who acknowledged at once."""

from __future__ import annotations

from pytest_pgo_eks.faults.processes import ProcessFrozen
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.scenario import aim, roles
from pytest_pgo_eks.scenario.clients import PRIMARY, named
from pytest_pgo_eks.scenario.stage import Stage

_PRIMARIES = ("no-value-on-two-timelines", "one-primary-at-a-time")


def repeatedly(stage: Stage, times: int) -> None:
    """Delete the primary's pod several times, each time after all instances stream again."""
    for number in range(times):
        if number:
            # Only the primary Service is sure to be interrupted; a path that never was would be
            # watched until the time is used up.
            budget_s = stage.seconds("a lease and 20 seconds")
            stage.keep(*stage.clients.acknowledged_again(budget_s, [PRIMARY]))
            roles.all_recovered(
                stage.postgres, stage.postgres.declared(), stage.timeouts["healthy-again"]
            )
        aim.at_primary(stage, "pod is deleted")


def thaw(stage: Stage) -> None:
    """Let every frozen process run again."""
    while any(fault.kind == ProcessFrozen.kind for fault in stage.bench.standing):
        stage.bench.undo(ProcessFrozen.kind)


def take_back(stage: Stage) -> None:
    """Undo every fault that stands, last first, and mark when that was done."""
    stage.bench.undo_all()
    stage.clients.mark("every fault is taken back")


def losses(stage: Stage) -> list[Finding]:
    """Judge what became of every write, under the declared replication mode."""
    return [finding for finding in _judged(stage) if finding.rule not in _PRIMARIES]


def overlaps(stage: Stage) -> list[Finding]:
    """Judge whether two primaries acknowledged writes at once."""
    return named(_judged(stage), *_PRIMARIES)


def _judged(stage: Stage) -> list[Finding]:
    pods = [one.pod for one in stage.postgres.observe().instances if one.is_running]
    return stage.clients.judged(pods)
