"""Probes: what makes a container ready, started, or dead."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from kubelet_bed import SPACE, Bed, condition, container, phase

from pytest_pgo_eks.local.objects import POD, Obj

WEB = """
import http.server, os, ssl, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = os.path.exists("/v/" + self.path.strip("/"))
        self.send_response(200 if ok else 503)
        self.end_headers()
        self.wfile.write(b"x" * 20000)
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("", 8008), H)
open("/v/listening", "w").close()
if len(sys.argv) > 1:
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain("/v/crt", "/v/key")
    s.socket = c.wrap_socket(s.socket, server_side=True)
s.serve_forever()
"""
VOLUME: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}]}
MOUNT = [{"name": "v", "mountPath": "/v"}]


def web(*args: str, **more: Any) -> Obj:
    return {"command": ["python", "-c", WEB, *args], "volumeMounts": MOUNT, **more}


def get(path: str, **more: Any) -> Obj:
    """Return a probe. It is patient: only what a scenario is about may make a container fail."""
    probe = {"httpGet": {"path": path, "port": 8008}, "periodSeconds": 1, "timeoutSeconds": 10}
    return probe | more


async def listening(bed: Bed, name: str) -> None:
    """Wait until the web server of a pod can be asked."""
    await bed.shell(name, "until test -e /v/listening; do sleep 0.05; done")


async def readiness(bed: Bed) -> float:
    """A container is ready while its probe says so, after as many answers as it takes."""
    probe = get("/ready", failureThreshold=2)
    probe["httpGet"]["port"] = "rest"
    one = web(readinessProbe=probe, ports=[{"name": "rest", "containerPort": 8008}])
    await bed.pod("ready", one, **VOLUME)
    pod = await bed.running("ready")
    assert condition(pod, "Ready") == "False"
    await bed.until_said("ready", "Readiness probe failed: ")
    await bed.shell("ready", "touch /v/ready")
    began = time.monotonic()
    pod = await bed.until("ready", lambda p: condition(p, "Ready") == "True")
    took = time.monotonic() - began
    assert container(pod)["ready"] is True
    await bed.shell("ready", "rm /v/ready")
    pod = await bed.until("ready", lambda p: condition(p, "Ready") == "False")
    assert container(pod)["restartCount"] == 0
    await bed.until_said("ready", "Readiness probe failed: HTTP probe failed with statuscode: 503")
    return took


async def asked_readiness(bed: Bed) -> float:
    """A change of the pod's annotations makes an unready container be asked at once."""
    one = web(readinessProbe=get("/ready", periodSeconds=60))
    await bed.pod("asked", one, **VOLUME)
    # The first answer is a failure, and the next one would come after a minute.
    await bed.until_event("asked", "Unhealthy")
    await listening(bed, "asked")
    await bed.shell("asked", "touch /v/ready")
    began = time.monotonic()
    await bed.api.patch(POD, "asked", SPACE, {"metadata": {"annotations": {"status": "x"}}})
    await bed.until("asked", lambda p: condition(p, "Ready") == "True")
    return time.monotonic() - began


async def frozen_liveness(bed: Bed) -> float:
    """A frozen process fails its liveness probe, ignores SIGTERM, and is killed after its grace."""
    # Liveness is asked once the server has answered: before, it could fail for being slow.
    one = web(
        startupProbe=get("/listening", failureThreshold=40),
        livenessProbe=get("/listening", timeoutSeconds=1, failureThreshold=3),
    )
    volume = dict(VOLUME, shareProcessNamespace=True, terminationGracePeriodSeconds=1)
    await bed.pod("alive", one, {}, **volume)
    await bed.until("alive", lambda p: container(p).get("started"))
    runner = bed.worker("alive").runner("c0")
    assert runner is not None
    assert runner.container is not None
    os.kill(runner.container.main_pid, signal.SIGSTOP)
    began = time.monotonic()
    # The kubelet serves others meanwhile.
    assert await bed.shell("alive", "echo here", container="c1") == "here\n"
    pod = await bed.until("alive", lambda p: container(p).get("restartCount") == 1)
    took = time.monotonic() - began
    assert container(pod)["lastState"]["terminated"]["exitCode"] == 137
    assert container(pod, 1)["restartCount"] == 0
    await bed.until_said("alive", "Container c0 failed liveness probe, will be restarted")
    return took


