"""The paths of the cluster under test: where they lead now, and after the roles moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_pgo_eks.errors import Violation
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.kube.wait import eventually
from pytest_pgo_eks.probe.plan import Login
from pytest_pgo_eks.scenario import roles, routes
from pytest_pgo_eks.scenario.application import require_pgbouncer
from pytest_pgo_eks.scenario.routes import Arrival
from pytest_pgo_eks.scenario.stage import Stage

# Of two equally likely servers, twenty connections miss one with a chance of 2·10^-6.
_TIMES = 20


def arrivals(stage: Stage, service: str, times: int) -> list[Arrival]:
    """Connect through one of the cluster's Services; return where each connection arrived."""
    return routes.arrivals(stage.probe, stage.targets.service(service), times)


def demand_primary(stage: Stage, seen: Sequence[Arrival]) -> None:
    """Demand that all arrived at the instance that is the primary by all witnesses."""
    address = roles.primary(stage.postgres.observe(sql=True)).ip
    routes.only_at(seen, "the primary Service", str(address))


def demand_replicas(seen: Sequence[Arrival]) -> None:
    """Demand that all arrived at servers in recovery."""
    routes.only_replicas(seen, "the replicas Service")


def demand_every_replica(stage: Stage, seen: Sequence[Arrival]) -> None:
    """Demand that every replica was reached."""
    expected = roles.replicas(stage.postgres.observe(sql=True))
    routes.all_reached(seen, "the replicas Service", [str(one.ip) for one in expected])


def primary_service_leads_right(stage: Stage, within_s: float) -> Finding:
    """Wait until the primary Service leads only to the primary."""
    return _primary_only(stage, "the primary Service", stage.targets.from_secret(), within_s)


def pgbouncer_leads_right(stage: Stage, within_s: float) -> Finding:
    """Wait until PgBouncer leads only to the primary."""
    require_pgbouncer(stage)
    return _primary_only(stage, "PgBouncer", stage.targets.from_secret(pooled=True), within_s)


def replicas_service_leads_right(stage: Stage, within_s: float) -> Finding:
    """Wait until the replicas Service leads only to replicas."""
    path, login = "the replicas Service", stage.targets.service("replicas")

    def trouble() -> str:
        return _trouble(lambda: routes.only_replicas(_arrive(stage, login), path))

    _until_right(trouble, path, within_s)
    return Finding("replicas-service-leads-right", "holds", f"{path} leads only to replicas")


def _primary_only(stage: Stage, path: str, login: Login, within_s: float) -> Finding:
    def trouble() -> str:
        def check() -> None:
            seen = _arrive(stage, login)
            address = roles.primary(stage.postgres.observe(sql=True)).ip
            routes.only_at(seen, path, str(address))

        return _trouble(check)

    _until_right(trouble, path, within_s)
    return Finding("path-leads-to-primary", "holds", f"{path} leads only to the primary")


def _arrive(stage: Stage, login: Login) -> list[Arrival]:
    return routes.arrivals(stage.probe, login, _TIMES)


def _trouble(check: Callable[[], None]) -> str:
    """Return what a check objects to, empty if nothing."""
    try:
        check()
    except Violation as violation:
        return str(violation)
    return ""


def _until_right(trouble: Callable[[], str], path: str, within_s: float) -> None:
    eventually(
        trouble,
        accept=lambda told: not told,
        within_s=within_s,
        what=f"{path} to lead only where it should",
        show=str,
        successes=2,
    )
