"""Who is let in, from another pod of the cluster."""

from __future__ import annotations

from pytest_bdd import parsers, then, when

from pytest_pgo_eks.scenario import application, intrusion
from pytest_pgo_eks.scenario.access import Attempt
from pytest_pgo_eks.scenario.stage import Stage


@when(
    parsers.re(
        r"somebody in another pod connects as (?P<role>.+) without a password "
        r"(?P<transport>with TLS|without TLS)"
    ),
    target_fixture="tried",
)
def connects_without_password(stage: Stage, role: str, transport: str) -> list[Attempt]:
    """One attempt at every instance and at every Service, in every database worth having."""
    return intrusion.without_password(stage, role, tls=transport == "with TLS")


@when(
    "somebody in another pod connects as the application's user with a wrong password",
    target_fixture="tried",
)
def connects_with_wrong_password(stage: Stage) -> list[Attempt]:
    """The same with a password that is not the user's."""
    return intrusion.with_wrong_password(stage)


@when(
    "somebody in another pod asks for replication as _crunchyrepl without a certificate",
    target_fixture="tried",
)
def asks_for_replication(stage: Stage) -> list[Attempt]:
    """A physical replication connection, which is no ordinary login."""
    return intrusion.replication(stage)


@then("no server lets them in")
def nobody_is_let_in(stage: Stage, tried: list[Attempt]) -> None:
    """Every server has to have refused; an attempt that did not arrive proves nothing."""
    intrusion.demand_refused(stage, tried)


@when(
    "an application connects with the application's Secret without TLS",
    target_fixture="connected",
)
def connects_in_the_clear(stage: Stage) -> application.Connected:
    """The right password, sent without encryption."""
    return application.connect(stage, tls="disable")


@then("the connection is refused because it is not encrypted")
def refused_unencrypted(stage: Stage, connected: application.Connected) -> None:
    """No access rule lets an unencrypted session in (SQLSTATE 28000)."""
    intrusion.demand_refused_unencrypted(stage, connected)
