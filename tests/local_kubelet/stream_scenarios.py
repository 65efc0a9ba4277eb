"""Logs, exec, attach and port-forward, through the API server as users come to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import time
from typing import Any

import aiohttp
import pytest
from kubelet_bed import SPACE, Bed, container, phase

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.objects import POD, Obj


def script(text: str, **more: Any) -> Obj:
    return {"command": ["sh", "-c", text], **more}


async def program(bed: Bed, *argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a program beside the kubelets."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out.decode(), err.decode()


async def execution(bed: Bed) -> float:
    """Both streams, the exit status, standard input with its end, the container's own view."""
    env = [{"name": "MINE", "value": "yes"}]
    await bed.pod("run", {"env": env, "workingDir": "/tmp", "securityContext": {"runAsUser": 26}})
    await bed.running("run")
    done = await bed.exec("run", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.exit_status, done.stdout, done.stderr) == (9, b"out\n", b"err\n")
    assert await bed.shell("run", "echo $MINE; pwd; id -u") == "yes\n/tmp\n26\n"
    big = b"x" * 1_000_000
    echoed = await bed.exec("run", "cat", stdin=big)
    assert echoed.stdout == big
    killed = await bed.exec("run", "sh", "-c", "kill -9 $$")
    assert killed.exit_status == 137
    missing = await bed.exec("run", "no-such-program")
    assert missing.exit_status == 127
    began = time.monotonic()
    for _ in range(10):
        await bed.exec("run", "true")
    return (time.monotonic() - began) / 10


async def left_behind(bed: Bed) -> None:
    """A command that leaves a child with its output ends all the same; a client may go away."""
    await bed.pod("left", script("exec sleep 1000"), shareProcessNamespace=True)
    await bed.running("left")
    began = time.monotonic()
    done = await bed.exec("left", "sh", "-c", "echo x; sleep 50 &")
    assert done.stdout == b"x\n"
    assert time.monotonic() - began < 40
    with contextlib.suppress(ApiError):
        await bed.exec("left", "cat", stdin=None, timeout_s=0.5)
    with contextlib.suppress(ApiError):
        await bed.exec("left", "sh", "-c", "while sleep 0.05; do echo y; done", timeout_s=0.5)
    await bed.shell("left", "while ps -eo args | grep -q '^sleep 0[.]05'; do sleep 0.01; done")


async def terminal(bed: Bed) -> None:
    """A terminal has the size it was told, echoes, and its Ctrl-C reaches the program."""
    await bed.pod("tty")
    await bed.running("tty")
    command = [("command", "sh"), ("stdin", "true"), ("stdout", "true"), ("tty", "true")]
    url = f"{bed.api.url}{POD.path(SPACE, 'tty', 'exec')}"
    async with bed.api._open().ws_connect(
        url, params=command, headers=bed.api._headers(), protocols=("v4.channel.k8s.io",)
    ) as ws:
        await ws.send_bytes(b"\x04" + json.dumps({"Width": 123, "Height": 45}).encode())
        await ws.send_bytes(b"\x00stty size; tty; sleep 100\n")
        seen = b""
        interrupted = False
        async for message in ws:
            assert message.type is aiohttp.WSMsgType.BINARY
            if message.data[0] == 1:
                seen += message.data[1:]
            if message.data[0] == 3:
                status = json.loads(message.data[1:])
            if b"45 123" in seen and b"/dev/pts/" in seen and not interrupted:
                interrupted = True
                await asyncio.sleep(0.2)
                await ws.send_bytes(b"\x00\x03")
                await ws.send_bytes(b"\x00exit 6\n")
    assert status["details"]["causes"][0]["message"] == "6", (status, seen)


