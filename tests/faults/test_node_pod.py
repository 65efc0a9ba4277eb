"""What a privileged helper pod does on real Kubernetes, against an API that answers from memory."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from faults.fakes import FakeKube, FakeServer
from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.clusters.privileged import with_allowed
from pytest_pgo_eks.errors import ExecProblem, FaultNotProven, Inconclusive
from pytest_pgo_eks.faults import clock, netlink, node_pod, routes
from pytest_pgo_eks.faults.bench import Bench
from pytest_pgo_eks.kube import ExecResult
from pytest_pgo_eks.settings import Settings

Object = dict[str, Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_PROVE_S", 0.2)
    monkeypatch.setattr(routes, "_POLL_S", 0.02)


class Nodes(FakeKube):
    """Helper pods that run at once; ``dropped`` is by how much each count rises."""

    def __init__(self, *, dropped: int = 5) -> None:
        super().__init__()
        self.dropped = dropped
        self.counts: dict[str, int] = {}
        self.told: list[tuple[str, Object]] = []
        self.shell = self._answer
        self.objects["Service", "kubernetes"] = {"spec": {"clusterIP": "10.96.0.1"}}
        self.objects["EndpointSlice", "kubernetes"] = {
            "endpoints": [{"addresses": ["172.18.0.2"]}, {"addresses": ["172.18.0.3"]}]
        }

    def pod(self, name: str, node: str | None, uid: str = "") -> None:
        self.objects["Pod", name] = {
            "metadata": {"name": name, "uid": uid or f"uid-{name}"},
            "spec": {"nodeName": node},
            "status": {"hostIP": f"172.18.0.{9 if node else 0}", "podIP": f"10.0.0.{len(name)}"},
        }

    def create(self, manifest: Object) -> Object:
        made = super().create(manifest | {"status": {"phase": "Running"}})
        assert made["spec"]["containers"][0]["securityContext"]["privileged"]
        return made

    def _answer(self, pod: str, command: Sequence[str]) -> ExecResult:
        told = json.loads(command[-1])
        self.told.append((pod, told))
        uid = told["uid"]
        if told["do"] == "count":
            self.counts[uid] = self.counts.get(uid, 40) + self.dropped
        answer = {"unrouted": self.counts.get(uid, 40), "guard": 7, "routes": [["0.0.0.0/1"]]}
        return ExecResult(0, json.dumps(answer).encode(), b"")

    def did(self, what: str) -> list[tuple[str, Object]]:
        return [(pod, told) for pod, told in self.told if told["do"] == what]

    @property
    def helpers(self) -> list[str]:
        return [name for _, name in self.objects if name.startswith("pgo-helper")]


def cut(kube: FakeKube, *pods: str, **how: Any) -> routes.PodsCutOff:
    return routes.PodsCutOff(kube.kube, "n", pods, kind="pod-partitioned", image="python", **how)


def test_pods_are_cut_off_by_a_helper_on_each_ones_node() -> None:
    kube, bench = Nodes(), Bench()
    kube.pod("db-0", "node-a")
    kube.pod("db-1", "node-b")
    done = bench.inject(cut(kube, "db-0", "db-1"))
    assert "10 packets of db-0, db-1 found no way out" in done.proof.sentence
    assert kube.helpers == ["pgo-helper-node-a", "pgo-helper-node-b"]
    ((where, told), _) = kube.did("cut")
    assert (where, told["uid"], told["peers"]) == ("pgo-helper-node-a", "uid-db-0", None)
    assert told["spare"] == ["172.18.0.9"], "its own kubelet reaches it all the same"
    bench.undo_all()
    assert [told["uid"] for _, told in kube.did("undo")] == ["uid-db-1", "uid-db-0"]
    assert kube.did("undo")[0][1]["routes"] == [["0.0.0.0/1"]]
    assert not kube.helpers


def test_the_api_server_is_cut_off_by_all_its_addresses() -> None:
    kube = Nodes()
    kube.pod("db-0", "node-a")
    Bench().inject(cut(kube, "db-0", peers=["api"]))
    ((_, told),) = kube.did("cut")
    assert told["peers"] == ["10.96.0.1", "172.18.0.2", "172.18.0.3"]
    assert told["spare"] == []


def test_who_is_spared_is_named_by_address() -> None:
    kube = Nodes()
    kube.pod("db-0", "node-a")
    kube.pod("client", "node-b")
    Bench().inject(cut(kube, "db-0", spare=[{"pod": "client"}]))
    assert kube.did("cut")[0][1]["spare"] == ["10.0.0.6", "172.18.0.9"]


def test_packets_that_all_found_a_way_out_prove_nothing() -> None:
    kube, bench = Nodes(dropped=0), Bench()
    kube.pod("db-0", "node-a")
    with pytest.raises(FaultNotProven):
        bench.inject(cut(kube, "db-0"))
    bench.undo_all()
    assert kube.did("undo")
    assert not kube.helpers


def test_a_pod_on_no_node_or_a_peer_without_an_address_is_refused() -> None:
    kube, bench = Nodes(), Bench()
    kube.pod("db-0", None)
    with pytest.raises(Inconclusive, match="on no node"):
        bench.inject(cut(kube, "db-0"))
    with pytest.raises(Inconclusive, match="cannot tell the address"):
        bench.inject(cut(kube, "db-0", peers=["dns"]))
    bench.undo_all()
    assert not kube.told


def test_a_pod_that_was_replaced_has_nothing_to_take_back() -> None:
    kube, bench = Nodes(), Bench()
    kube.pod("db-0", "node-a")
    bench.inject(cut(kube, "db-0"))
    kube.pod("db-0", "node-a", uid="another")
    bench.undo_all()
    assert not kube.did("undo")
    assert not kube.helpers


def test_a_helper_of_an_earlier_run_is_replaced_and_its_errors_are_told() -> None:
    kube = Nodes()
    kube.objects["Pod", "pgo-helper-node-a"] = {"metadata": {}, "status": {"phase": "Failed"}}
    one = node_pod.Helper(kube.kube, "n", "node-a", "python")
    assert one.run("x", do="count", uid="u") == {
        "unrouted": 45,
        "guard": 7,
        "routes": [["0.0.0.0/1"]],
    }
    assert kube.calls[0] == ("delete", "Pod", "pgo-helper-node-a")
    kube.shell = lambda _pod, _command: ExecResult(1, b"", b"Traceback\nno process of pod u\n")
    with pytest.raises(ExecProblem, match="node-a: no process of pod u"):
        one.run("x", do="count", uid="u")
    one.remove()
    one.remove()
    assert not kube.helpers


def test_the_helper_is_bound_to_its_node_and_ends_by_itself() -> None:
    spec = node_pod.manifest("n", "Node.With.Dots", "python")["spec"]
    assert (spec["nodeName"], spec["hostPID"]) == ("Node.With.Dots", True)
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["activeDeadlineSeconds"] > 0
    assert node_pod.manifest("n", "Node.With.Dots", "p")["metadata"]["name"] == (
        "pgo-helper-node-with-dots"
    )


# -- the program that runs on the node

TABLE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0100000A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""


def test_every_route_is_outdone_by_two_halves_and_the_spared_keep_theirs() -> None:
    known = netlink.existing(TABLE)
    assert [str(net) for net, _, _ in known] == ["0.0.0.0/0", "10.0.0.0/24", "10.0.0.1/32"]
    wanted = [
        (str(net), device, gateway and str(gateway))
        for net, device, gateway in netlink.plan(known, None, ["10.0.0.7", "172.18.0.9"])
    ]
    assert wanted == [
        ("0.0.0.0/1", None, None),
        ("128.0.0.0/1", None, None),
        ("10.0.0.0/25", None, None),
        ("10.0.0.128/25", None, None),
        ("10.0.0.7/32", "eth0", None),
        ("172.18.0.9/32", "eth0", "10.0.0.1"),
    ]


def test_peers_alone_lead_nowhere() -> None:
    (only,) = netlink.plan(netlink.existing(TABLE), ["10.96.0.1"], [])
    assert only == (ipaddress.IPv4Network("10.96.0.1/32"), None, None)


@pytest.mark.parametrize("written", ["a1-b2", "a1_b2"])
def test_a_pods_process_is_found_by_its_control_group(tmp_path: Path, written: str) -> None:
    for pid, text in (("9", "0::/init"), ("41", f"0::/kubepods/pod{written}/c"), ("self", written)):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cgroup").write_text(text)
    assert netlink.process_of("a1-b2", str(tmp_path)) == "41"
    with pytest.raises(SystemExit, match="no process of pod c3"):
        netlink.process_of("c3", str(tmp_path))


# In a network of its own: a device with an address, a way out, and the program run against itself.
_STORY = """
set -e
ip link set lo up; ip link add v0 type veth peer name v1
ip addr add 10.9.1.2/24 dev v0; ip link set v0 up; ip link set v1 up
ip route add default via 10.9.1.1 dev v0
before=$(ip route | sort)
said=$("$1" "$2" '{"pid":"self","do":"cut","spare":["10.9.1.5"]}')
ip route get 10.9.1.7 >/dev/null 2>&1 && { echo "10.9.1.7 is reached"; exit 1; }
ip route get 8.8.8.8 >/dev/null 2>&1 && { echo "8.8.8.8 is reached"; exit 1; }
ip route get 10.9.1.5 >/dev/null
"$1" "$2" '{"pid":"self","do":"count"}'
undo=$("$1" -c 'import json, sys
told = json.loads(sys.argv[1])
print(json.dumps({"pid": "self", "do": "undo", "guard": told["guard"], "routes": told["routes"]}))' "$said")
"$1" "$2" "$undo" >/dev/null
[ "$(ip route | sort)" = "$before" ] || { ip route; exit 1; }
"""


def test_the_program_cuts_a_real_network_off_and_gives_it_back() -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], check=False).returncode:
        pytest.skip("this machine lets nobody make a network namespace")
    command = [unshare, "-rn", "bash", "-c", _STORY, "bash", sys.executable, netlink.__file__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unrouted" in done.stdout


# -- a clock


class Clocks:
    """A node whose clock the helper moves; its server tells the time of it."""

    def __init__(self, *, numb: bool = False, provider: str = "aws:///eu/i-1") -> None:
        self.kube = FakeKube()
        self.kube.objects["Node", "node-a"] = {"spec": {"providerID": provider}}
        self.now = 1000.0
        self.numb = numb
        self.removed = False
        self.told: list[Object] = []
        self.node = "node-a"

    def run(self, _program: str, **told: Any) -> Object:
        self.told.append(told)
        if told["do"] == "undo":
            self.now = told["offset"]
            return {"offset": self.now}
        before = self.now
        if not self.numb:
            self.now += told["by_s"]
        return {"offset": before, "guard": 7}

    def remove(self) -> None:
        self.removed = True

    def fault(self) -> clock.ClockShifted:
        here: Any = FakeServer("db-0")
        here.value = lambda _sql: self.now
        there: Any = FakeServer("db-1", clock_timestamp=999.9)
        return clock.ClockShifted(self.kube.kube, cast(Any, self), here, there, by_s=600)


def test_a_shifted_clock_is_proven_against_another_servers_and_put_right() -> None:
    clocks, bench = Clocks(), Bench()
    done = bench.inject(clocks.fault())
    assert "db-0 on node-a moved by 600.0 s against db-1" in done.proof.sentence
    bench.undo_all()
    assert clocks.now == 1000.0
    assert clocks.told[-1] == {"do": "undo", "offset": 1000.0, "guard": 7}
    assert clocks.removed


def test_a_clock_that_did_not_move_proves_nothing() -> None:
    clocks, bench = Clocks(numb=True), Bench()
    with pytest.raises(FaultNotProven, match=r"moved by 0\.0 s"):
        bench.inject(clocks.fault())
    bench.undo_all()
    assert clocks.removed


@pytest.mark.parametrize("provider", ["kind://docker/kind/node", "", "k3s://node"])
def test_the_clock_of_somebodys_desk_is_left_alone(provider: str) -> None:
    clocks, bench = Clocks(provider=provider), Bench()
    with pytest.raises(Inconclusive, match="no machine of a known provider"):
        bench.inject(clocks.fault())
    bench.undo_all()
    assert not clocks.told


# -- who may have it


def handle(provider: str = "kubeconfig", **more: Any) -> ClusterHandle:
    return ClusterHandle("c", provider, Path("k"), **more)


def test_without_the_option_the_reason_names_it() -> None:
    found = with_allowed(handle(), Settings("kubeconfig"))
    assert not found.capabilities
    assert "--pgo-allow-privileged" in found.lacks["partition"]


def test_the_option_gives_partitions_and_where_nodes_are_machines_the_clock() -> None:
    allowed = Settings("kubeconfig", allow_privileged=True)
    found = with_allowed(handle(lacks={"partition": "no API"}), allowed)
    assert found.capabilities == {"partition", "clock-shift"}
    assert not found.lacks
    desk = with_allowed(handle("kind"), allowed)
    assert desk.capabilities == {"partition"}
    assert "share the clock" in desk.lacks["clock-shift"]


def test_where_admission_refuses_privileged_pods_nothing_is_added() -> None:
    refusing = handle(lacks={"privileged-pods": "admission refuses them"})
    found = with_allowed(refusing, Settings("kubeconfig", allow_privileged=True))
    assert not found.capabilities
    assert found.lacks["partition"] == "admission refuses them"


def test_the_stand_in_keeps_its_own_means() -> None:
    ours = handle("local", stand_in=True, capabilities=frozenset({"partition"}))
    found = with_allowed(ours, Settings("local"))
    assert found.capabilities == {"partition"}
    assert "no clock of its own" in found.lacks["clock-shift"]
