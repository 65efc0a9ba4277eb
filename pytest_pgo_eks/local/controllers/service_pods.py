"""Which Services to look at when a pod changes."""

from __future__ import annotations

from collections.abc import Callable

from pytest_pgo_eks.local.controllers.context import Context
from pytest_pgo_eks.local.controllers.endpoint_rules import pod_ip, selects
from pytest_pgo_eks.local.controllers.informers import Change
from pytest_pgo_eks.local.controllers.pods import is_ready, is_terminal, is_terminating, node_of
from pytest_pgo_eks.local.objects import POD, SERVICE, Obj, key, labels_of


class ServicePods:
    """Calls ``add`` with the key of every Service whose endpoints may have changed."""

    def __init__(self, context: Context, add: Callable[[tuple[str, str]], None]) -> None:
        self.services = context.of(SERVICE)
        self.pods = context.of(POD)
        self._add = add
        self.services.listen(lambda change: add(key(change.obj)))
        self.pods.listen(self._pod_changed)

    def of(self, service: Obj) -> list[Obj]:
        """Return the pods that the Service selects."""
        namespace = service["metadata"]["namespace"]
        return [pod for pod in self.pods.within(namespace) if selects(service, pod)]

    def _pod_changed(self, change: Change) -> None:
        # Patroni annotates every pod in every loop: that changes no endpoint.
        if change.old and change.new and _facts(change.old) == _facts(change.new):
            return
        states = [pod for pod in (change.old, change.new) if pod is not None]
        for service in self.services.within(key(change.obj)[0]):
            if any(selects(service, pod) for pod in states):
                self._add(key(service))


def _facts(pod: Obj) -> tuple[object, ...]:
    return (
        labels_of(pod),
        pod_ip(pod),
        is_ready(pod),
        is_terminal(pod),
        is_terminating(pod),
        node_of(pod),
    )
