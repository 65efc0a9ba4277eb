"""The replication mode of the cluster under test: declared, in force, changed for one scenario."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.history.matrix import Mode
from pytest_pgo_eks.pgo import Observation, names
from pytest_pgo_eks.scenario.roles import synchronous_problem
from pytest_pgo_eks.scenario.stage import Stage

_FAILSAFE = "failsafe_mode"
_KEYS = ("synchronous_mode", "synchronous_mode_strict")
_WANTED: Mapping[Mode, Mapping[str, bool]] = {
    "async": {"synchronous_mode": False, "synchronous_mode_strict": False},
    "sync": {"synchronous_mode": True, "synchronous_mode_strict": False},
    "strict": {"synchronous_mode": True, "synchronous_mode_strict": True},
}


def use(stage: Stage, mode: Mode) -> None:
    """Bring the cluster into ``mode``, and back to what is declared when the scenario ends.

    Returns when the mode is *in force*: in Patroni's configuration, in the leader's
    ``synchronous_standby_names`` and, for the synchronous modes, by one attached standby.

    :raises WaitTimeout: it did not come into force.
    """
    if mode not in _WANTED:
        raise Inconclusive(f"no scenario can ask for mode {mode!r}")
    declared = _declared(stage.manifest)
    if declared != _WANTED[mode]:
        before = {key: _dynamic(stage.manifest).get(key) for key in _KEYS}
        stage.later(_restore, stage, before)
        _declare(stage, dict(_WANTED[mode]))
    _wait(stage, mode)


@contextmanager
def asynchronous_for_now(stage: Stage) -> Iterator[None]:
    """Let replication be asynchronous inside the block, and behind it as it was."""
    before = current(stage.postgres.observe())
    if before == "async":
        yield
        return
    # Whatever happens inside, the scenario's end brings back what was declared.
    declared = {key: _dynamic(stage.postgres.object()).get(key) for key in _KEYS}
    _declare(stage, dict(_WANTED["async"]))
    try:
        _wait(stage, "async")
        yield
    finally:
        _declare(stage, declared)
    _wait(stage, before)


def use_failsafe(stage: Stage) -> None:
    """Switch Patroni's ``failsafe_mode`` on until the scenario ends.

    Returns when the leader has published who belongs to the cluster: before that nobody could ask
    everybody, and the mode would protect nothing.
    """
    before = _dynamic(stage.manifest).get(_FAILSAFE)
    stage.later(_restore_failsafe, stage, before)
    _declare(stage, {_FAILSAFE: True})
    name = f"{stage.postgres.name}-ha"

    def published(_seen: Observation) -> bool:
        leader = stage.kube.get("Endpoints", name, stage.namespace)
        return len(json.loads(names.notes(leader).get("failsafe", "{}"))) > 1

    _until_failsafe(stage, published, "the leader to publish its failsafe members")


def _restore_failsafe(stage: Stage, before: bool | None) -> None:
    _declare(stage, {_FAILSAFE: before})
    _until_failsafe(
        stage,
        lambda seen: bool(seen.config.get(_FAILSAFE)) == bool(before),
        "failsafe mode to be as declared",
    )


def _until_failsafe(stage: Stage, accept: Callable[[Observation], bool], what: str) -> None:
    stage.postgres.wait(accept, within_s=stage.timeouts["configuration"], what=what)


def current(seen: Observation) -> Mode:
    """Return the mode that Patroni's configuration has in force."""
    if not seen.is_synchronous:
        return "async"
    if seen.config.get("synchronous_mode") == "quorum":
        return "quorum"
    return (
        "strict" if seen.config.get("synchronous_mode_strict") in (True, "on", "true") else "sync"
    )


def _dynamic(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    patroni = manifest["spec"].get("patroni") or {}
    return patroni.get("dynamicConfiguration") or {}


def _declared(manifest: Mapping[str, Any]) -> dict[str, bool]:
    dynamic = _dynamic(manifest)
    return {key: bool(dynamic.get(key)) for key in _KEYS}


def _declare(stage: Stage, values: Mapping[str, bool | None]) -> None:
    stage.postgres.change({"spec": {"patroni": {"dynamicConfiguration": dict(values)}}})


def _restore(stage: Stage, values: Mapping[str, bool | None]) -> None:
    """Declare what was declared before; the health check behind the scenario waits for it."""
    _declare(stage, values)
    mode: Mode = "async"
    if values["synchronous_mode"]:
        mode = "strict" if values["synchronous_mode_strict"] else "sync"
    _wait(stage, mode)


def _wait(stage: Stage, mode: Mode) -> None:
    def in_force(seen: Observation) -> bool:
        if current(seen) != mode or len(seen.writable) != 1:
            return False
        names = seen.servers[seen.writable[0]].synchronous_standby_names
        if mode == "async":
            return names == ""
        return names != "" and synchronous_problem(seen) is None

    stage.postgres.wait(
        in_force,
        within_s=stage.timeouts["configuration"],
        sql=True,
        what=f"replication mode {mode!r} to be in force",
    )
