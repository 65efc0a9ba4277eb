"""The client's connections notice a network that is gone."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from standin.server import ca_file, client_of, running_api_server

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.objects import NAMESPACE

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_KEEPIDLE"), reason="keepalive is tuned where the system allows it"
)


def test_a_dead_peer_is_given_up_after_25_seconds() -> None:
    async def story() -> None:
        made: list[socket.socket] = []

        def factory(address: Any) -> socket.socket:
            made.append(socket.socket(*address[:3]))
            return made[-1]

        async with (
            running_api_server() as (server, admin),
            ApiClient(
                admin.url, ca_file=ca_file(server), token="none", socket_factory=factory
            ) as client,
        ):
            with pytest.raises(ApiError) as refused:
                await client.list(NAMESPACE)
            assert refused.value.code == 401
            (one,) = made
            option = {
                name: one.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            }
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, pause, count = (
                option["TCP_KEEPIDLE"],
                option["TCP_KEEPINTVL"],
                option["TCP_KEEPCNT"],
            )
            assert idle + pause * count == 25
            assert option["TCP_USER_TIMEOUT"] == 25_000

    asyncio.run(story())


def test_a_refused_connection_is_an_api_error_without_a_code() -> None:
    async def story() -> None:
        async with running_api_server() as (server, admin):
            other = client_of(server, admin, "none")
            with socket.create_server(("127.0.0.1", 0)) as door:
                port = door.getsockname()[1]
            other.url = f"https://127.0.0.1:{port}"
            with pytest.raises(ApiError) as away:
                await other.list(NAMESPACE)
            assert away.value.code == 0
            await other.close()

    asyncio.run(story())
