"""A whole stand-in without the operator, as a user of the command line and of kubectl sees it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_pgo_eks.local.preflight import search_path

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("bwrap", path=search_path()),
    reason="needs Linux and the system packages of the stand-in",
)
_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {
        "containers": [
            {
                "name": "main",
                "image": "stand-in/python:3",
                "command": ["python3", "-m", "http.server", "8000", "--bind", "0.0.0.0"],
                "readinessProbe": {
                    "httpGet": {"port": 8000, "path": "/proc/version"},
                    "periodSeconds": 1,
                },
            }
        ]
    },
}
_ASK = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=2).status)
except OSError as error:
    print(error)
"""
# Exit of a pod that tries every address given, and prints those that answer.
_REACH = """
import socket, sys
for where in sys.argv[1:]:
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError:
        continue
    print(where)
"""


class Cluster:
    def __init__(self, home: Path) -> None:
        self._env = {**os.environ, "XDG_STATE_HOME": str(home)}
        self.links = self._host_links()
        out = self._local("up", "--name", "whole", "--no-operator", "--json")
        self.ready: dict[str, Any] = json.loads(out.splitlines()[-1])
        self.kubeconfig = Path(self.ready["kubeconfig"])
        config = yaml.safe_load(self.kubeconfig.read_text())
        self.url: str = config["clusters"][0]["cluster"]["server"]
        self.token: str = config["users"][0]["user"]["token"]
        self._tls = ssl.create_default_context(
            cafile=str(Path(self.ready["state_dir"]) / "pki" / "ca.crt")
        )

    def down(self) -> None:
        self._local("down", "--name", "whole")

    def _local(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pytest_pgo_eks.local", *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env=self._env,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @staticmethod
    def _host_links() -> str:
        return "".join(sorted(p.name for p in Path("/sys/class/net").iterdir()))

    def api(
        self, method: str, path: str, body: Any = None, token: str | None = None
    ) -> tuple[int, Any]:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token if token is None else token}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def pod(self, name: str, node: str) -> str:
        """Make a pod on a node; return its address once it is ready."""
        pod = {**_POD, "metadata": {"name": name}, "spec": {**_POD["spec"], "nodeName": node}}  # type: ignore[dict-item]
        _until(
            lambda: self.api("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200
        )
        code, answer = self.api("POST", "/api/v1/namespaces/default/pods", pod)
        assert code == 201, answer
        return self.until_ready(name)

    def until_ready(self, name: str, *, not_ip: str = "") -> str:
        def ip() -> str:
            status = self.api("GET", f"/api/v1/namespaces/default/pods/{name}")[1]["status"]
            ready = [c for c in status.get("conditions", []) if c["type"] == "Ready"]
            found: str = status.get("podIP", "") if ready and ready[0]["status"] == "True" else ""
            return "" if found == not_ip else found

        _until(lambda: bool(ip()))
        return ip()

    def run(self, pod: str, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [
                "kubectl",
                "--kubeconfig",
                str(self.kubeconfig),
                "exec",
                pod,
                "--",
                "python3",
                "-c",
                program,
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def _until(accept: Any, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not accept():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl")
    found = Cluster(tmp_path_factory.mktemp("whole"))
    yield found
    found.down()
    assert not Path(found.ready["state_dir"]).exists()


def test_what_up_answers(cluster: Cluster) -> None:
    ready = cluster.ready
    assert set(ready) == {
        "name",
        "state_dir",
        "kubeconfig",
        "kubernetes_version",
        "capabilities",
        "operator_version",
    }
    assert ready["kubernetes_version"].endswith("+stand-in")
    assert {"zones", "partition", "node-loss", "packet-loss"} <= set(ready["capabilities"])
    assert ready["operator_version"] is None
    assert cluster.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert cluster.url.startswith("https://127.0.0.1:")


def test_three_nodes_in_three_zones(cluster: Cluster) -> None:
    nodes = cluster.api("GET", "/api/v1/nodes")[1]["items"]
    zones = {
        n["metadata"]["name"]: n["metadata"]["labels"]["topology.kubernetes.io/zone"] for n in nodes
    }
    assert zones == {"node-1": "zone-a", "node-2": "zone-b", "node-3": "zone-c"}


def test_a_token_is_asked_for(cluster: Cluster) -> None:
    assert cluster.api("GET", "/api/v1/nodes", token="guessed")[0] == 401
    assert cluster.api("GET", "/stand-in/v1/faults", token="guessed")[0] == 401


def test_the_host_and_the_world_are_out_of_reach(cluster: Cluster) -> None:
    ip = cluster.pod("lonely", "node-1")
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        names = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        hosts = {"127.0.0.1", "10.250.0.1", "10.244.1.1", *(str(n[4][0]) for n in names)}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # No packet is sent: it asks which address of ours would be used.
            probe.connect_ex(("192.0.2.1", 9))
            hosts.add(probe.getsockname()[0])
        targets = [f"{host}:{port}" for host in sorted(hosts - {"0.0.0.0"})]
        door = cluster.url.removeprefix("https://")
        # Both of these answer, or the test would prove nothing.
        good = [f"{ip}:8000", "10.96.0.1:443"]
        assert cluster.run("lonely", _REACH, *targets, door, "192.0.2.1:80", *good).split() == good
    names_seen = cluster.run(
        "lonely",
        "import socket\n"
        "for name in ('kubernetes.default', 'localhost', 'example.org'):\n"
        "    try: print(socket.gethostbyname(name))\n"
        "    except OSError: print('unknown')\n",
    )
    assert names_seen.split() == ["10.96.0.1", "127.0.0.1", "unknown"]
    assert cluster._host_links() == cluster.links


def test_bad_fault_requests(cluster: Cluster) -> None:
    path = "/stand-in/v1/faults"
    assert cluster.api("POST", path, {"kind": "earthquake"})[0] == 400
    assert cluster.api("POST", path, ["kind"])[0] == 400
    code, answer = cluster.api("POST", path, {"kind": "partition-node", "node": "node-9"})
    assert (code, answer["kind"], answer["reason"]) == (404, "Status", "NotFound")
    assert cluster.api("DELETE", f"{path}/f99")[0] == 404
    assert cluster.api("PUT", path, {})[0] == 405
    assert cluster.api("GET", path)[1]["items"] == []


def test_a_partition_is_proven_and_heals(cluster: Cluster) -> None:
    cluster.pod("here", "node-2")
    there = f"http://{cluster.pod('there', 'node-3')}:8000/proc/version"
    assert cluster.run("here", _ASK, there) == "200"
    code, fault = cluster.api(
        "POST",
        "/stand-in/v1/faults",
        {"kind": "partition-pod", "namespace": "default", "pod": "there"},
    )
    assert code == 201
    assert "timed out" in cluster.run("here", _ASK, there)
    path = f"/stand-in/v1/faults/{fault['id']}"
    assert cluster.api("GET", path)[1]["evidence"]["packets_in"] > 0
    assert cluster.api("DELETE", path)[1]["undone"] is True
    assert cluster.run("here", _ASK, there) == "200"


def test_a_lost_node_comes_back_with_its_pods(cluster: Cluster) -> None:
    ip = cluster.pod("mortal", "node-1")
    cluster.pod("witness", "node-2")
    where = f"http://{ip}:8000/proc/version"
    assert cluster.run("witness", _ASK, where) == "200"
    code, fault = cluster.api(
        "POST", "/stand-in/v1/faults", {"kind": "node-loss", "node": "node-1"}
    )
    assert code == 201
    assert "timed out" in cluster.run("witness", _ASK, where)
    assert cluster.api("DELETE", f"/stand-in/v1/faults/{fault['id']}")[0] == 200
    again = cluster.until_ready("mortal", not_ip=ip)
    assert cluster.run("witness", _ASK, f"http://{again}:8000/proc/version") == "200"


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_nodes_attach_to_an_api_server_outside(tmp_path: Path) -> None:
    program = str(Path(__file__).with_name("standin_foreign.py"))
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    with subprocess.Popen(
        [sys.executable, program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()

        def local(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "pytest_pgo_eks.local", *arguments],
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
                env=environment,
            )

        kubeconfig = str(tmp_path / "kubeconfig")
        options = ("--apiserver", url, "--kubeconfig", kubeconfig, "--no-operator", "--json")
        done = local("up", *options)
        try:
            assert done.returncode == 0, done.stderr
            ready = json.loads(done.stdout.splitlines()[-1])
            assert ready["kubeconfig"] == kubeconfig
            gates = _gates(url)
            assert len(gates) == 1
            # The token is in a file, not on a command line.
            assert (Path(ready["state_dir"]) / "upstream.json").stat().st_mode & 0o777 == 0o600
            kubectl = ["kubectl", "--kubeconfig", kubeconfig]
            pod = json.dumps({**_POD, "metadata": {"name": "guest"}})
            # The account comes with the namespace's controller.
            _until(
                lambda: (
                    not subprocess.run(
                        [*kubectl, "apply", "-f", "-"],
                        input=pod.encode(),
                        capture_output=True,
                        check=False,
                    ).returncode
                )
            )
            subprocess.run(
                [*kubectl, "wait", "pod/guest", "--for=condition=Ready", "--timeout=60s"],
                capture_output=True,
                check=True,
            )
        finally:
            down = local("down")
            server.stdin.close()
        assert down.returncode == 0, down.stderr
    _until(lambda: not _gates(url))


def _gates(url: str) -> list[str]:
    host, _, port = url.removeprefix("https://").partition(":")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "pytest_pgo_eks.local.gate" in command and command[-3:-1] == [host, port]:
                found.append(entry.name)
    return found
