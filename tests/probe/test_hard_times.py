"""What a run's records survive: an eviction, a cut connection, an API server that is away."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pytest_pgo_eks.history.history import History
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.probe import pod
from pytest_pgo_eks.probe.control import Probe

if TYPE_CHECKING:
    from pytest_pgo_eks.clusters.base import ClusterHandle

pytestmark = pytest.mark.cluster
NAMESPACE = "probe-hard-times"


@pytest.fixture(scope="module")
def kube(standin: ClusterHandle) -> Iterator[Kube]:
    with Kube(standin.kubeconfig) as client:
        client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield client
        client.delete("Namespace", NAMESPACE)


class Door:
    """A way to a port that can be shut: whoever is inside is thrown out, nobody gets in."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._shut = False
        self._lock = threading.Lock()
        self._made: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, do: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=do, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def shut(self) -> None:
        with self._lock:
            self._shut = True
            for one in self._open:
                _end(one)
            self._open.clear()

    def reopen(self) -> None:
        with self._lock:
            self._shut = False

    def close(self) -> None:
        self.shut()
        _end(self._listening)
        for thread in self._threads:
            thread.join(10)
        for one in (self._listening, *self._made):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                if self._shut:
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self._target))
                self._open += [here, there]
                self._made += [here, there]
            for source, sink in ((here, there), (there, here)):
                self._begin(_pass, source, sink)


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _end(source)
    _end(sink)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def lines(probe: Probe, count: int, what: str) -> None:
    """Wait until the runner has that many lines; an idle agent writes one a second."""
    eventually(
        lambda: len(probe.stream.lines),
        accept=lambda have: have >= count,
        within_s=60,
        what=what,
        successes=1,
    )


def test_an_evicted_pod_leaves_a_whole_history_and_is_replaced(kube: Kube, tmp_path: Path) -> None:
    def make() -> Any:
        return pod.ensure(kube, NAMESPACE, within_s=60)

    keeper = pod.Keeper(kube, NAMESPACE, pod.DEFAULT_NAME, make)
    agent = keeper.installed()
    assert keeper.installed() is agent
    probe = agent.start([], tmp_path / "h.jsonl.gz")
    probe.mark("before the eviction")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": agent.pod, "namespace": NAMESPACE},
    }
    kube.raw("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{agent.pod}/eviction", eviction)
    eventually(
        lambda: probe.stream.end,
        accept=lambda end: end is not None,
        within_s=60,
        what="the stream to end",
        successes=1,
    )
    history = History.load(probe.stop())
    # Told to end, the agent wrote its last line, and the runner had it before the pod was gone.
    assert history.end == "terminated"
    assert history.is_complete
    assert "before the eviction" in str(history.events)
    again = keeper.installed()
    assert again is not agent
    with again.start([], tmp_path / "next.jsonl.gz") as following:
        following.mark("it goes on")
    keeper.close()
    pod.remove(kube, NAMESPACE)


def test_a_cut_connection_and_an_absent_api_server_cost_nothing(
    kube: Kube, standin: ClusterHandle, tmp_path: Path
) -> None:
    document = yaml.safe_load(standin.kubeconfig.read_text("utf-8"))
    (cluster,) = document["clusters"]
    proxy = Door(int(cluster["cluster"]["server"].rpartition(":")[2]))
    cluster["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(document), "utf-8")
    try:
        with Kube(path) as through:
            agent = pod.ensure(through, NAMESPACE, within_s=60, name="pgo-probe-cut")
            probe = agent.start([], tmp_path / "h.jsonl.gz")
            first = probe.mark("before the outage")
            have = len(probe.stream.lines)
            proxy.shut()
            eventually(
                lambda: probe.cuts,
                accept=lambda cuts: cuts > 2,
                within_s=60,
                what="the reader to try in vain",
                successes=1,
            )
            proxy.reopen()
            lines(probe, have + 3, "the stream to go on")
            second = probe.mark("after the outage")
            history = History.load(probe.stop())
            agent.close()
    finally:
        proxy.close()
        pod.remove(kube, NAMESPACE, name="pgo-probe-cut")
    assert history.end == "stopped"
    assert history.is_complete
    assert second > first
    told = str(history.events)
    assert "before the outage" in told
    assert "after the outage" in told
    assert probe.cuts > 2
