"""Starting all controllers on one set of watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pytest_pgo_eks.local.apiclient import ApiClient
from pytest_pgo_eks.local.controllers.claims import Claims
from pytest_pgo_eks.local.controllers.context import Context, Controller, ControllerConfig
from pytest_pgo_eks.local.controllers.endpoints import EndpointsController
from pytest_pgo_eks.local.controllers.endpointslices import EndpointSlices
from pytest_pgo_eks.local.controllers.informers import Informers
from pytest_pgo_eks.local.controllers.recorder import Recorder
from pytest_pgo_eks.local.controllers.scheduler import Scheduler
from pytest_pgo_eks.local.controllers.slice_mirroring import SliceMirroring
from pytest_pgo_eks.local.controllers.statefulset import StatefulSets
from pytest_pgo_eks.local.controllers.volumes import Volumes

CONTROLLERS: dict[str, Callable[[Context], Controller]] = {
    "scheduler": Scheduler,
    "statefulset": StatefulSets,
    "endpoints": EndpointsController,
    "endpointslice": EndpointSlices,
    "endpointslicemirroring": SliceMirroring,
    "claims": Claims,
    "volumes": Volumes,
}


async def run_controllers(client: ApiClient, *, config: ControllerConfig) -> None:
    """Run the controllers until cancelled. The client's identity must be allowed everything.

    Nothing is decided before every watched kind was listed once.

    :raises ValueError: ``config.only`` names a controller that does not exist.
    """
    names = CONTROLLERS.keys() if config.only is None else config.only
    unknown = sorted(set(names) - CONTROLLERS.keys())
    if unknown:
        raise ValueError(
            f"unknown controllers {', '.join(unknown)}; known: {', '.join(CONTROLLERS)}"
        )
    recorder = Recorder(client)
    informers = Informers(client)
    context = Context(client, informers, recorder, config)
    controllers = {name: make(context) for name, make in CONTROLLERS.items() if name in names}
    async with asyncio.TaskGroup() as group:
        informers.start(group)
        group.create_task(recorder.run(), name="events")
        await informers.synced()
        for name, controller in controllers.items():
            group.create_task(controller.run(), name=name)
