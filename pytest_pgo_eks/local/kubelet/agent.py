"""One node's kubelet: follows the pods bound to the node and gives each its worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError, Cache
from pytest_pgo_eks.local.kubelet.events import Recorder
from pytest_pgo_eks.local.kubelet.namespaces import Home
from pytest_pgo_eks.local.kubelet.node import NodeReporter, capacity
from pytest_pgo_eks.local.kubelet.pods import Pod
from pytest_pgo_eks.local.kubelet.shared import NetworkLike, NodeLike, Settings, Shared
from pytest_pgo_eks.local.kubelet.users import Users
from pytest_pgo_eks.local.kubelet.volumes import Attachments
from pytest_pgo_eks.local.objects import CONFIG_MAP, POD, SECRET, Obj, key

_log = logging.getLogger(__name__)
_STOP_S = 5.0
_OVER = {"Succeeded", "Failed"}


class NodeAgent:
    """A kubelet. Its API traffic comes from the node's own network namespace."""

    def __init__(
        self,
        *,
        node: NodeLike,
        client: ApiClient,
        network: NetworkLike,
        home: Home,
        users: Users,
        attachments: Attachments,
        probe_tls: ssl.SSLContext,
        state: Path,
        host_etc: Path,
        settings: Settings,
    ) -> None:
        amounts = capacity()
        self.shared = Shared(
            node=node,
            client=client,
            network=network,
            home=home,
            users=users,
            recorder=Recorder(client, node.name),
            attachments=attachments,
            secrets=Cache(client, SECRET, changed=self._source_changed),
            config_maps=Cache(client, CONFIG_MAP, changed=self._source_changed),
            probe_tls=probe_tls,
            sockets=network.socket_factory(node.name),
            state=state / node.name,
            host_etc=host_etc,
            allocatable=amounts,
            settings=settings,
        )
        self.pods: dict[str, Pod] = {}
        self._reporter = NodeReporter(client, node, amounts, settings)
        self._bound = Cache(
            client, POD, fields=f"spec.nodeName={node.name}", changed=self._pod_changed
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._workers: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Register the node and begin to run what is bound to it."""
        self.shared.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._reporter.register()
        for cache in (self.shared.secrets, self.shared.config_maps):
            self._spawn(cache.run(), f"{cache.kind.plural} of {self.shared.node.name}")
        # A pod that starts before its sources are known would wait for nothing.
        await self.shared.secrets.synced.wait()
        await self.shared.config_maps.synced.wait()
        self._spawn(self._bound.run(), f"pods of {self.shared.node.name}")
        self._spawn(self.shared.recorder.run(), f"events of {self.shared.node.name}")
        self._spawn(self._reporter.run(), f"lease of {self.shared.node.name}")

    async def stop(self) -> None:
        """Kill every pod, saying nothing to the API."""
        tasks = [*self._tasks, *self._workers.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_STOP_S)
            for task in late:
                _log.warning("%s did not end within %g s", task.get_name(), _STOP_S)

    def find(self, namespace: str, name: str, uid: str | None = None) -> Pod | None:
        """Return the newest worker of a pod by name."""
        found = [
            pod
            for pod in self.pods.values()
            if pod.name == (namespace, name) and uid in {None, pod.uid}
        ]
        return found[-1] if found else None

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------ watches

    def _source_changed(self, _type: str, obj: Obj) -> None:
        namespace, name = key(obj)
        for pod in self.pods.values():
            if pod.name[0] == namespace:
                pod.source_changed(obj["kind"], name)

    def _pod_changed(self, type_: str, obj: Obj) -> None:
        try:
            self._dispatch(type_, obj)
        except Exception:  # noqa: BLE001
            # A pod that no kubelet could read must not stop the others.
            _log.exception("pod %s", "/".join(key(obj)))

    def _dispatch(self, type_: str, obj: Obj) -> None:
        uid = obj["metadata"]["uid"]
        known = self.pods.get(uid)
        if type_ == "DELETED":
            if known:
                known.vanish()
            return
        if known:
            known.update(obj)
            return
        older = self.find(*key(obj))
        if older:
            # Seen after a gap of the watch: the API has forgotten the other one.
            older.vanish()
        if (obj.get("status") or {}).get("phase") in _OVER:
            if obj["metadata"].get("deletionTimestamp"):
                self._spawn(self._forget(obj), f"forget {uid}")
            return
        self._begin(Pod(self.shared, obj, predecessor=older))

    def _begin(self, pod: Pod) -> None:
        self.pods[pod.uid] = pod
        task = asyncio.create_task(pod.run(), name=f"pod {'/'.join(pod.name)}")
        self._workers[pod.uid] = task

        def over(task: asyncio.Task[None]) -> None:
            self.pods.pop(pod.uid, None)
            self._workers.pop(pod.uid, None)
            if not task.cancelled() and task.exception():
                _log.error("pod %s", "/".join(pod.name), exc_info=task.exception())

        task.add_done_callback(over)
        if pod.obj["metadata"].get("deletionTimestamp"):
            pod.update(pod.obj)

    async def _forget(self, obj: Obj) -> None:
        namespace, name = key(obj)
        with contextlib.suppress(ApiError):
            uid = obj["metadata"]["uid"]
            await self.shared.client.delete(POD, name, namespace, grace_s=0, uid=uid)
