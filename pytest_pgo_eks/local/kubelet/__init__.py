"""The kubelets of the stand-in: pods as sandboxed processes on this host."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_pgo_eks.local.apiclient import ApiClient
from pytest_pgo_eks.local.kubelet.agent import NodeAgent
from pytest_pgo_eks.local.kubelet.namespaces import Home
from pytest_pgo_eks.local.kubelet.probing import unverified_tls
from pytest_pgo_eks.local.kubelet.rootfs import copy_host_etc
from pytest_pgo_eks.local.kubelet.shared import NetworkLike, NodeLike, Settings
from pytest_pgo_eks.local.kubelet.streaming import StreamingServer
from pytest_pgo_eks.local.kubelet.users import Users
from pytest_pgo_eks.local.kubelet.volumes import Attachments

__all__ = ["Kubelet", "Settings"]


class Kubelet:
    """The kubelets of all nodes, each under its own identity and in its node's network.

    ``client_factory`` returns a node's API client by its name; ``tls`` and ``token`` are for the
    streaming server that every node has on port 10250. Needs the root of a user namespace that
    also owns the network. Call everything from the main thread's event loop.
    """

    def __init__(
        self,
        *,
        nodes: Sequence[NodeLike],
        client_factory: Callable[[str], ApiClient],
        network: NetworkLike,
        state: Path,
        tls: ssl.SSLContext,
        token: str,
        settings: Settings | None = None,
    ) -> None:
        self._nodes = tuple(nodes)
        self._client_factory = client_factory
        self._network = network
        self._state = state
        self._host_etc = state / "host-etc"
        self._tls = tls
        self._token = token
        self._settings = settings or Settings()
        self._home: Home | None = None
        self._users = Users()
        self._attachments = Attachments()
        self._probe_tls = unverified_tls()
        self._running: dict[str, tuple[NodeAgent, StreamingServer]] = {}

    async def start(self) -> None:
        """Serve the kubelets' own API, register the nodes, and begin to run pods.

        :raises OSError: this process may not use namespaces.
        """
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._home = Home()
        if not self._host_etc.exists():
            await asyncio.to_thread(copy_host_etc, self._host_etc)
        await asyncio.gather(*(self._begin(node) for node in self._nodes))

    async def _begin(self, node: NodeLike) -> None:
        assert self._home
        agent = NodeAgent(
            node=node,
            client=self._client_factory(node.name),
            network=self._network,
            home=self._home,
            users=self._users,
            attachments=self._attachments,
            probe_tls=self._probe_tls,
            state=self._state,
            host_etc=self._host_etc,
            settings=self._settings,
        )
        server = StreamingServer(agent, self._tls, self._token)
        await server.start()
        self._running[node.name] = (agent, server)
        await agent.start()

    @property
    def agents(self) -> list[NodeAgent]:
        return [agent for agent, _ in self._running.values()]

    async def lose(self, node: str) -> None:
        """Kill everything on a node at once, as a power failure does. Nothing reaches the API.

        Cut the node off first, or its dying connections say goodbye. Idempotent.
        """
        agent, server = self._running.pop(node, (None, None))
        if agent and server:
            await agent.stop()
            with contextlib.suppress(OSError):
                await server.stop()

    async def restore(self, node: str) -> None:
        """Start a lost node again: it finds in the API what it has to run. Idempotent."""
        if node not in self._running:
            await self._begin(next(n for n in self._nodes if n.name == node))

    async def stop(self) -> None:
        """Kill every pod and close everything. Idempotent."""
        await asyncio.gather(*(self.lose(node) for node in tuple(self._running)))
        await self._users.close()
        if self._home:
            self._home.close()
            self._home = None
