"""The way in for a kube-apiserver outside leads to the kubelets' ports and nowhere else."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from pytest_pgo_eks.local.egress import Egress


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def ask(path: Path, head: bytes, then: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")
        if then:
            writer.write(then)
            answer += await reader.readexactly(len(then))
        return answer
    finally:
        writer.close()


def test_only_kubelets_are_reached() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(100):
            writer.write(chunk)
        writer.close()

    async def scenario(path: Path) -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        known = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        egress = Egress(path, {known, "127.0.0.1:1"})
        await egress.start()
        try:
            assert mode(path) == 0o600
            through = await ask(path, f"CONNECT {known} HTTP/1.1\r\n\r\n".encode(), b"hello")
            assert through.startswith(b"HTTP/1.1 200 ")
            assert through.endswith(b"hello")
            for target in ("127.0.0.1:22", "10.250.0.1:6443", ""):
                said = await ask(path, f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
                assert said.startswith(b"HTTP/1.1 403 "), target
            assert (await ask(path, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
            nobody = await ask(path, b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
            assert nobody.startswith(b"HTTP/1.1 504 ")
        finally:
            await egress.stop()
            server.close()

    with tempfile.TemporaryDirectory(prefix="egress-") as place:
        path = Path(place) / "s"
        path.write_text("left by a cluster that died", "utf-8")
        asyncio.run(asyncio.wait_for(scenario(path), 20))
        assert not path.exists()
