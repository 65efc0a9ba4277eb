"""``kubectl port-forward``: SPDY frames in a WebSocket, and the program itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import struct
import zlib
from unittest import mock

import pytest
from standin.server import kubeconfig

from local_apiserver.api_bench import Bench, served
from local_apiserver.fake_kubelet import TOKEN, kubelet_of
from local_apiserver.kubectl_here import needs_kubectl
from pytest_pgo_eks.local.apiserver import tunnel
from pytest_pgo_eks.local.spdy import DICTIONARY, Connection, Event


def test_the_dictionary_is_that_of_the_protocol() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


class _Client:
    """The frames a SPDY client sends."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def open(self, stream: int, **headers: str) -> bytes:
        block = struct.pack(">I", len(headers))
        for pair in headers.items():
            for text in pair:
                block += struct.pack(">I", len(text)) + text.encode()
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(1, struct.pack(">IIBB", stream, 0, 0, 0) + packed)


def _control(kind: int, body: bytes) -> bytes:
    return struct.pack(">HHB", 0x8003, kind, 0) + len(body).to_bytes(3, "big") + body


def _data(stream: int, data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">IB", stream, flags) + len(data).to_bytes(3, "big") + data


def test_frames_may_come_in_any_pieces() -> None:
    client = _Client()
    sent = client.open(1, Port="80", StreamType="error") + client.open(3, Port="80")
    sent += _data(3, b"hello") + _data(3, b"", 1) + _control(3, struct.pack(">II", 1, 5))
    expected = [
        Event("open", 1, {"port": "80", "streamtype": "error"}),
        Event("open", 3, {"port": "80"}),
        Event("data", 3, {}, b"hello"),
        Event("end", 3, {}),
        Event("reset", 1, {}),
    ]
    for size in (1, 7, len(sent)):
        connection, events = Connection(), list[Event]()
        for at in range(0, len(sent), size):
            events += connection.receive(sent[at : at + size])
        assert events == expected


def test_answers_are_frames() -> None:
    connection = Connection()
    connection.accept(1)
    reply = connection.drain()
    assert reply[:4] == b"\x80\x03\x00\x02"
    block = zlib.decompressobj(zdict=DICTIONARY).decompress(reply[12:])
    assert block == b"\x00\x00\x00\x00"
    connection.send(3, b"x" * 100_000)
    connection.end(3)
    sent = connection.drain()
    assert sent.count(b"x") == 100_000
    assert sent.endswith(_data(3, b"", 1))
    connection.receive(_control(6, struct.pack(">I", 7)))
    assert connection.drain() == _control(6, struct.pack(">I", 7))
    connection.receive(_control(6, struct.pack(">I", 8)))
    assert connection.drain() == b""


@pytest.mark.parametrize(
    "data", [struct.pack(">HHI", 0x8002, 1, 0), b"\x00\x00\x00\x01\x00\xff\xff\xff"]
)
def test_what_is_not_spdy_3_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="SPDY"):
        Connection().receive(data)


@needs_kubectl
@served(kubelet_token=TOKEN)
async def test_kubectl_forwards_ports(bench: Bench) -> None:
    environment = os.environ | {
        "KUBECONFIG": str(kubeconfig(bench.server, bench.admin)),
        "HOME": str(bench.server.state),
    }
    quick = mock.patch.object(tunnel, "_ANSWER_S", 0.2)
    async with kubelet_of(bench) as kubelet:
        process = await asyncio.create_subprocess_exec(
            *("kubectl", "port-forward", "pod/web", ":5432"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        try:
            quick.start()
            assert process.stdout is not None
            async with asyncio.timeout(15):
                said = (await process.stdout.readline()).decode()
            found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> 5432", said)
            assert found, said
            for text in (b"hello", b"x" * 200_000):
                reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
                writer.write(text)
                async with asyncio.timeout(10):
                    assert await reader.readexactly(len(text)) == text.upper()
                kubelet.left.clear()
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
                async with asyncio.timeout(15):
                    await kubelet.left.wait()
            assert kubelet.asked[-1][:2] == ("/portForward/default/web", [("port", "5432")])
        finally:
            quick.stop()
            process.terminate()
            await process.wait()