async def log_options(bed: Bed) -> None:
    # Both outputs have a pipe of their own: the second is used once the first was read.
    text = (
        "for i in 1 2 3; do echo line $i; done; until test -e /tmp/read; do sleep 0.05; done;"
        "echo error >&2; printf unfinished; exec sleep 1000"
    )
    await bed.pod("logs", script(text))
    await bed.running("logs")
    end = time.monotonic() + 20
    while "line 3" not in await bed.logs("logs"):
        assert time.monotonic() < end
    await bed.shell("logs", "touch /tmp/read")
    while "error" not in await bed.logs("logs"):
        assert time.monotonic() < end
    assert sorted((await bed.logs("logs")).splitlines()) == ["error", "line 1", "line 2", "line 3"]
    assert len((await bed.logs("logs", tailLines="2")).splitlines()) == 2
    assert await bed.logs("logs", limitBytes="6") == "line 1"
    stamped = (await bed.logs("logs", timestamps="true", tailLines="1")).split(" ", 1)[0]
    assert stamped.startswith("20")
    assert stamped.endswith("Z")
    assert await bed.logs("logs", sinceTime="2099-01-01T00:00:00Z") == ""
    assert "line 1" in await bed.logs("logs", sinceSeconds="60")
    with pytest.raises(ApiError, match="previous terminated container"):
        await bed.logs("logs", previous="true")


async def followed_log(bed: Bed) -> None:
    """Following brings a line while the container waits, and ends with the container."""
    text = "echo first; until test -e /tmp/go; do sleep 0.05; done; echo second"
    await bed.pod("follow", script(text), restartPolicy="Never")
    await bed.running("follow")
    seen = b""
    session = bed.api._open()
    url = f"{bed.api.url}{POD.path(SPACE, 'follow', 'log')}"
    async with session.get(url, params={"follow": "true"}, headers=bed.api._headers()) as answer:
        async for chunk in answer.content.iter_any():
            seen += chunk
            if chunk == b"first\n":
                # The container's end may take this command with it.
                await bed.exec("follow", "touch", "/tmp/go")
    assert seen == b"first\nsecond\n", seen
    pod = await bed.until("follow", lambda p: phase(p) == "Succeeded")
    assert container(pod)["state"]["terminated"]["exitCode"] == 0


