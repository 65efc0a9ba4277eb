"""Where Services lead, and what a replica refuses."""

from __future__ import annotations

from pytest_bdd import parsers, then, when

from pytest_pgo_eks.scenario import paths, roles
from pytest_pgo_eks.scenario.routes import Arrival
from pytest_pgo_eks.scenario.rows import Rows
from pytest_pgo_eks.scenario.stage import Stage


@when("the customers of the pattern are written through the primary Service", target_fixture="rows")
def write_customers(stage: Stage) -> Rows:
    """The table and rows of the pattern's row S12, in a schema of the scenario's own."""
    rows = Rows(stage)
    rows.write_customers()
    return rows


@then(parsers.re(r"the same customers are read through the replicas Service within (?P<budget>.+)"))
def customers_on_replicas(stage: Stage, rows: Rows, budget: str) -> None:
    """Read from a server in recovery (row S13)."""
    stage.keep(rows.customers_on_replicas(stage.seconds(budget)))


@when(parsers.re(r"(?P<statement>.+) is tried through the replicas Service"), target_fixture="rows")
def try_on_replica(stage: Stage, statement: str) -> Rows:
    """The statement would leave a trace if a replica let it through."""
    rows = Rows(stage)
    rows.try_on_replica(statement)
    return rows


@then(parsers.re(r"it is refused with SQLSTATE (?P<sqlstate>\w{5})"))
def refused_with(stage: Stage, rows: Rows, sqlstate: str) -> None:
    """The server's own SQLSTATE, not a client's."""
    stage.keep(rows.demand_refused(sqlstate))


@then("no server shows a trace of it")
def no_trace(stage: Stage, rows: Rows) -> None:
    """Every server keeps holding just what it held before, watched for three seconds."""
    stage.keep(rows.demand_no_trace(3.0))


@when(
    parsers.re(
        r"(?P<times>\d+) connections are made through the (?P<service>primary|replicas) Service"
    ),
    target_fixture="arrivals",
    converters={"times": int},
)
def many_connections(stage: Stage, times: int, service: str) -> list[Arrival]:
    """Each connection is a new session; it asks the server who it is."""
    return paths.arrivals(stage, service, times)


@then("every connection reached the one server that is not in recovery")
def reached_the_primary(stage: Stage, arrivals: list[Arrival]) -> None:
    """One address, the primary's, by the server's own word."""
    paths.demand_primary(stage, arrivals)


@then("every connection reached a server in recovery")
def reached_replicas(arrivals: list[Arrival]) -> None:
    """No connection was answered by a server that takes writes."""
    paths.demand_replicas(arrivals)


@then("every replica was reached")
def reached_every_replica(stage: Stage, arrivals: list[Arrival]) -> None:
    """The Service spreads connections over all replicas."""
    paths.demand_every_replica(stage, arrivals)


@then(
    parsers.re(r"the role label, the leader record and SQL name the same primary for (?P<time>.+)")
)
def roles_agree(stage: Stage, time: str) -> None:
    """All three are compared again and again for that long."""
    declared = stage.postgres.declared()
    stage.keep(roles.keep_agreeing(stage.postgres, declared, stage.seconds(time)))


@then(
    parsers.re(
        r"the role label, the leader record and SQL name the new primary within (?P<budget>.+)"
    )
)
def roles_agree_on_another(stage: Stage, budget: str) -> None:
    """All three name one and the same instance, which was not the primary before."""
    roles.agree_on_another(
        stage.postgres, stage.beginning, stage.postgres.declared(), stage.seconds(budget)
    )


@then(parsers.re(r"the primary Service leads only to the (?:new )?primary within (?P<budget>.+)"))
def service_follows(stage: Stage, budget: str) -> None:
    """Twenty new connections in a row arrive at the server that is not in recovery."""
    stage.keep(paths.primary_service_leads_right(stage, stage.seconds(budget)))


@then(parsers.re(r"PgBouncer leads only to the new primary within (?P<budget>.+)"))
def pgbouncer_follows(stage: Stage, budget: str) -> None:
    """The same through PgBouncer, which remembers a failed login for 15 seconds."""
    stage.keep(paths.pgbouncer_leads_right(stage, stage.seconds(budget)))


@then(parsers.re(r"the replicas Service leads only to replicas within (?P<budget>.+)"))
def replicas_service_follows(stage: Stage, budget: str) -> None:
    """Twenty new connections in a row arrive at servers in recovery."""
    stage.keep(paths.replicas_service_leads_right(stage, stage.seconds(budget)))
