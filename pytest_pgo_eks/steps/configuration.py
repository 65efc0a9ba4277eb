"""Settings and access rules: as declared, asked of every server; and what a change costs."""

from __future__ import annotations

from pytest_bdd import parsers, then, when

from pytest_pgo_eks.scenario import changes, servers
from pytest_pgo_eks.scenario.changes import Change
from pytest_pgo_eks.scenario.stage import Stage


@then(
    parsers.re(
        r"on every server (?P<name>\w+) is (?P<comparison>exactly|at least|one of) (?P<value>.+)"
    )
)
def setting_everywhere(stage: Stage, name: str, comparison: str, value: str) -> None:
    """``SHOW name`` on every instance; “at least” compares sizes as bytes."""
    servers.demand_setting(stage.postgres, name, comparison, value)


@then("every replica has a standby signal and connects to the primary with a verified certificate")
def standby_configuration(stage: Stage) -> None:
    """``standby.signal`` is there and ``primary_conninfo`` verifies its server."""
    servers.demand_standby_configuration(stage.postgres)


@then("every server's access rules contain the declared ones in their order")
def declared_rules(stage: Stage) -> None:
    """``pg_hba_file_rules`` of every instance against the PostgresCluster's pg_hba."""
    servers.demand_access_rules(stage.postgres, changes.declared_rules(stage.manifest))


@then("no access rule of any server failed to load")
def rules_loaded(stage: Stage) -> None:
    """No line of ``pg_hba_file_rules`` carries an error."""
    servers.demand_rules_loaded(stage.postgres)


@when(
    parsers.re(r'the parameter "(?P<name>\w+)" is set to "(?P<value>.+)"'), target_fixture="change"
)
def set_parameter(stage: Stage, name: str, value: str) -> Change:
    """Declared in the PostgresCluster; what was there before comes back at the end."""
    return changes.declare(stage, name, value)


@when(
    parsers.re(r'the parameter "(?P<name>\w+)" is raised by (?P<more>\d+)'),
    target_fixture="change",
    converters={"more": int},
)
def raise_parameter(stage: Stage, name: str, more: int) -> Change:
    """Declared as this much more than what is in force now."""
    return changes.declare_more(stage, name, more)


@then(parsers.re(r"on every server (?P<name>\w+) is (?P<value>\S+) within (?P<budget>.+)"))
def setting_arrives(stage: Stage, name: str, value: str, budget: str) -> None:
    """Waits until every instance shows the value."""
    servers.setting_arrives(stage.postgres, name, value, stage.seconds(budget))


@then(parsers.re(r"on every server (?P<name>\w+) has the new value within (?P<budget>.+)"))
def new_value_arrives(stage: Stage, change: Change, name: str, budget: str) -> None:
    """Waits until every instance shows the value that the scenario declared."""
    assert change.name == name, f"the scenario changed {change.name}, not {name}"
    servers.setting_arrives(stage.postgres, name, change.value, stage.seconds(budget))


@then("no server was restarted")
def not_restarted(stage: Stage) -> None:
    """``pg_postmaster_start_time()`` of every instance is what it was."""
    servers.demand_no_restart(stage.beginning, stage.postgres.observe(sql=True))


@then("every server was restarted in place")
def restarted_in_place(stage: Stage) -> None:
    """Every postmaster is new; pods and containers are the same."""
    servers.demand_restart_in_place(stage.beginning, stage.postgres.observe(sql=True))


@then("no server waits for a restart")
def none_pending(stage: Stage) -> None:
    """``pending_restart`` is set for no setting of any instance."""
    servers.demand_none_pending(stage.postgres)
