"""A pod's row: how many containers are ready, and the one word for how it is."""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.local.apiserver.times import parse, since
from pytest_pgo_eks.local.objects import Obj

COLUMNS = (
    "Name",
    "Ready",
    "Status",
    "Restarts",
    "Age",
    "IP*",
    "Node*",
    "Nominated Node*",
    "Readiness Gates*",
)


def cells(pod: Obj) -> list[Any]:
    """Return the row's cells."""
    spec, status, metadata = pod["spec"], pod.get("status") or {}, pod["metadata"]
    word, restarts, last = _initialising(spec, status)
    ready = 0
    if word is None:
        word, restarts, last, ready = _running(status)
        if word == "Completed" and _any_running(status):
            word = "Running" if _is_ready(status) else "NotReady"
    if metadata.get("deletionTimestamp"):
        word = "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    again = f"{restarts} ({since(last)} ago)" if restarts and last else str(restarts)
    gates = spec.get("readinessGates") or []
    return [
        metadata.get("name", ""),
        f"{ready}/{len(spec.get('containers') or [])}",
        word,
        again,
        since(metadata.get("creationTimestamp")),
        status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        _gates(gates, status),
    ]


def _gates(gates: list[Obj], status: Obj) -> str:
    if not gates:
        return "<none>"
    true = {
        one.get("type", "")
        for one in status.get("conditions") or []
        if one.get("status", "") == "True"
    }
    return f"{sum(one['conditionType'] in true for one in gates)}/{len(gates)}"


def _why(terminated: Obj) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _latest(one: Obj, last: str | None) -> str | None:
    ended = ((one.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
    if ended and (last is None or parse(ended) > parse(last)):
        return str(ended)
    return last


def _initialising(spec: Obj, status: Obj) -> tuple[str | None, int, str | None]:
    """Return the word while init containers run, else None; and their restarts."""
    total = len(spec.get("initContainers") or [])
    sidecars = {
        one["name"]
        for one in spec.get("initContainers") or []
        if one.get("restartPolicy") == "Always"
    }
    restarts, last = 0, None
    for at, one in enumerate(status.get("initContainerStatuses") or []):
        restarts += one.get("restartCount", 0)
        last = _latest(one, last)
        state = one.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated and terminated.get("exitCode", 0) == 0:
            continue
        if one.get("name") in sidecars and one.get("started"):
            continue
        if terminated:
            return f"Init:{_why(terminated)}", restarts, last
        if waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}", restarts, last
        return f"Init:{at}/{total}", restarts, last
    return None, 0, None


def _running(status: Obj) -> tuple[str, int, str | None, int]:
    word = status.get("reason") or status.get("phase") or "Unknown"
    restarts, ready, last = 0, 0, None
    for one in reversed(status.get("containerStatuses") or []):
        restarts += one.get("restartCount", 0)
        last = _latest(one, last)
        state = one.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            word = state["waiting"]["reason"]
        elif "terminated" in state:
            word = _why(state["terminated"])
        elif one.get("ready") and "running" in state:
            ready += 1
    return str(word), restarts, last, ready


def _any_running(status: Obj) -> bool:
    return any(
        one.get("ready") and "running" in (one.get("state") or {})
        for one in status.get("containerStatuses") or []
    )


def _is_ready(status: Obj) -> bool:
    return any(
        one.get("type", "") == "Ready" and one.get("status", "") == "True"
        for one in status.get("conditions") or []
    )
