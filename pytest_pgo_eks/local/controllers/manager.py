"""Starting all controllers on one set of watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pytest_pgo_eks.local.apiclient import ApiClient
from pytest_pgo_eks.local.controllers.claims import Claims
from pytest_pgo_eks.local.controllers.context import Context, Controller, ControllerConfig
from pytest_pgo_eks.local.controllers.cronjob import CronJobs
from pytest_pgo_eks.local.controllers.deployment import Deployments
from pytest_pgo_eks.local.controllers.disruption import DisruptionBudgets
from pytest_pgo_eks.local.controllers.endpoints import EndpointsController
from pytest_pgo_eks.local.controllers.endpointslices import EndpointSlices
from pytest_pgo_eks.local.controllers.garbage import GarbageCollector
from pytest_pgo_eks.local.controllers.informers import Informers
from pytest_pgo_eks.local.controllers.job import Jobs
from pytest_pgo_eks.local.controllers.kinds import AllKinds
from pytest_pgo_eks.local.controllers.namespaces import NamespaceDefaults, NamespaceLifecycle
from pytest_pgo_eks.local.controllers.node_lifecycle import NodeLifecycle
from pytest_pgo_eks.local.controllers.pod_garbage import PodGarbage
from pytest_pgo_eks.local.controllers.recorder import Recorder
from pytest_pgo_eks.local.controllers.replicaset import ReplicaSets
from pytest_pgo_eks.local.controllers.scheduler import Scheduler
from pytest_pgo_eks.local.controllers.slice_mirroring import SliceMirroring
from pytest_pgo_eks.local.controllers.statefulset import StatefulSets
from pytest_pgo_eks.local.controllers.taint_eviction import TaintEviction
from pytest_pgo_eks.local.controllers.volumes import Volumes

_PLAIN: dict[str, Callable[[Context], Controller]] = {
    "namespace-defaults": NamespaceDefaults,
    "scheduler": Scheduler,
    "statefulset": StatefulSets,
    "deployment": Deployments,
    "replicaset": ReplicaSets,
    "job": Jobs,
    "cronjob": CronJobs,
    "endpoints": EndpointsController,
    "endpointslice": EndpointSlices,
    "endpointslicemirroring": SliceMirroring,
    "claims": Claims,
    "volumes": Volumes,
    "disruption": DisruptionBudgets,
    "node-lifecycle": NodeLifecycle,
    "taint-eviction": TaintEviction,
    "pod-garbage": PodGarbage,
}
# These watch everything that the API server serves.
_OF_ALL_KINDS: dict[str, Callable[[Context, AllKinds], Controller]] = {
    "garbage": GarbageCollector,
    "namespace": NamespaceLifecycle,
}
NAMES = frozenset(_PLAIN) | frozenset(_OF_ALL_KINDS)


async def run_controllers(client: ApiClient, *, config: ControllerConfig) -> None:
    """Run the controllers until cancelled. The client's identity must be allowed everything.

    Nothing is decided before every watched kind was listed once.

    :raises ValueError: ``config.only`` names a controller that does not exist.
    """
    names = NAMES if config.only is None else config.only
    unknown = sorted(names - NAMES)
    if unknown:
        known = ", ".join(sorted(NAMES))
        raise ValueError(f"unknown controllers {', '.join(unknown)}; known: {known}")
    recorder = Recorder(client)
    informers = Informers(client)
    context = Context(client, informers, recorder, config)
    running: dict[str, Controller] = {
        name: make(context) for name, make in _PLAIN.items() if name in names
    }
    kinds = AllKinds(context) if names & _OF_ALL_KINDS.keys() else None
    if kinds is not None:
        running |= {
            name: make(context, kinds) for name, make in _OF_ALL_KINDS.items() if name in names
        }
    async with asyncio.TaskGroup() as group:
        informers.start(group)
        group.create_task(recorder.run(), name="events")
        await informers.synced()
        if kinds is not None:
            group.create_task(kinds.run(), name="discovery")
        for name, controller in running.items():
            group.create_task(controller.run(), name=name)
