"""The client against the stand-in's kubelet and network, behind its own API server and a real one."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.errors import Conflict, ExecProblem, NotFound
from pytest_pgo_eks.kube import Kube, Watcher, eventually
from pytest_pgo_eks.kube.wait import holds

# Echoes in capitals, one connection after the other.
_SERVER = """
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())
print("serving", flush=True)
socketserver.TCPServer(("0.0.0.0", 7000), Echo).serve_forever()
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("standin", marks=pytest.mark.cluster),
        pytest.param("real_apiserver", marks=[pytest.mark.cluster, pytest.mark.real_apiserver]),
    ],
)
def cluster(request: pytest.FixtureRequest) -> ClusterHandle:
    found: ClusterHandle = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def live(cluster: ClusterHandle) -> Iterator[Kube]:
    with Kube(cluster.kubeconfig) as kube:
        yield kube


@pytest.fixture(scope="module")
def namespace(live: Kube) -> Iterator[str]:
    name = f"kube-{os.getpid()}"
    live.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    live.delete("Namespace", name)


@pytest.fixture(scope="module")
def pod(live: Kube, namespace: str) -> str:
    live.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "echo", "namespace": namespace},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "c",
                        "image": "stand-in/python:3",
                        "command": ["python3", "-u", "-c", _SERVER],
                    }
                ],
            },
        }
    )
    with Watcher(live) as watcher:
        feed = watcher.feed("Pod", namespace)
        eventually(
            lambda: feed.get("echo"),
            accept=lambda one: one is not None and one["status"]["phase"] == "Running",
            within_s=30,
            what="the pod to run",
            wake=feed,
        )
    eventually(
        lambda: live.logs(namespace, "echo", container="c"),
        accept=lambda text: "serving" in text,
        within_s=15,
        what="the server in the pod",
        successes=1,
    )
    return "echo"


def config(namespace: str, name: str, **data: str) -> dict[str, object]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def test_a_conflict_names_the_manager_who_owns_the_field(
    live: Kube, cluster: ClusterHandle, namespace: str
) -> None:
    with Kube(cluster.kubeconfig, field_manager="somebody-else") as other:
        other.apply(config(namespace, "owned", a="theirs"))
    with pytest.raises(Conflict, match=r'\.data\.a \("somebody-else"'):
        live.apply(config(namespace, "owned", a="ours"))
    assert live.apply(config(namespace, "owned", a="ours"), force=True)["data"] == {"a": "ours"}


def test_our_own_patch_is_taken_back_by_an_apply(live: Kube, namespace: str) -> None:
    live.apply(config(namespace, "mine", a="1"))
    live.patch("ConfigMap", "mine", namespace, {"data": {"a": "2"}})
    assert live.apply(config(namespace, "mine", a="1"))["data"] == {"a": "1"}


def test_deletion_by_uid_spares_the_successor(live: Kube, namespace: str) -> None:
    first = live.create(config(namespace, "life"))["metadata"]["uid"]
    live.delete("ConfigMap", "life", namespace, uid=first)
    live.create(config(namespace, "life"))
    with pytest.raises(Conflict):
        live.delete("ConfigMap", "life", namespace, uid=first)
    assert live.find("ConfigMap", "life", namespace)


def test_a_watch_wakes_for_every_change(live: Kube, namespace: str) -> None:
    with Watcher(live) as watcher:
        feed = watcher.feed("ConfigMap", namespace)
        feed.objects()
        for number in range(10):
            timer = threading.Timer(
                0.05, live.apply, (config(namespace, "counted", n=str(number)),)
            )
            timer.start()
            seen = eventually(
                lambda: feed.get("counted"),
                accept=lambda one, n=str(number): bool(one) and one["data"]["n"] == n,  # type: ignore[misc]
                within_s=10,
                what=f"count {number}",
                wake=feed,
            )
            timer.join()
            assert seen is not None
        holds(
            lambda: feed.get("counted"),
            accept=lambda one: one is not None and one["data"]["n"] == "9",
            for_s=0.3,
            what="the last count",
            wake=feed,
        )


def test_commands_run_in_a_pod(live: Kube, namespace: str, pod: str) -> None:
    def run(script: str, stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
        ran = live.exec(namespace, pod, ["sh", "-c", script], container="c", stdin=stdin)
        return ran.exit_status, ran.stdout, ran.stderr

    assert run("printf out; printf err >&2; exit 7") == (7, b"out", b"err")
    data = os.urandom(1 << 20)
    assert run("cat", data) == (0, data, b"")
    assert run("kill -9 $$")[0] == 137
    with pytest.raises(NotFound):
        live.exec(namespace, "nobody", ["true"])
    said: object
    try:
        said = live.exec(namespace, pod, ["/no/such"], container="c").exit_status
    except ExecProblem as problem:
        said = str(problem)
    # Container runtimes differ: some give the shell's status, some no status at all.
    assert said in (126, 127) or "/no/such" in str(said)
    began = time.monotonic()
    with pytest.raises(ExecProblem, match="not ended within"):
        live.exec(namespace, pod, ["sleep", "60"], container="c", deadline_s=0.5)
    assert time.monotonic() - began < 20


def test_a_port_of_a_pod_is_reached_from_here(live: Kube, namespace: str, pod: str) -> None:
    with live.forward(namespace, pod, 7000) as forward:
        for _ in range(3):
            with socket.create_connection((forward.host, forward.port), 5) as client:
                client.settimeout(5)
                client.sendall(b"hello\n")
                assert client.recv(100) == b"HELLO\n"
        assert forward.errors == []


def test_the_log_and_the_events_of_a_pod(live: Kube, namespace: str, pod: str) -> None:
    assert live.logs(namespace, pod, container="c", tail=1) == "serving\n"
    reasons = [one["reason"] for one in live.events(namespace, kind="Pod", name=pod)]
    assert "Started" in reasons
