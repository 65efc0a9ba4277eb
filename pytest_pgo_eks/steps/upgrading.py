"""The operator is upgraded: what its users notice."""

from __future__ import annotations

from collections.abc import Callable

from pytest_bdd import parsers, then, when

from pytest_pgo_eks.pgo import Operator
from pytest_pgo_eks.scenario import upgrading
from pytest_pgo_eks.scenario.stage import Stage
from pytest_pgo_eks.scenario.upgrading import Upgrade


@when("the operator is upgraded", target_fixture="upgrade")
def operator_upgraded(
    stage: Stage, pgo_operator: Operator, pgo_upgrade: Callable[[], None]
) -> Upgrade:
    """To --pgo-upgrade-to; proven by another pod that leads and says another version. It stays."""
    return upgrading.perform(stage, pgo_operator, pgo_upgrade)


@then("the new operator leads")
def new_operator_leads(stage: Stage, upgrade: Upgrade) -> None:
    """The running program's own version, its lease, and no restart of its container."""
    stage.keep(upgrading.leads(stage, upgrade))


@then(parsers.re(r"every pod is what the new operator declares within (?P<budget>.+)"))
def all_rolled_out(stage: Stage, upgrade: Upgrade, budget: str) -> None:
    """Newest revision, ready, one primary; counted from the begin of the upgrade."""
    stage.keep(upgrading.rolled_out(stage, upgrade, stage.seconds(budget)))


@then(parsers.re(r"the leader changed at most (?P<most>\d+) times?"), converters={"most": int})
def leader_changes(stage: Stage, upgrade: Upgrade, most: int) -> None:
    """Counted by the leader record since the upgrade began."""
    stage.keep(upgrading.switchovers(stage, upgrade, most))


@then("it is reported which pods the upgrade restarted")
def restarts_reported(stage: Stage, upgrade: Upgrade) -> None:
    """By their UIDs before and now; told, not judged."""
    stage.keep(upgrading.restarted(stage, upgrade))
