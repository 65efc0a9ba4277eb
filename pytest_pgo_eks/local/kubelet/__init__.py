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
        self._tls = tls
        self._token = token
        self._settings = settings or Settings()
        self._home: Home | None = None
        self._users = Users()
        self._servers: list[StreamingServer] = []
        self.agents: list[NodeAgent] = []

    async def start(self) -> None:
        """Serve the kubelets' own API, register the nodes, and begin to run pods.

        :raises OSError: this process may not use namespaces.
        """
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._home = Home()
        attachments = Attachments()
        probe_tls = unverified_tls()
        for node in self._nodes:
            agent = NodeAgent(
                node=node,
                client=self._client_factory(node.name),
                network=self._network,
                home=self._home,
                users=self._users,
                attachments=attachments,
                probe_tls=probe_tls,
                state=self._state,
                settings=self._settings,
            )
            self.agents.append(agent)
            server = StreamingServer(agent, self._tls, self._token)
            self._servers.append(server)
            await server.start()
        await asyncio.gather(*(agent.start() for agent in self.agents))

    async def stop(self) -> None:
        """Kill every pod and close everything. Idempotent."""
        await asyncio.gather(*(agent.stop() for agent in self.agents))
        self.agents.clear()
        for server in self._servers:
            with contextlib.suppress(OSError):
                await server.stop()
        self._servers.clear()
        await self._users.close()
        if self._home:
            self._home.close()
            self._home = None
