"""Which lines of a collection tell most: what a person would look for first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_SERIOUS = re.compile(
    r"\b(PANIC|FATAL|CRITICAL|Traceback|panic:|could not receive data|out of memory|"
    r"No space left|system identifier mismatch|please report it as a BUG)\b"
)
# PostgreSQL and Patroni write these in every healthy start or failover; they explain nothing.
_USUAL = re.compile(
    r"the database system is (starting up|shutting down|not yet accepting connections)|"
    r"terminating (connection|walreceiver|background worker) .*due to administrator command|"
    r"could not connect to the primary server|unable to find a valid repository"
)


def telling_log_lines(text: str, limit: int = 5) -> list[str]:
    """Return the last lines that name something serious."""
    found = [
        line.strip()
        for line in text.splitlines()
        if _SERIOUS.search(line) and not _USUAL.search(line)
    ]
    return found[-limit:]


def telling_events(events: Sequence[Mapping[str, Any]], limit: int = 8) -> list[str]:
    """Return the last warnings, one line for each object and reason."""
    seen: dict[tuple[str, str], str] = {}
    for event in events:
        if event.get("type") == "Warning":
            about = event["involvedObject"].get("name", "")
            reason = event.get("reason", "")
            seen.pop((about, reason), None)
            seen[about, reason] = f"event {reason} on {about}: {event.get('message', '')}"
    return list(seen.values())[-limit:]


def telling_pods(pods: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for every pod that is not what it should be."""
    for pod in pods:
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        if status.get("phase") == "Succeeded":
            continue
        if pod["metadata"].get("deletionTimestamp"):
            yield f"pod {name} is being deleted"
        conditions = {c["type"]: c for c in status.get("conditions") or []}
        scheduled = conditions.get("PodScheduled") or {}
        if scheduled.get("status") == "False":
            yield f"pod {name} is not scheduled: {scheduled.get('message', '')}"
        for container in status.get("containerStatuses") or []:
            yield from _telling_container(name, container)


def _telling_container(pod: str, container: Mapping[str, Any]) -> Iterator[str]:
    where = f"{pod}/{container['name']}"
    waiting = (container.get("state") or {}).get("waiting")
    if waiting:
        yield f"container {where} waits: {waiting.get('reason')}: {waiting.get('message', '')}"
    ended = (container.get("lastState") or {}).get("terminated")
    if ended:
        yield (
            f"container {where} was restarted {container.get('restartCount')} times, "
            f"last ended with {ended.get('exitCode')} ({ended.get('reason')})"
        )
    if not waiting and not container.get("ready"):
        yield f"container {where} is not ready"
