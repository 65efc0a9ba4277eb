"""exec, logs and port-forward: what reaches the kubelet, and what comes back."""

from __future__ import annotations

import aiohttp
import pytest

from local_apiserver.api_bench import Bench, on_ours, pod, served
from local_apiserver.fake_kubelet import TOKEN, kubelet_of
from pytest_pgo_eks.local.objects import POD


@served(kubelet_token=TOKEN)
async def test_a_command_runs_where_the_pod_is(bench: Bench) -> None:
    async with kubelet_of(bench) as kubelet:
        done = await bench.admin.exec("default", "web", ["echo", "a b"])
        assert (done.exit_status, done.stdout, done.stderr) == (0, b"out:echo a b", b"err")
        path, query, protocol = kubelet.asked[-1]
        assert path == "/exec/default/web/main"
        assert query == [("command", "echo"), ("command", "a b"), ("output", "1"), ("error", "1")]
        assert protocol == "v5.channel.k8s.io"
        assert (await bench.admin.exec("default", "web", ["fail"])).exit_status == 7
        big = b"x" * 300_000 + b"END"
        given = await bench.admin.exec("default", "web", ["cat"], stdin=big)
        assert given.stdout == b"out:cat" + big
        assert ("input", "1") in kubelet.asked[-1][1]


@pytest.mark.parametrize("wanted", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
def test_the_client_chooses_the_protocol(wanted: str) -> None:
    async def scenario(bench: Bench) -> None:
        admin = bench.admin
        async with kubelet_of(bench) as kubelet:
            url = admin.url + POD.path("default", "web", "exec") + "?command=x&stdout=true"
            async with admin._open().ws_connect(
                url, headers=admin._headers(), protocols=("odd.k8s.io", wanted)
            ) as stream:
                assert stream.protocol == wanted
                frames = [message.data async for message in stream]
            assert [frame[0] for frame in frames] == [1, 2, 3]
            assert kubelet.asked[-1][2] == wanted
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await admin._open().ws_connect(url, headers=admin._headers(), protocols=("odd",))
            assert caught.value.status == 400

    on_ours(scenario, kubelet_token=TOKEN)


@served(kubelet_token=TOKEN)
async def test_a_client_that_leaves_ends_the_command(bench: Bench) -> None:
    async with kubelet_of(bench) as kubelet:
        admin = bench.admin
        url = admin.url + POD.path("default", "web", "exec") + "?command=hang&stdout=true"
        async with admin._open().ws_connect(
            url, headers=admin._headers(), protocols=("v4.channel.k8s.io",)
        ) as stream:
            assert (await stream.receive_bytes())[:1] == b"\x01"
        await kubelet.left.wait()


@served(kubelet_token=TOKEN)
async def test_spdy_is_refused_with_the_way_out(bench: Bench) -> None:
    async with kubelet_of(bench):
        admin = bench.admin
        url = admin.url + POD.path("default", "web", "exec") + "?command=x"
        headers = admin._headers() | {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
        async with admin._open().post(url, headers=headers) as answer:
            assert answer.status == 400
            assert "WebSocket only" in (await answer.json())["message"]
        # What kubectl shows of a mistyped container, as it falls back to SPDY.
        async with admin._open().post(url + "&container=nosuch", headers=headers) as answer:
            assert (await answer.json())["message"] == "container nosuch is not valid for pod web"


@served(kubelet_token=TOKEN)
async def test_logs_come_as_they_are_written(bench: Bench) -> None:
    async with kubelet_of(bench) as kubelet:
        admin = bench.admin
        url = admin.url + POD.path("default", "web", "log")
        session, headers = admin._open(), admin._headers()
        async with session.get(url + "?tailLines=5&timestamps=true", headers=headers) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert await answer.read() == b"first line\n"
        path, query, _ = kubelet.asked[-1]
        assert path == "/containerLogs/default/web/main"
        assert dict(query) == {"tailLines": "5", "timestamps": "true"}
        async with session.get(url + "?follow=true", headers=headers) as answer:
            assert await answer.content.readline() == b"first line\n"
            assert await answer.content.readline() == b"more\n"
        await kubelet.left.wait()
        with bench.refused(400, "BadRequest", "previous terminated container"):
            await admin.request("GET", POD.path("default", "web", "log") + "?previous=true")
        with bench.refused(400, "BadRequest", "container side is not valid for pod web"):
            await admin.request("GET", POD.path("default", "web", "log") + "?container=side")


@served(kubelet_token=TOKEN)
async def test_ports_are_forwarded_as_the_python_client_speaks(bench: Bench) -> None:
    async with kubelet_of(bench) as kubelet:
        admin = bench.admin
        url = admin.url + POD.path("default", "web", "portforward") + "?ports=5432"
        async with admin._open().ws_connect(
            url, headers=admin._headers(), protocols=("v4.channel.k8s.io",)
        ) as stream:
            assert await stream.receive_bytes() == b"\x00" + (5432).to_bytes(2, "little")
            assert await stream.receive_bytes() == b"\x01" + (5432).to_bytes(2, "little")
            await stream.send_bytes(b"\x00hello")
            assert await stream.receive_bytes() == b"\x00HELLO"
        await kubelet.left.wait()
        assert kubelet.asked[-1][:2] == ("/portForward/default/web", [("port", "5432")])


@served(kubelet_token="wrong")
async def test_a_kubelet_that_cannot_be_used_is_named(bench: Bench) -> None:
    admin = bench.admin
    await admin.create(POD, pod("loose"), "default")
    with bench.refused(400, "BadRequest", "pod loose does not have a host assigned"):
        await admin.request("GET", POD.path("default", "loose", "log"))
    async with kubelet_of(bench):
        with bench.refused(500, "InternalError", "Unauthorized"):
            await admin.request("GET", POD.path("default", "web", "log"))
    with bench.refused(500, "InternalError", "cannot reach the kubelet of pod default/web"):
        await admin.request("GET", POD.path("default", "web", "log"))
