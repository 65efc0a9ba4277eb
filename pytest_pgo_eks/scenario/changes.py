"""Changes of what the PostgresCluster declares, taken back when the scenario ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.scenario import roles, servers
from pytest_pgo_eks.scenario.stage import Stage


@dataclass(frozen=True)
class Change:
    """A parameter that the scenario declared, and the value it had everywhere before."""

    name: str
    value: str
    before: str


def declared_rules(manifest: Mapping[str, Any]) -> list[str]:
    """Return the pg_hba lines that the user declared, in the order PGO renders them."""
    spec = manifest["spec"]
    listed = [
        rule["hba"]
        for rule in (spec.get("authentication") or {}).get("rules") or []
        if "hba" in rule
    ]
    dynamic = (spec.get("patroni") or {}).get("dynamicConfiguration") or {}
    return [*listed, *((dynamic.get("postgresql") or {}).get("pg_hba") or [])]


def declare(stage: Stage, name: str, value: str) -> Change:
    """Declare a parameter, and remember what has to come back."""
    seen = stage.remember()
    before = stage.postgres.server(roles.primary(seen).pod).setting(name)
    change = Change(name, value, before)
    dynamic = (stage.manifest["spec"].get("patroni") or {}).get("dynamicConfiguration") or {}
    declared = ((dynamic.get("postgresql") or {}).get("parameters") or {}).get(name)
    stage.later(_restore, stage, change, declared)
    _set(stage, name, value)
    return change


def declare_more(stage: Stage, name: str, more: int) -> Change:
    """Declare a whole number that is greater than the one in force by ``more``."""
    pod = roles.primary(stage.postgres.observe(sql=True)).pod
    now = int(stage.postgres.server(pod).setting(name))
    return declare(stage, name, str(now + more))


def _set(stage: Stage, name: str, value: object) -> None:
    parameters = {"postgresql": {"parameters": {name: value}}}
    stage.postgres.change({"spec": {"patroni": {"dynamicConfiguration": parameters}}})


def _restore(stage: Stage, change: Change, declared: object) -> None:
    _set(stage, change.name, declared)
    within_s = stage.timeouts["configuration"]
    servers.setting_arrives(stage.postgres, change.name, change.before, within_s)
