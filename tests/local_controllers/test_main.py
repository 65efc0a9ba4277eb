"""The controllers as a program of their own."""

from __future__ import annotations

import asyncio
import base64
import signal
import sys
from pathlib import Path

import pytest
import yaml
from standin.server import kubeconfig, running_api_server

from pytest_pgo_eks.local.controllers.__main__ import connect, main
from pytest_pgo_eks.local.objects import CONFIG_MAP, STORAGE_CLASS


def test_it_serves_whom_the_kubeconfig_names(tmp_path: Path) -> None:
    async def story() -> int:
        async with running_api_server() as (server, client):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pytest_pgo_eks.local.controllers",
                f"--kubeconfig={kubeconfig(server, client)}",
                f"--storage-root={tmp_path}",
                "--only=namespace-defaults,claims",
            )
            try:
                async with asyncio.timeout(30):
                    while True:
                        await asyncio.sleep(0.02)
                        root = await client.find(CONFIG_MAP, "kube-root-ca.crt", "default")
                        if root and await client.find(STORAGE_CLASS, "standin-local"):
                            break
                assert root is not None
                assert "BEGIN CERTIFICATE" in root["data"]["ca.crt"]
            finally:
                process.send_signal(signal.SIGTERM)
                code = await process.wait()
            return code

    assert asyncio.run(story()) == 0


def test_certificates_in_line(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_api_server() as (server, _):
            pki = server.state / "pki"

            def line(name: str) -> str:
                return base64.b64encode((pki / name).read_bytes()).decode()

            user = {
                "client-certificate-data": line("kubelet.crt"),
                "client-key-data": line("kubelet.key"),
            }
            cluster = {"server": "https://here:1", "certificate-authority-data": line("ca.crt")}
            config = {
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
                "current-context": "c",
            }
            written = tmp_path / "config"
            written.write_text(yaml.safe_dump(config))
            client, authority = connect(written, None, tmp_path)
            assert client.url == "https://here:1"
            assert authority == (pki / "ca.crt").read_text()
            assert (tmp_path / "client-key").stat().st_mode & 0o77 == 0
            with pytest.raises(ValueError, match="other"):
                connect(written, "other", tmp_path)

    asyncio.run(story())


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--kubeconfig={tmp_path}/none"]) == 2
    assert main([f"--kubeconfig={tmp_path}/none", "--only=schedular"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "unknown controllers: schedular" in said[1]
