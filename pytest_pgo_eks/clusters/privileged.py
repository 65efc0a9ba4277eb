"""What ``--pgo-allow-privileged`` adds to what a cluster can do."""

from __future__ import annotations

from dataclasses import replace

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.settings import Settings

_PODS = "privileged-pods"
_CUTS = "partition"
_CLOCK = "clock-shift"
_ASK = "only a privileged helper pod can do it: --pgo-allow-privileged allows that"
# A helper sets a node's clock, and a node of these is a container under the clock of this machine.
_DESKS = frozenset({"kind", "k3s"})


def with_allowed(handle: ClusterHandle, settings: Settings) -> ClusterHandle:
    """Return the handle with the capabilities that privileged helper pods give it.

    The stand-in has means of its own and no nodes worth the name. Where admission refuses
    privileged pods nothing is added.
    """
    if handle.stand_in:
        told = f"{_CLOCK} needs nodes that are machines; a namespace has no clock of its own"
        return replace(handle, lacks={_CLOCK: told, **handle.lacks})
    if not settings.allow_privileged:
        asked = {name: _ASK for name in (_CUTS, _CLOCK) if name not in handle.capabilities}
        return replace(handle, lacks={**handle.lacks, **asked})
    if refused := handle.lacks.get(_PODS):
        return replace(handle, lacks={**handle.lacks, _CUTS: refused, _CLOCK: refused})
    added = {_CUTS} if handle.provider in _DESKS else {_CUTS, _CLOCK}
    lacks = {name: why for name, why in handle.lacks.items() if name not in added}
    if handle.provider in _DESKS:
        lacks[_CLOCK] = f"the nodes of {handle.provider} share the clock of this machine"
    return replace(handle, capabilities=handle.capabilities | added, lacks=lacks)
