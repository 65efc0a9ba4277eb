"""Everything needed to start a container, from its specification and its pod's state."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.kubelet.containers import ContainerPlan
from pytest_pgo_eks.local.kubelet.environment import (
    Sources,
    command,
    environment,
    service_variables,
)
from pytest_pgo_eks.local.kubelet.images import Image
from pytest_pgo_eks.local.kubelet.logs import newest_first, remove_log
from pytest_pgo_eks.local.kubelet.references import Place
from pytest_pgo_eks.local.kubelet.rootfs import View, search_path
from pytest_pgo_eks.local.kubelet.sandbox import Sandbox
from pytest_pgo_eks.local.kubelet.shared import Shared
from pytest_pgo_eks.local.kubelet.status import Record
from pytest_pgo_eks.local.kubelet.users import wanted_user
from pytest_pgo_eks.local.kubelet.volumes import Volumes
from pytest_pgo_eks.local.objects import SERVICE, Obj

_LINKS_RETRY_S = 0.2


class PodLike(Protocol):
    """What a container needs of its pod."""

    obj: Obj
    shared: Shared
    directory: Path
    volumes: Volumes
    services: Mapping[str, str]
    place: Place
    sources_changed: asyncio.Event

    @property
    def sandbox(self) -> Sandbox: ...
    @property
    def terminating(self) -> bool: ...

    def changed(self) -> None: ...
    def event(
        self, reason: str, message: str, record: Record | None = None, *, warning: bool = False
    ) -> None: ...


async def make_plan(pod: PodLike, record: Record, image: Image) -> ContainerPlan:
    """Return how to start the container now, with a new log.

    :raises ConfigProblem: something that it refers to does not exist, or it must not be root.
    :raises Unresolvable: a reference that can never be resolved.
    :raises NotYet: a mount of a volume that the pod does not have.
    """
    spec = record.spec
    record.image_id = image.image_id
    uid, gid = wanted_user(pod.obj, spec, image)
    etc, home = pod.sandbox.etc(uid, gid)
    inherited = {
        "PATH": search_path(image),
        "HOSTNAME": pod.sandbox.hostname,
        "HOME": home,
    } | dict(image.env)
    if spec.get("tty"):
        inherited["TERM"] = "xterm"
    shared, namespace = pod.shared, pod.obj["metadata"]["namespace"]
    sources = Sources(
        lambda name: shared.secret(namespace, name),
        lambda name: shared.config_map(namespace, name),
        pod.services,
    )
    env = environment(pod.obj, spec, sources, pod.place, inherited)
    argv = command(spec, env, image.default_command)
    if spec.get("tty"):
        # Gives the program its terminal, and so job control and Ctrl-C.
        argv = ["/usr/bin/setsid", "--ctty", *argv]
    context = spec.get("securityContext") or {}
    where = pod.directory / "containers" / record.name
    where.mkdir(parents=True, exist_ok=True)
    message = where / "termination-log"
    message.write_bytes(b"")
    workdir = spec.get("workingDir") or "/"
    view = View(
        image=image,
        mounts=pod.volumes.mounts(spec, env),
        host_etc=shared.host_etc,
        etc=etc,
        scripts=pod.sandbox.scripts(image),
        termination_log=(message, spec.get("terminationMessagePath") or "/dev/termination-log"),
        read_only_root=bool(context.get("readOnlyRootFilesystem")),
        workdir=workdir,
        home=home,
    )
    return ContainerPlan(
        view_arguments=view.arguments(),
        command=argv,
        env=env,
        namespaces=pod.sandbox.namespaces,
        user=await shared.users.namespace(uid, gid),
        log=_next_log(pod, record),
        termination_log=message,
        workdir=workdir,
        stdin=bool(spec.get("stdin")),
        tty=bool(spec.get("tty")),
    )


def log_directory(pod: PodLike, record: Record) -> Path:
    return pod.directory / "logs" / record.name


def _next_log(pod: PodLike, record: Record) -> Path:
    directory = log_directory(pod, record)
    directory.mkdir(parents=True, exist_ok=True)
    # The run before is all that "previous" can ask for.
    for old in newest_first(directory)[1:]:
        remove_log(old)
    path = directory / f"{record.restarts}.log"
    remove_log(path)
    return path


async def service_links(client: ApiClient, pod: Obj) -> dict[str, str]:
    """Return the variables that tell a pod of Services; waits until the API knows its own one."""
    namespace = pod["metadata"]["namespace"]
    while True:
        try:
            api = await client.get(SERVICE, "kubernetes", "default")
            found = service_variables([api], own_namespace=False)
            if pod["spec"].get("enableServiceLinks") is not False:
                listed = await client.list(SERVICE, namespace)
                found |= service_variables(listed.items, own_namespace=True)
        except ApiError:
            await asyncio.sleep(_LINKS_RETRY_S)
        else:
            return found
