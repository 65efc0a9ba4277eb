"""The "restricted" Pod Security Standard as a table: what a pod must say, and must not.

Of the standard's page for Kubernetes 1.34: every rule of "baseline" that a pod of ours could break,
and every rule of "restricted".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def _all_containers(spec: Object) -> Iterator[Object]:
    for name in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(name) or ()


def _said(spec: Object, container: Object, name: str) -> Any:
    """Return a field of a container, or of its pod where the container is silent."""
    own = container.get("securityContext") or {}
    return own.get(name, (spec.get("securityContext") or {}).get(name))


def _each(rule: Callable[[Object, Object], bool]) -> Callable[[Object], bool]:
    return lambda spec: all(rule(spec, one) for one in _all_containers(spec))


def _own(container: Object, name: str) -> Any:
    return (container.get("securityContext") or {}).get(name)


RULES: dict[str, Callable[[Object], bool]] = {
    "host namespaces": lambda spec: (
        not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    ),
    "privileged containers": _each(lambda _, one: not _own(one, "privileged")),
    "host ports": _each(lambda _, one: not any(p.get("hostPort") for p in one.get("ports") or ())),
    "proc mount": _each(lambda _, one: _own(one, "procMount") in (None, "Default")),
    "volume types": lambda spec: all(
        set(one) - {"name"} <= _VOLUMES for one in spec.get("volumes") or ()
    ),
    "privilege escalation": _each(lambda _, one: _own(one, "allowPrivilegeEscalation") is False),
    "running as non-root": _each(lambda spec, one: _said(spec, one, "runAsNonRoot") is True),
    "running as non-root user": _each(lambda spec, one: _said(spec, one, "runAsUser") != 0),
    "seccomp": _each(
        lambda spec, one: (
            (_said(spec, one, "seccompProfile") or {}).get("type")
            in ("RuntimeDefault", "Localhost")
        )
    ),
    "capabilities": _each(
        lambda _, one: (
            "ALL" in ((_own(one, "capabilities") or {}).get("drop") or ())
            and set((_own(one, "capabilities") or {}).get("add") or ()) <= {"NET_BIND_SERVICE"}
        )
    ),
}


def broken(spec: Object) -> list[str]:
    """Return the names of the rules that a pod breaks."""
    return [name for name, holds in RULES.items() if not holds(spec)]
