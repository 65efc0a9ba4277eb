"""Sessions that are given up in the very moment in which they are ready: nobody may hear of them."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any, cast

import pytest

from pytest_pgo_eks.probe.agent import connect
from pytest_pgo_eks.probe.agent.connect import ConnectFailed, Target, open_session, run
from pytest_pgo_eks.probe.agent.wire import Session
from pytest_pgo_eks.probe.agent.workers import Worker

_LET_IN = b"R" + struct.pack(">ii", 8, 0) + b"Z" + struct.pack(">i", 5) + b"I"


class Ready(Session):
    """A session whose opener is cancelled as soon as the server is ready for it."""

    opener: asyncio.Task[Any] | None = None

    def _answered(self) -> None:
        super()._answered()
        assert Ready.opener is not None
        Ready.opener.cancel()


class Welcome(asyncio.Protocol):
    """Lets everybody in, and then says nothing; ``gone`` counts who has left."""

    gone: asyncio.Semaphore

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if data:
            self.transport.write(_LET_IN)

    def connection_lost(self, exc: Exception | None) -> None:
        Welcome.gone.release()


@contextlib.asynccontextmanager
async def server(guests: int) -> Any:
    """Serve until so many have left."""
    Welcome.gone = asyncio.Semaphore(0)
    running = await asyncio.get_running_loop().create_server(Welcome, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]
        for _ in range(guests):
            await asyncio.wait_for(Welcome.gone.acquire(), 30)


def at(port: int) -> Target:
    return Target(hosts=(("127.0.0.1", port),), user="u", database="d", tls="disable")


def test_the_end_of_a_session_that_was_given_up_is_told_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "Session", Ready)
    heard: list[Session] = []

    async def story() -> None:
        async with server(1) as port:
            Ready.opener = asyncio.create_task(open_session(at(port), heard.append))
            with pytest.raises(asyncio.CancelledError):
                await Ready.opener

    asyncio.run(story())
    assert not heard, "whoever gave it up would open a second session beside its next one"


def test_the_end_of_a_session_that_was_handed_over_is_told() -> None:
    heard: list[Session] = []

    async def story() -> None:
        async with server(2) as port:
            session = await open_session(at(port), heard.append)
            session.abort("for the test")
            late = await open_session(at(port))
            late.abort("before anybody attends to it")
            late.attend(heard.append)
            with pytest.raises(ConnectFailed, match="before anybody attends"):
                await run(late, b"")

    asyncio.run(story())
    assert len(heard) == 2


class Line:
    """A session that takes one request and no other before its answer."""

    alive = True

    def __init__(self) -> None:
        self.asked = 0

    def request(self, _message: bytes, _finish: Any) -> None:
        if self.asked:
            raise RuntimeError("this session has not answered yet")
        self.asked += 1


class Road:
    """As much of a path as a worker needs to send something."""

    class shared:  # noqa: N801 -- stands for an attribute
        stopping = False
        ops = 0

        @classmethod
        def new_client(cls) -> int:
            return 1

        class recorder:  # noqa: N801
            @classmethod
            def new_op(cls) -> int:
                Road.shared.ops += 1
                return Road.shared.ops

    class plan:  # noqa: N801
        prepared = False

    class _Binding:
        def message(self, *_: int) -> bytes:
            return b""

    full = (b"", _Binding())


def test_a_second_request_takes_nothing_from_the_first() -> None:
    async def story() -> tuple[int, bool]:
        worker = Worker(cast(Any, Road), 0, 0, 0.0, None)
        worker._session = cast(Any, Line())
        worker._begin()
        first = worker._op
        with pytest.raises(RuntimeError, match="not answered"):
            worker._begin()
        return first, worker._op == first

    first, kept = asyncio.run(story())
    assert first == 1
    assert kept, "the answer of the first would be recorded under the number of the second"
