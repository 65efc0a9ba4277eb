"""Attempts to get in without a credential, and the known deviation that lets them succeed.

The AWS pattern's own manifest declares ``host all all 0.0.0.0/0 trust``, which opens every role but
PGO's own to every pod. Where the PostgresCluster under test declares it, a login without a
password is what was declared: it is told as deviation D13 with its proof, in every run, and not
as a broken promise of PGO.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pytest_pgo_eks.errors import Inconclusive, Violation
from pytest_pgo_eks.findings import Finding, demand
from pytest_pgo_eks.probe.plan import Login
from pytest_pgo_eks.scenario import changes
from pytest_pgo_eks.scenario.access import Attempt, attempts, refused
from pytest_pgo_eks.scenario.application import Connected
from pytest_pgo_eks.scenario.stage import Stage
from pytest_pgo_eks.secrets import Secret

APPLICATION = "the application's user"
DEVIATION = "D13"


def without_password(stage: Stage, role: str, *, tls: bool) -> list[Attempt]:
    """Try to log in as ``role`` with an empty password at every server and Service.

    Empty, not absent: a client that has none gives up by itself when it is asked, and only an answer
    makes the server say no.
    """
    name = stage.targets.application.name if role == APPLICATION else role
    return attempts(
        stage.probe, _everywhere(stage, name, Secret(""), "require" if tls else "disable")
    )


def with_wrong_password(stage: Stage) -> list[Attempt]:
    """Try to log in as the application's user with a password that is not its own."""
    name = stage.targets.application.name
    return attempts(stage.probe, _everywhere(stage, name, Secret("certainly-wrong"), "require"))


def replication(stage: Stage) -> list[Attempt]:
    """Ask for a physical replication connection without a certificate."""
    logins = _everywhere(stage, "_crunchyrepl", Secret(""), "require")
    asked = {
        where: dataclasses.replace(login, options={**login.options, "replication": "true"})
        for where, login in logins.items()
    }
    return attempts(stage.probe, asked)


def demand_refused(stage: Stage, tried: Sequence[Attempt]) -> None:
    """Demand that nobody was let in; where the manifest itself trusts everybody, tell it as D13."""
    finding = refused(tried, "somebody without a valid credential")
    trusting = trust_lines(stage)
    if finding.outcome == "violated" and trusting:
        stage.note(
            dataclasses.replace(
                finding,
                outcome="expected",
                rule=f"deviation-{DEVIATION}",
                sentence=(
                    f"deviation {DEVIATION}: {finding.sentence}, because the PostgresCluster "
                    f"declares “{trusting[0]}”"
                ),
            )
        )
        return
    stage.keep(finding)


def demand_refused_unencrypted(stage: Stage, connected: Connected) -> None:
    """Demand that the server refused a session because it was not encrypted."""
    answer = connected.answer
    rule, trusting = "passwords-travel-encrypted", trust_lines(stage)
    if answer.ok and trusting:
        told = f"deviation {DEVIATION}: a session without TLS was let in by “{trusting[0]}”"
        stage.note(Finding(f"deviation-{DEVIATION}", "expected", told))
        return
    if answer.ok:
        raise Violation("a session without TLS was let in, and its password went in the clear")
    if answer.code != "28000":
        raise Inconclusive(f"refused for another reason: {answer.code} {answer.message}")
    found = Finding(rule, "holds", f"refused without TLS: {answer.message}")
    stage.evidence.add(found)
    demand([found])


def trust_lines(stage: Stage) -> list[str]:
    """Return the declared access rules that let anybody from the network in without a credential."""
    return [
        line
        for line in changes.declared_rules(stage.manifest)
        if line.split()[-1:] == ["trust"] and line.split()[0] != "local"
    ]


def _everywhere(stage: Stage, user: str, password: Secret, tls: str) -> dict[str, Login]:
    """Return logins at every instance and through both Services, in two databases each."""
    known = stage.targets.from_secret()
    ((_, port),) = known.hosts
    hosts = {
        one.pod: f"{one.pod}.{stage.targets.cluster}-pods.{stage.namespace}.svc"
        for one in stage.postgres.observe().instances
    }
    if not hosts:
        raise Inconclusive("there is no instance to be let in at")
    for service in ("primary", "replicas"):
        hosts[f"the {service} Service"] = f"{stage.targets.cluster}-{service}.{stage.namespace}.svc"
    return {
        f"{where}, database {database}": Login.at(
            host, port, user=user, database=database, password=password, tls=tls
        )
        for where, host in hosts.items()
        for database in dict.fromkeys(("postgres", known.database))
    }