async def exec_probe(bed: Bed) -> None:
    probe = {"exec": {"command": ["sh", "-c", "echo said; test -e /v/live"]}, "periodSeconds": 1}
    probe["timeoutSeconds"] = 10
    one = {"volumeMounts": MOUNT, "livenessProbe": probe | {"failureThreshold": 1}}
    one["startupProbe"] = probe | {"failureThreshold": 40}
    one["command"] = ["sh", "-c", "trap 'exit 4' TERM; touch /v/live; while :; do sleep 0.05; done"]
    await bed.pod("exec", one, **VOLUME)
    await bed.until("exec", lambda p: container(p).get("started"))
    await asyncio.sleep(1.2)
    pod = await bed.get("exec")
    assert pod is not None
    assert container(pod)["restartCount"] == 0
    await bed.shell("exec", "rm /v/live")
    pod = await bed.until("exec", lambda p: container(p).get("restartCount") == 1)
    assert container(pod)["lastState"]["terminated"]["exitCode"] == 4
    await bed.until_said("exec", "Liveness probe failed: said\n")


async def slow_exec_probe(bed: Bed) -> None:
    """A probe that takes too long is killed and counts as failed."""
    probe = {"exec": {"command": ["sleep", "77"]}, "periodSeconds": 1, "timeoutSeconds": 1}
    await bed.pod("slow", {"readinessProbe": probe})
    said = 'Readiness probe failed: command timed out: "sleep 77" timed out after 1s'
    await bed.until_said("slow", said)
    processes = await bed.shell("slow", "ps -eo args")
    assert processes.count("sleep 77") <= 1, processes


async def startup_probe(bed: Bed) -> None:
    """Until the start-up probe succeeds nothing else is asked, and the container is not ready."""
    one = web(
        startupProbe=get("/started", failureThreshold=30),
        livenessProbe=get("/started", failureThreshold=1),
    )
    await bed.pod("startup", one, **VOLUME)
    pod = await bed.running("startup")
    assert container(pod)["started"] is False
    await asyncio.sleep(1.5)
    await bed.shell("startup", "touch /v/started")
    pod = await bed.until("startup", lambda p: condition(p, "Ready") == "True")
    assert container(pod)["started"] is True
    assert container(pod)["restartCount"] == 0


async def never_started(bed: Bed) -> None:
    one = web(startupProbe=get("/started", failureThreshold=2))
    await bed.pod("never", one, terminationGracePeriodSeconds=1, **VOLUME)
    await bed.until("never", lambda p: container(p).get("restartCount") == 1)
    await bed.until_said("never", "Container c0 failed startup probe, will be restarted")


async def encrypted(bed: Bed) -> None:
    """HTTPS without verification, as Patroni's probes need it; and a bare TCP connect."""
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
        "-subj /CN=x -keyout /v/key -out /v/crt 2>/dev/null && touch /v/ready"
    )
    init = {
        "name": "make",
        "image": "stand-in/python:3",
        "command": ["sh", "-c", make],
        "volumeMounts": MOUNT,
    }
    https = get("/ready", initialDelaySeconds=1)
    https["httpGet"]["scheme"] = "HTTPS"
    both = web(
        "tls",
        readinessProbe=https,
        startupProbe={"tcpSocket": {"port": 8008}, "periodSeconds": 1, "failureThreshold": 40},
        livenessProbe={"tcpSocket": {"port": 8008}, "periodSeconds": 1, "timeoutSeconds": 10},
    )
    await bed.pod("tls", both, initContainers=[init], **VOLUME)
    pod = await bed.until("tls", lambda p: condition(p, "Ready") == "True")
    assert phase(pod) == "Running"
    await asyncio.sleep(1.5)
    pod = await bed.running("tls")
    assert container(pod)["restartCount"] == 0


async def gone_port(bed: Bed) -> None:
    """What a refused connection is called."""
    probe = {"httpGet": {"path": "/", "port": 9}, "periodSeconds": 1}
    await bed.pod("refused", {"readinessProbe": probe})
    pod = await bed.running("refused")
    ip = pod["status"]["podIP"]
    wanted = f'Readiness probe failed: Get "http://{ip}:9/": dial tcp {ip}:9: connect: connection refused'
    await bed.until_said("refused", wanted)
