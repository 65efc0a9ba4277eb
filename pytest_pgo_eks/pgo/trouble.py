"""Why a cluster does not come up: what pods, volumes, events and logs say, the telling line first.

A trouble has a grace: images are pulled twice, a volume waits for its pod, an autoscaler needs time.
What outlives its grace is hopeless, and waiting longer only hides the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.secrets import filtered

Object = dict[str, Any]

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"})
_NEVER = frozenset({"InvalidImageName", "CreateContainerConfigError", "CreateContainerError"})
_BOOTSTRAP = frozenset({"initdb failed", "custom bootstrap failed", "start failed"})
# One crash is forgiven: PostgreSQL or Patroni may come before the rest of the cluster.
_CRASHES = 2
# What PostgreSQL, initdb and the system say of a cause, before what others say of its effect.
_TELLING = (
    re.compile(r"PANIC|FATAL|[Pp]ermission denied|No space left|could not|invalid value"),
    re.compile(r"CRITICAL|ERROR|[Ee]rror|[Ff]ail|[Dd]enied|[Rr]efused|not found|Traceback"),
)
_DULL = re.compile(
    r"database system is (starting up|shutting down)|not yet accepting connections"
    r"|terminating (connection|walreceiver|background)"
)
_TAIL = 300


@dataclass(frozen=True)
class Trouble:
    """One reason. ``key`` is stable while it lasts; ``grace_s`` is for the stand-in, in seconds.

    ``log`` names the container (and whether its previous life) whose log explains it.
    """

    key: str
    sentence: str
    grace_s: float
    log: tuple[str, str, bool] | None = None


def troubles(pods: Iterable[Object], claims: Iterable[Object]) -> list[Trouble]:
    """Return what is wrong with a cluster's pods and claims now, the worst first."""
    found = [trouble for pod in pods for trouble in _of_pod(pod)]
    found += [trouble for claim in claims if (trouble := _of_claim(claim))]
    return sorted(found, key=lambda one: one.grace_s)


class Patience:
    """Remembers since when each trouble lasts.

    ``scale`` multiplies every grace: real clusters pull images and wait for autoscalers.
    """

    def __init__(self, now: Callable[[], float], scale: float = 1.0) -> None:
        self._now = now
        self._scale = scale
        self._since: dict[str, float] = {}

    def hopeless(self, current: Sequence[Trouble]) -> Trouble | None:
        """Return the first trouble that has outlived its grace."""
        now = self._now()
        self._since = {one.key: self._since.get(one.key, now) for one in current}
        for one in current:
            if now - self._since[one.key] >= one.grace_s * self._scale:
                return one
        return None


def explain(kube: Kube, namespace: str, cluster: str, current: Sequence[Trouble]) -> list[str]:
    """Return the reasons as lines, completed by Events and the telling line of a log.

    Never raises: an explanation that cannot be had says so in its line.
    """
    lines = [_with_log(kube, namespace, one) for one in current]
    try:
        lines += _warnings(kube.list("Event", namespace), cluster)
    except ApiProblem as problem:
        lines.append(f"Events cannot be read: {problem}")
    return list(dict.fromkeys(lines))


def silent_trouble(pod: str) -> Trouble:
    """Return the trouble of an instance that is not ready and about which nothing else is known."""
    return Trouble(
        f"{pod} not ready", f"{pod} is not ready", grace_s=600, log=(pod, names.DATABASE, False)
    )


def telling_line(text: str) -> str | None:
    """Return the last line of a log that sounds like a reason, else its last line at all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for telling in _TELLING:
        for line in reversed(lines):
            if telling.search(line) and not _DULL.search(line):
                return filtered(line)[:400]
    return filtered(lines[-1])[:400] if lines else None


def _of_pod(pod: Object) -> list[Trouble]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return []
    found = [
        Trouble(
            f"{name} unschedulable",
            f"{name} cannot be scheduled: {condition.get('message', '')}",
            grace_s=20,
        )
        for condition in status.get("conditions") or []
        if condition.get("reason") == "Unschedulable"
    ]
    containers = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    found += [trouble for one in containers if (trouble := _of_container(name, one))]
    said = names.notes(pod).get(names.STATUS) or ""
    for state in _BOOTSTRAP:
        if f'"state":"{state}"' in said.replace('": "', '":"'):
            found.append(
                Trouble(
                    f"{name} {state}",
                    f"{name}: Patroni says {state!r}",
                    grace_s=15,
                    log=(name, names.DATABASE, False),
                )
            )
    return found


def _of_container(pod: str, one: Object) -> Trouble | None:
    name, waiting = one["name"], (one.get("state") or {}).get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    where = f"{pod}/{name}"
    if reason in _IMAGE:
        return Trouble(
            f"{where} image",
            f"{where}: image {one.get('image')} cannot be pulled: {message or reason}",
            grace_s=8,
        )
    if reason in _NEVER:
        return Trouble(f"{where} {reason}", f"{where}: {reason}: {message}", grace_s=8)
    restarts = int(one.get("restartCount", 0))
    if restarts >= _CRASHES and (reason == "CrashLoopBackOff" or not one.get("ready")):
        last = (one.get("lastState") or {}).get("terminated") or {}
        return Trouble(
            f"{where} crash",
            f"{where} crashed {restarts} times, last with exit status {last.get('exitCode', '?')}",
            grace_s=8 if reason == "CrashLoopBackOff" else 30,
            log=(pod, name, True),
        )
    return None


def _of_claim(claim: Object) -> Trouble | None:
    name, phase = claim["metadata"]["name"], (claim.get("status") or {}).get("phase")
    if phase in (None, "Bound"):
        return None
    wanted = claim["spec"].get("storageClassName") or "the default storage class"
    return Trouble(
        f"claim {name}", f"volume claim {name} is {phase}, of storage class {wanted}", grace_s=60
    )


def _with_log(kube: Kube, namespace: str, one: Trouble) -> str:
    if one.log is None:
        return one.sentence
    pod, container, previous = one.log
    for earlier in dict.fromkeys((previous, False)):
        try:
            text = kube.logs(namespace, pod, container=container, previous=earlier, tail=_TAIL)
        except ApiProblem as problem:
            said = f"its log cannot be read: {problem}"
            continue
        line = telling_line(text)
        if line:
            return f"{one.sentence}; its log: {line}"
        said = "its log is empty"
    return f"{one.sentence}; {said}"


def _warnings(events: Iterable[Object], cluster: str) -> list[str]:
    """Return warnings about the cluster's objects, the newest of each kind, the latest last."""
    newest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for event in events:
        about = event.get("involvedObject") or {}
        name = str(about.get("name", ""))
        mine = name == cluster or name.startswith(f"{cluster}-")
        # A probe that fails while things start says nothing.
        if event.get("type") == "Warning" and mine and event.get("reason") != "Unhealthy":
            newest[str(event.get("reason")), name] = event
    return [
        f"{event['involvedObject'].get('kind')} {name}: {reason}: "
        f"{filtered(' '.join(str(event.get('message', '')).split()))[:300]}"
        for (reason, name), event in newest.items()
    ][-8:]
