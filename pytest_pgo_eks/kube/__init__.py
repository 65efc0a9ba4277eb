"""One thin client for Kubernetes: apply, get, watch, exec, forward, wait.

The only place that knows the official client. Nothing of it is imported before a
:class:`Kube` is made: that import costs a second of CPU.
"""

from __future__ import annotations

from pytest_pgo_eks.kube.client import Kube
from pytest_pgo_eks.kube.exec import ExecResult, ExecSession
from pytest_pgo_eks.kube.forward import Forward
from pytest_pgo_eks.kube.kinds import Resource
from pytest_pgo_eks.kube.wait import Clock, Wakeup, eventually, holds
from pytest_pgo_eks.kube.watcher import Feed, Watcher
from pytest_pgo_eks.kube.watching import WatchEvent

__all__ = [
    "Clock",
    "ExecResult",
    "ExecSession",
    "Feed",
    "Forward",
    "Kube",
    "Resource",
    "Wakeup",
    "WatchEvent",
    "Watcher",
    "eventually",
    "holds",
]
