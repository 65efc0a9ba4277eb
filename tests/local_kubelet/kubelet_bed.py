"""A bed for the kubelet's tests: API server, network and kubelets in namespaces of their own.

``run("a", "b")`` starts this file in fresh namespaces, where the functions ``a`` and ``b`` of
``kubelet_scenarios.py`` run side by side, and returns what each one returned.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local import pki
from pytest_pgo_eks.local.apiclient import ApiClient, ApiError, Executed
from pytest_pgo_eks.local.apiserver import ApiServer, Identity
from pytest_pgo_eks.local.kubelet import Kubelet, Settings
from pytest_pgo_eks.local.kubelet.pods import Pod
from pytest_pgo_eks.local.network import API_PORT, API_SERVICE_IP, CORE_IP, Network, three_zones
from pytest_pgo_eks.local.objects import CONFIG_MAP, EVENT, NAMESPACE, POD, SERVICE_ACCOUNT, Obj
from pytest_pgo_eks.local.preflight import UNSHARE, search_path

ROOT = Path(__file__).resolve().parents[2]
SPACE = "default"


def run(
    *scenarios: str, module: str = "kubelet_scenarios", timeout_s: float = 90
) -> dict[str, Any]:
    """Run scenarios in one bed and return their results by name."""
    command = [*UNSHARE, "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"]
    done = subprocess.run(
        [*command, sys.executable, str(Path(__file__)), module, *scenarios],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd="/",
        env={"PATH": search_path(), "PYTHONPATH": str(ROOT), "HOME": "/tmp"},
    )
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Bed:
    """What a scenario works with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.network = Network()
        self.api: ApiClient
        self.kubelet: Kubelet
        self._clients: list[ApiClient] = []

    async def start(self) -> None:
        nodes = three_zones()
        await self.network.plumb(nodes)
        names = [CORE_IP, API_SERVICE_IP, "kubernetes.default.svc"]
        made = pki.issue(
            self.root / "pki", api_names=names, kubelet_names=[node.ip for node in nodes]
        )
        identities = {
            f"token-{node.name}": Identity(f"system:node:{node.name}", ("system:nodes",))
            for node in nodes
        }
        self.server = ApiServer(
            state=self.root / "api",
            admin_token="admin",
            tokens=identities,
            kubelet_token="kubelet",
            kubelet_ca=made.ca_file,
        )
        door = socket.create_server((CORE_IP, API_PORT))
        door.setblocking(False)
        await self.server.start([door], made.api_server.server_context())

        def client(token: str, **options: Any) -> ApiClient:
            url = f"https://{CORE_IP}:{API_PORT}"
            fresh = ApiClient(url, ca_file=made.ca_file, token=token, **options)
            self._clients.append(fresh)
            return fresh

        self.api = client("admin")
        await self.network.start(client("admin"), nodes)
        await self._accounts(made.ca_text())
        self.kubelet = Kubelet(
            nodes=nodes,
            client_factory=lambda node: client(
                f"token-{node}", socket_factory=self.network.socket_factory(node)
            ),
            network=self.network,
            state=self.root / "kubelet",
            tls=made.kubelet.server_context(),
            token="kubelet",
            settings=Settings(back_off_first_s=1.0, mount_retry_s=0.1, housekeeping_s=0.5),
        )
        await self.kubelet.start()

    async def _accounts(self, ca: str) -> None:
        for name in (SPACE, "kube-node-lease"):
            if await self.api.find(NAMESPACE, name) is None:
                await self.api.create(NAMESPACE, {"metadata": {"name": name}})
        account = {"metadata": {"name": "default", "namespace": SPACE}}
        await self.api.create(SERVICE_ACCOUNT, account)
        await self.config("kube-root-ca.crt", {"ca.crt": ca})

    async def stop(self) -> None:
        await self.kubelet.stop()
        await self.network.stop()
        for client in self._clients:
            await client.close()
        await self.server.stop()

    # ------------------------------------------------------------------ objects

    async def config(self, name: str, data: dict[str, str]) -> None:
        await self.api.create(
            CONFIG_MAP, {"metadata": {"name": name, "namespace": SPACE}, "data": data}
        )

    async def pod(self, name: str, *containers: Obj, node: int = 1, **spec: Any) -> Obj:
        """Create a pod that is bound already; a container without a command sleeps."""
        full = [
            {"name": f"c{i}", "image": "stand-in/python:3"}
            | ({} if "command" in c or "args" in c else {"command": ["sleep", "1000"]})
            | c
            for i, c in enumerate(containers or ({},))
        ]
        spec = {"nodeName": f"node-{node}", "automountServiceAccountToken": False} | spec
        spec.setdefault("terminationGracePeriodSeconds", 1)
        body = {
            "metadata": {"name": name, "namespace": SPACE, "labels": {"app": name}},
            "spec": {**spec, "containers": full},
        }
        return await self.api.create(POD, body)

    async def get(self, name: str) -> Obj | None:
        return await self.api.find(POD, name, SPACE)

    async def until(self, name: str, accept: Callable[[Obj], Any], within_s: float = 20.0) -> Obj:
        """Wait until the pod is as wanted and return it."""
        end = time.monotonic() + within_s
        pod: Obj | None = None
        while time.monotonic() < end:
            pod = await self.get(name)
            if pod is not None and accept(pod):
                return pod
            await asyncio.sleep(0.005)
        events = [f"{e['reason']}: {e['message']}" for e in await self.events(name)]
        raise AssertionError(f"{name} after {within_s} s: {(pod or {}).get('status')} {events}")

    async def running(self, name: str, within_s: float = 20.0) -> Obj:
        return await self.until(name, lambda pod: phase(pod) == "Running", within_s)

    async def gone(self, name: str, uid: str | None = None, within_s: float = 20.0) -> float:
        """Wait until the API has no such pod; return the seconds it took."""
        began = time.monotonic()
        while time.monotonic() - began < within_s:
            pod = await self.get(name)
            if pod is None or (uid and pod["metadata"]["uid"] != uid):
                return time.monotonic() - began
            await asyncio.sleep(0.005)
        raise AssertionError(f"{name} is still there: {await self.get(name)}")

    async def events(self, name: str) -> list[Obj]:
        listed = await self.api.list(EVENT, SPACE, fields=f"involvedObject.name={name}")
        return listed.items

    async def reasons(self, name: str) -> list[str]:
        return [event["reason"] for event in await self.events(name)]

    async def until_event(self, name: str, reason: str, within_s: float = 20.0) -> list[Obj]:
        """Wait for an Event about a pod; return all there are."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            found = await self.events(name)
            if any(event["reason"] == reason for event in found):
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"{name} has no event {reason}: {await self.reasons(name)}")

    async def until_said(self, name: str, text: str, within_s: float = 20.0) -> None:
        """Wait for an Event about a pod whose message begins with ``text``."""
        end = time.monotonic() + within_s
        messages: list[str] = []
        while time.monotonic() < end:
            messages = [event["message"] for event in await self.events(name)]
            if any(message.startswith(text) for message in messages):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"nobody said {text!r} about {name}: {messages}")

    async def exec(self, pod: str, *argv: str, **options: Any) -> Executed:
        options.setdefault("container", "c0")
        return await self.api.exec(SPACE, pod, argv, **options)

    async def shell(self, pod: str, script: str, **options: Any) -> str:
        done = await self.exec(pod, "sh", "-c", script, **options)
        assert done.exit_status == 0, (script, done)
        return done.stdout.decode()

    async def logs(self, pod: str, **query: str) -> str:
        """Return a log as the API gives it."""
        path = POD.path(SPACE, pod, "log")
        session = self.api._open()
        async with session.get(
            self.api.url + path, params=query, headers=self.api._headers()
        ) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise ApiError(answer.status, "log", text)
            return text

    def kubeconfig(self) -> Path:
        """Return a file for kubectl and the Python client."""
        found = self.root / "kubeconfig"
        cluster = {
            "server": self.api.url,
            "certificate-authority": str(self.root / "pki" / "ca.crt"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bed", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": "admin"}}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "admin"}}],
            "current-context": "bed",
        }
        found.write_text(json.dumps(config))
        return found

    def worker(self, name: str) -> Pod:
        """Return the kubelet's own view of a pod."""
        for agent in self.kubelet.agents:
            if found := agent.find(SPACE, name):
                return found
        raise KeyError(name)