async def attachment(bed: Bed) -> None:
    """Attach writes to the main process and hears what it says from then on."""
    await bed.pod(
        "attach",
        script("while read -r line; do echo got $line; done", stdin=True),
        restartPolicy="Never",
    )
    await bed.running("attach")
    query = [("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    url = f"{bed.api.url}{POD.path(SPACE, 'attach', 'attach')}"
    async with bed.api._open().ws_connect(
        url, params=query, headers=bed.api._headers(), protocols=("v5.channel.k8s.io",)
    ) as ws:
        await ws.send_bytes(b"\x00hello\n")
        message = await ws.receive(5)
        assert message.data == b"\x01got hello\n", message
        await ws.send_bytes(b"\xff\x00")
        message = await ws.receive(5)
        assert message.data[0] == 3, message
    await bed.until("attach", lambda p: phase(p) == "Succeeded")
    assert await bed.logs("attach") == "got hello\n"


FORWARD = """
import kubernetes, socket, sys
from kubernetes.stream import portforward, stream
kubernetes.config.load_kube_config(sys.argv[1])
v1 = kubernetes.client.CoreV1Api()
forward = portforward(v1.connect_get_namespaced_pod_portforward, "served", "default", ports="8080,9")
s = forward.socket(8080)
s.settimeout(10)
s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
text = b""
while True:
    part = s.recv(65536)
    if not part:
        break
    text += part
assert b"200 OK" in text and b"served here" in text, text
assert forward.error(9), "a closed port must say so"
answer = stream(kubernetes.client.CoreV1Api().connect_get_namespaced_pod_exec, "served", "default",
    command=["sh", "-c", "cat; exit 3"], stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
answer.write_stdin("typed")
answer.update(timeout=2)
assert answer.read_stdout(timeout=5) == "typed"
answer.close()
print("ok")
"""


async def python_client(bed: Bed) -> None:
    """The official Python client's port-forward and exec."""
    await bed.pod(
        "served",
        script(
            "mkdir /tmp/w; cd /tmp/w; echo served here > index.html; exec python -m http.server 8080"
        ),
    )
    await bed.running("served")
    probe = "python -c 'import socket; socket.create_connection((\"127.0.0.1\", 8080))'"
    for _ in range(50):
        if (await bed.exec("served", "sh", "-c", probe)).exit_status == 0:
            break
    code, out, err = await program(bed, sys.executable, "-c", FORWARD, str(bed.kubeconfig()))
    assert (code, out) == (0, "ok\n"), err


async def kubectl(bed: Bed) -> None:
    if shutil.which("kubectl") is None:
        return
    await bed.pod("ctl", script("echo hello; exec sleep 1000"))
    await bed.running("ctl")
    base = ("kubectl", "--kubeconfig", str(bed.kubeconfig()))
    code, out, err = await program(
        bed, *base, "exec", "-i", "ctl", "--", "sh", "-c", "cat; exit 4", stdin=b"typed"
    )
    assert (code, out) == (4, "typed"), err
    code, out, err = await program(bed, *base, "logs", "ctl")
    assert (code, out) == (0, "hello\n"), err
    code, out, err = await program(bed, *base, "get", "pod", "ctl")
    assert "1/1" in out, out + err
    code, out, err = await program(bed, *base, "describe", "pod", "ctl")
    assert "Started container c0" in out, out + err
    code, out, err = await program(bed, *base, "cp", "ctl:/etc/hostname", str(bed.root / "copied"))
    assert (bed.root / "copied").read_text() == "ctl\n", err


async def kubectl_run(bed: Bed) -> None:
    """``kubectl run -i --rm``: a pod that lives as long as its client talks to it."""
    if shutil.which("kubectl") is None:
        return
    base = ("kubectl", "--kubeconfig", str(bed.kubeconfig()))
    place = json.dumps({"spec": {"nodeName": "node-1"}})
    words = ("run", "once", "--image=stand-in/python:3", "--restart=Never", "-i", "--rm", "-q")
    what = ("--overrides", place, "--command", "--", "sh", "-c", "sleep 1; read -r x; echo got $x")
    code, out, err = await program(bed, *base, *words, *what, stdin=b"typed\n")
    assert (code, out) == (0, "got typed\n"), out + err
    await bed.gone("once")


async def kubectl_forward(bed: Bed) -> None:
    """``kubectl port-forward`` carries one connection after another to the pod's own loopback."""
    if shutil.which("kubectl") is None:
        return
    serve = "import http.server as h; h.HTTPServer(('127.0.0.1', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
    text = f'mkdir /tmp/w; cd /tmp/w; echo inside > index.html; exec python -c "{serve}"'
    await bed.pod("forwarded", script(text))
    await bed.running("forwarded")
    forwarding = await asyncio.create_subprocess_exec(
        "kubectl", "--kubeconfig", str(bed.kubeconfig()), "port-forward", "forwarded", ":8080",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert forwarding.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = (await forwarding.stdout.readline()).decode()
            port = line.split("127.0.0.1:")[1].split()[0]
            for _ in range(3):
                out = ""
                while "inside" not in out:
                    _, out, _ = await program(bed, "curl", "-s", f"http://127.0.0.1:{port}/")
    finally:
        forwarding.terminate()
        await forwarding.wait()


async def strangers(bed: Bed) -> None:
    """Without the API server's token the kubelet answers nobody."""
    import ssl

    context = ssl.create_default_context(cafile=str(bed.root / "pki" / "ca.crt"))
    async with aiohttp.ClientSession() as session:
        for token in ("", "Bearer nonsense"):
            async with session.get(
                "https://10.250.0.11:10250/pods", headers={"Authorization": token}, ssl=context
            ) as answer:
                assert answer.status == 401
        headers = {"Authorization": "Bearer kubelet"}
        async with session.get(
            "https://10.250.0.11:10250/pods", headers=headers, ssl=context
        ) as answer:
            assert (await answer.json())["kind"] == "PodList"