def phase(pod: Obj) -> str:
    found: str = pod.get("status", {}).get("phase", "")
    return found


def container(pod: Obj, index: int = 0) -> Obj:
    found: list[Obj] = pod.get("status", {}).get("containerStatuses") or []
    return found[index] if len(found) > index else {}


def condition(pod: Obj, kind: str) -> str:
    for one in pod.get("status", {}).get("conditions") or []:
        if one["type"] == kind:
            return str(one["status"])
    return ""


async def main(module: str, names: list[str]) -> dict[str, Any]:
    scenarios = importlib.import_module(module)
    results: dict[str, Any] = {}

    async def one(name: str) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(45):
                value = await getattr(scenarios, name)(bed)
            results[name] = {"value": value}
        except BaseException:  # noqa: BLE001 - told to the test
            results[name] = {"error": traceback.format_exc()}
        results[name]["took_s"] = round(time.monotonic() - began, 2)
        print(name, "took", results[name]["took_s"], "s", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="kubelet-bed-") as root:
        bed = Bed(Path(root))
        began = time.monotonic()
        await bed.start()
        print(f"bed up in {time.monotonic() - began:.3f} s", file=sys.stderr)
        try:
            await asyncio.gather(*(one(name) for name in names))
        finally:
            await bed.stop()
    return results


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2:]))))
