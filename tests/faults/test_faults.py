"""Every fault: what it does, the effect that proves it, what undo takes back, and no effect."""

from __future__ import annotations

from typing import Any, cast

import pytest

from faults.fakes import FakeKube, FakeProcesses, FakeServer, refused_by_budget
from pytest_pgo_eks.errors import ApiProblem, ExecProblem, FaultNotProven, Inconclusive
from pytest_pgo_eks.faults import (
    certificates,
    containers,
    disk,
    network,
    nodes,
    pressure,
    processes,
    servers,
)
from pytest_pgo_eks.faults.bench import Bench, Fault
from pytest_pgo_eks.kube import ExecResult
from pytest_pgo_eks.postgres import SqlProblem
from pytest_pgo_eks.probe.plan import Login


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No effect is known to be none after a fifth of a second here."""
    for module in (containers, network, pressure, processes, servers):
        monkeypatch.setattr(module, "_PROVE_S", 0.2)
    monkeypatch.setattr(servers, "_ARCHIVE_S", 0.2)
    monkeypatch.setattr(servers, "_ARCHIVE_POLL_S", 0.02)
    monkeypatch.setattr(nodes, "_EVICT_S", 0.2)
    monkeypatch.setattr(pressure, "_POLL_S", 0.02)
    monkeypatch.setattr(disk, "_POLL_S", 0.02)
    monkeypatch.setattr(certificates, "_SERVED_S", 0.2)
    monkeypatch.setattr(certificates, "_POLL_S", 0.02)


def inject(fault: Fault) -> tuple[Bench, str]:
    bench = Bench()
    done = bench.inject(fault)
    return bench, done.proof.sentence


def demand_not_proven(fault: Fault) -> None:
    bench = Bench()
    with pytest.raises(FaultNotProven):
        bench.inject(fault)
    assert bench.standing, "a fault without effect is undone at the end all the same"
    bench.undo_all()


# -- containers


def pod_with_restarts(kube: FakeKube, count: int, uid: str = "u1") -> None:
    status = {"containerStatuses": [{"name": "database", "restartCount": count}]}
    kube.objects["Pod", "pod-0"] = {
        "metadata": {"name": "pod-0", "uid": uid},
        "status": status,
        "spec": {},
    }


def container_killed(kube: FakeKube, found: FakeProcesses) -> containers.ContainerKilled:
    fault = containers.ContainerKilled(kube.kube, "n", "pod-0", "database")
    fault._processes = found
    return fault


def test_a_killed_container_is_proven_by_its_restart_count() -> None:
    kube, found = FakeKube(), FakeProcesses(main="S")
    pod_with_restarts(kube, 2)
    found.on_kill = lambda _name: pod_with_restarts(kube, 3)
    bench, sentence = inject(container_killed(kube, found))
    assert "from 2 to 3" in sentence
    assert found.signals == [("main", "KILL")]
    bench.undo_all()


def test_a_container_that_was_not_restarted_proves_nothing() -> None:
    kube = FakeKube()
    pod_with_restarts(kube, 2)
    demand_not_proven(container_killed(kube, FakeProcesses(main="S")))


def test_a_replaced_pod_does_not_prove_a_killed_container() -> None:
    kube, found = FakeKube(), FakeProcesses(main="S")
    pod_with_restarts(kube, 0)
    found.on_kill = lambda _name: pod_with_restarts(kube, 1, uid="another")
    demand_not_proven(container_killed(kube, found))


# -- processes


def test_a_frozen_process_is_proven_by_its_state_and_runs_again() -> None:
    found = FakeProcesses(postmaster="S")
    bench, sentence = inject(processes.ProcessFrozen(found, "postmaster"))
    assert "state T" in sentence
    bench.undo_all()
    assert found.table["postmaster"].state == "S"


@pytest.mark.parametrize("trouble", [ApiProblem("500: the kubelet refused"), ExecProblem("cut")])
def test_a_frozen_process_runs_again_though_its_container_cannot_be_looked_into_at_first(
    trouble: Exception,
) -> None:
    found = FakeProcesses(patroni="S")
    bench, _ = inject(processes.ProcessFrozen(found, "patroni"))
    looks = [trouble, trouble]
    seen = found.find

    def find(name: str) -> processes.Process | None:
        if looks:
            raise looks.pop()
        return seen(name)

    found.find = find  # type: ignore[method-assign]
    bench.undo_all()
    assert not looks
    assert found.table["patroni"].state == "S"


def test_nothing_is_frozen_in_a_container_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_UNDO_S", 0.1)
    found = FakeProcesses(patroni="S")
    bench, _ = inject(processes.ProcessFrozen(found, "patroni"))

    def find(name: str) -> processes.Process | None:
        raise ApiProblem(f"500: the kubelet refused to look for {name}")

    found.find = find  # type: ignore[method-assign]
    bench.undo_all()
    assert found.signals == [("patroni", "STOP")]


@pytest.mark.parametrize("fault", [processes.ProcessFrozen, processes.ProcessKilled])
def test_a_signal_without_effect_proves_nothing(fault: Any) -> None:
    found = FakeProcesses(patroni="S")
    found.numb = True
    demand_not_proven(fault(found, "patroni"))


def test_a_killed_process_is_proven_by_another_in_its_place() -> None:
    _, sentence = inject(processes.ProcessKilled(FakeProcesses(patroni="S"), "patroni"))
    assert "pid 150 took its place" in sentence


# -- servers


def backend_killed(found: FakeProcesses, *rows: dict[str, int]) -> servers.BackendKilled:
    server: Any = FakeServer(pg_stat_activity=rows)
    return servers.BackendKilled(found, server)


def test_a_killed_backend_is_proven_by_the_postmaster_starting_all_others_anew() -> None:
    found = FakeProcesses(postmaster="S", checkpointer="S")
    found.on_kill = lambda _script: found.restart("checkpointer")
    _, sentence = inject(backend_killed(found, {"pid": 4711}))
    assert found.scripts == ["kill -KILL 4711"]
    assert "under the same postmaster" in sentence


def test_a_backend_whose_end_harmed_nobody_proves_nothing() -> None:
    found = FakeProcesses(postmaster="S", checkpointer="S")
    demand_not_proven(backend_killed(found, {"pid": 4711}))
    demand_not_proven(backend_killed(found))
    demand_not_proven(backend_killed(FakeProcesses(postmaster="S"), {"pid": 4711}))


def held_back(found: FakeProcesses, received: Any) -> servers.ReplicaHeldBack:
    replica: Any = FakeServer("replica", pg_last_wal_receive_lsn=received)
    primary: Any = FakeServer("primary", pg_current_wal_flush_lsn="0/1400000")
    return servers.ReplicaHeldBack(found, replica, primary)


def test_a_replica_held_back_is_proven_by_the_wal_it_lacks() -> None:
    found = FakeProcesses("replica", walreceiver="S")
    bench, sentence = inject(held_back(found, "0/1000000"))
    assert "lacks 4.0 MiB" in sentence
    bench.undo_all()
    assert found.table["walreceiver"].state == "S"


def test_a_replica_that_received_all_the_same_proves_nothing() -> None:
    found = FakeProcesses("replica", walreceiver="S")
    demand_not_proven(held_back(found, "0/1400000"))
    assert found.table["walreceiver"].state == "S", "undone although not proven"


def paused(found: FakeProcesses, behind: Any) -> servers.ReplayPaused:
    server: Any = FakeServer("replica", pg_wal_lsn_diff=behind)
    return servers.ReplayPaused(found, server)


def test_paused_replay_is_proven_by_bytes_received_and_not_shown() -> None:
    found = FakeProcesses("replica", startup="S")
    bench, sentence = inject(paused(found, 4096))
    assert "4096 bytes" in sentence
    assert found.table["startup"].state == "T"
    bench.undo_all()
    assert found.table["startup"].state == "S"


def test_replay_that_goes_on_proves_nothing() -> None:
    demand_not_proven(paused(FakeProcesses("replica", startup="S"), 0))
    demand_not_proven(paused(FakeProcesses("replica"), 4096))


def archive_failing(found: FakeProcesses, failed: Any) -> servers.ArchiveFailing:
    primary: Any = FakeServer("primary", failed_count=failed)
    return servers.ArchiveFailing(found, primary)


def test_failing_archiving_is_proven_by_the_primarys_own_count() -> None:
    found = FakeProcesses("primary")
    bench, sentence = inject(archive_failing(found, [1, 1, 3]))
    assert "2 of its archive commands failed" in sentence
    assert found.scripts == ["pgbackrest stop"]
    bench.undo_all()
    assert found.scripts == ["pgbackrest stop", "pgbackrest start"]


def test_archiving_that_never_failed_proves_nothing() -> None:
    demand_not_proven(archive_failing(FakeProcesses("primary"), 1))


# -- the network


class Switchboard:
    """The stand-in's fault endpoint: counts what it dropped, forgets what is deleted."""

    def __init__(self, *dropped: int) -> None:
        self.dropped = list(dropped)
        self.standing: dict[str, Any] = {}
        self.requests: list[Any] = []

    def __call__(self, method: str, path: str, body: Any) -> Any:
        assert path.startswith("/stand-in/v1/faults")
        one = path.rpartition("/")[2]
        if method == "POST":
            self.requests.append(body)
            name = f"f{len(self.requests)}"
            self.standing[name] = self.dropped[len(self.requests) - 1]
            return {"id": name}
        if method == "DELETE":
            del self.standing[one]
            return {}
        return {"evidence": {"packets_in": self.standing[one], "packets_out": 0}}


def cut(kube: FakeKube, *pods: str, **how: Any) -> network.PacketsDropped:
    return network.pod_partitioned(kube.kube, "n", pods, **how)


def test_a_partition_is_proven_by_dropped_packets_and_taken_back() -> None:
    kube, board = FakeKube(), Switchboard(7)
    kube.answer = board
    bench, sentence = inject(cut(kube, "pod-0", direction="out"))
    assert "7 packets" in sentence
    assert board.requests[0]["direction"] == "out"
    bench.undo_all()
    assert not board.standing


def test_a_partition_that_resets_asks_for_it() -> None:
    kube, board = FakeKube(), Switchboard(7, 7)
    kube.answer = board
    inject(cut(kube, "pod-0", action="reject"))
    inject(cut(kube, "pod-0"))
    assert board.requests[0]["action"] == "reject"
    assert "action" not in board.requests[1]


def test_every_pod_of_a_partition_has_to_lose_packets() -> None:
    kube, board = FakeKube(), Switchboard(7, 0)
    kube.answer = board
    demand_not_proven(cut(kube, "pod-0", "pod-1", peers=["api"]))
    assert not board.standing, "both are taken back"
    assert [one["peers"] for one in board.requests] == [["api"], ["api"]]


def test_peers_are_named_with_their_namespace() -> None:
    kube, board = FakeKube(), Switchboard(1)
    kube.answer = board
    inject(cut(kube, "pod-0", peers=[{"pod": "pod-1"}, "api"]))
    assert board.requests[0]["peers"] == [{"namespace": "n", "pod": "pod-1"}, "api"]


def test_who_is_spared_is_named_with_its_namespace() -> None:
    kube, board = FakeKube(), Switchboard(1)
    kube.answer = board
    inject(cut(kube, "pod-0", spare=[{"pod": "probe"}]))
    assert board.requests[0]["spare"] == [{"namespace": "n", "pod": "probe"}]
    assert "peers" not in board.requests[0]


def test_a_partition_that_failed_half_way_is_taken_back() -> None:
    kube, board = FakeKube(), Switchboard(1)
    kube.answer = board
    bench = Bench()
    with pytest.raises(IndexError):
        bench.inject(cut(kube, "pod-0", "pod-1"))
    bench.undo_all()
    assert not board.standing


@pytest.mark.parametrize(
    ("make", "kind", "key"),
    [
        (lambda k: network.packets_lost(k, "n", "pod-0", 10), "packet-loss", "percent"),
        (lambda k: network.node_partitioned(k, "node-1"), "partition-node", "node"),
        (lambda k: network.node_lost(k, "node-1"), "node-loss", "node"),
        (lambda k: network.zone_lost(k, "zone-a"), "zone-loss", "zone"),
    ],
)
def test_each_place_has_its_request(make: Any, kind: str, key: str) -> None:
    kube, board = FakeKube(), Switchboard(3)
    kube.answer = board
    bench, _ = inject(make(kube.kube))
    assert board.requests[0]["kind"] == kind
    assert key in board.requests[0]
    bench.undo_all()
    assert not board.standing


class Doorbell:
    """A probe whose sessions arrive, until a policy is there, unless nobody enforces it."""

    def __init__(self, kube: FakeKube, *, enforced: bool = True, closed: bool = False) -> None:
        self._kube = kube
        self._enforced = enforced
        self._closed = closed

    def ask(self, _login: Login, _sql: str, **_: Any) -> list[Any]:
        policies = self._kube.list("NetworkPolicy", "n")
        shut = self._closed or (self._enforced and bool(policies))
        return [type("Answer", (), {"code": "deadline" if shut else "", "ok": not shut})]


def isolated(kube: FakeKube, **how: Any) -> network.PolicyIsolated:
    probe: Any = Doorbell(kube, **how)
    return network.PolicyIsolated(
        kube.kube, "n", "pod-0", probe, Login.at("x", user="u", database="d")
    )


def test_a_policy_is_proven_by_sessions_that_do_not_arrive() -> None:
    kube = FakeKube()
    bench, _ = inject(isolated(kube))
    assert kube.list("NetworkPolicy", "n")
    bench.undo_all()
    assert not kube.list("NetworkPolicy", "n")


def test_a_policy_that_nobody_enforces_proves_nothing() -> None:
    kube = FakeKube()
    demand_not_proven(isolated(kube, enforced=False))
    assert not kube.list("NetworkPolicy", "n")


def test_a_pod_that_answered_nobody_before_proves_nothing() -> None:
    with pytest.raises(Inconclusive, match="even without a policy"):
        inject(isolated(FakeKube(), closed=True))


# -- nodes


def on_node(kube: FakeKube, name: str, node: str, phase: str = "Running") -> None:
    kube.objects["Pod", name] = {
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "spec": {"nodeName": node},
        "status": {"phase": phase},
    }


def drained(kube: FakeKube) -> nodes.NodeDrained:
    return nodes.NodeDrained(kube.kube, "node-1", "n", {})


def evicting(kube: FakeKube) -> Any:
    def answer(_method: str, path: str, _body: Any) -> Any:
        del kube.objects["Pod", path.split("/")[-2]]
        return {}

    return answer


def test_a_drain_is_proven_by_the_evicted_pods_being_gone() -> None:
    kube = FakeKube()
    on_node(kube, "a", "node-1")
    on_node(kube, "b", "node-2")
    on_node(kube, "done", "node-1", "Succeeded")
    kube.answer = evicting(kube)
    bench, sentence = inject(drained(kube))
    assert "a left it" in sentence
    assert ("Pod", "b") in kube.objects
    bench.undo_all()
    cordons = [call[3]["spec"]["unschedulable"] for call in kube.calls if call[0] == "patch"]
    assert cordons == [True, None]


def test_a_drain_that_a_budget_forbids_ends_and_is_taken_back() -> None:
    kube = FakeKube()
    on_node(kube, "a", "node-1")
    kube.answer = refused_by_budget
    bench = Bench()
    with pytest.raises(TimeoutError):
        bench.inject(drained(kube))
    bench.undo_all()
    assert kube.calls[-1][3] == {"spec": {"unschedulable": None}}


def test_an_eviction_that_was_granted_and_had_no_effect_proves_nothing() -> None:
    kube = FakeKube()
    on_node(kube, "a", "node-1")
    kube.answer = lambda *_: {}
    demand_not_proven(drained(kube))


def test_an_empty_node_proves_nothing() -> None:
    demand_not_proven(drained(FakeKube()))


def test_an_eviction_refused_for_another_reason_is_told_with_it() -> None:
    def forbidden(*_: Any) -> Any:
        raise ApiProblem("forbidden", status=403)

    kube = FakeKube()
    on_node(kube, "a", "node-1")
    kube.answer = forbidden
    with pytest.raises(Inconclusive, match="forbidden"):
        inject(drained(kube))


# -- certificates


def certificate(kube: FakeKube, served: dict[str, str], *, reissued: bool) -> Fault:
    kube.objects["Secret", "cert"] = {"metadata": {"name": "cert", "uid": "u1"}}
    kube.shell = lambda pod, _command: ExecResult(0, served[pod].encode(), b"")

    def reissue(_kind: str, _name: str) -> None:
        kube.objects["Secret", "cert"] = {"metadata": {"name": "cert", "uid": "u2"}}
        if reissued:
            served["pod-0"] = "bbbb"

    kube.on_delete = reissue
    return certificates.CertificateReplaced(kube.kube, "n", "cert", ["pod-0", "pod-1"])


def test_a_replaced_certificate_is_proven_by_what_every_server_shows() -> None:
    kube, served = FakeKube(), {"pod-0": "aaaa", "pod-1": "aaaa"}
    fault = certificate(kube, served, reissued=True)
    done = kube.on_delete
    kube.on_delete = lambda kind, name: (done(kind, name), served.update({"pod-1": "cccc"}))[0]
    bench, sentence = inject(fault)
    assert "pod-0 aaaa… to bbbb…" in sentence
    bench.undo_all()


def test_a_new_secret_that_one_server_does_not_show_proves_nothing() -> None:
    kube, served = FakeKube(), {"pod-0": "aaaa", "pod-1": "aaaa"}
    demand_not_proven(certificate(kube, served, reissued=True))


# -- who kills himself with what he kills


def shell_of(kube: FakeKube, *answers: tuple[int, str]) -> processes.Processes:
    left = list(answers)

    def shell(_pod: str, _command: Any) -> ExecResult:
        status, said = left.pop(0)
        return ExecResult(status, said.encode(), b"")

    kube.shell = shell
    return processes.Processes(kube.kube, "n", "pod-0", container="pgbouncer")


def test_who_kills_a_containers_main_process_dies_with_it() -> None:
    said = shell_of(FakeKube(), (0, "7 S 100\n"), (137, ""))
    assert said.signal("main", "KILL") == processes.Process(7, "S", 100)
    said = shell_of(FakeKube(), (0, "7 S 100\n"), (137, "8 S 120\n"))
    assert said.signal("main", "KILL") == processes.Process(8, "S", 120)


def test_any_other_shell_that_was_killed_is_an_error() -> None:
    with pytest.raises(ExecProblem, match="ended with 137"):
        shell_of(FakeKube(), (137, "")).signal("postmaster", "KILL")
    with pytest.raises(FaultNotProven, match="no main process"):
        shell_of(FakeKube(), (0, ""), (3, "")).signal("main", "KILL")


# -- pressure


def looked(*burners: tuple[int, int, int], stalled: str = "") -> str:
    lines = [f"burner {pid} {ticks} {kib}" for pid, ticks, kib in burners]
    return "\n".join([*lines, "ticks 100", *([f"stalled {stalled}"] if stalled else []), ""])


class Pressed(FakeProcesses):
    """A container that says of its burners what it was given, the last again and again."""

    def __init__(self, *looks: str) -> None:
        super().__init__("pod-0")
        self.looks = list(looks)

    def run(self, script: str) -> str:
        self.scripts.append(script)
        if "ticks" not in script:
            return ""
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


def test_busy_processors_are_proven_by_the_time_that_was_used() -> None:
    found = Pressed(
        looked(stalled="1000000"),
        looked((7, 50, 1)),
        looked((7, 120, 1), (8, 130, 1), stalled="3500000"),
    )
    bench, sentence = inject(pressure.ProcessorsBusy(found))
    assert "2 busy processes in pod-0 used 2.5 s of CPU, and tasks waited 2.5 s" in sentence
    bench.undo_all()
    assert "kill -KILL" in found.scripts[-1]


def test_processors_that_nobody_uses_prove_nothing() -> None:
    demand_not_proven(pressure.ProcessorsBusy(Pressed(looked((7, 1, 1)))))
    demand_not_proven(pressure.ProcessorsBusy(Pressed(looked())))


def test_held_memory_is_proven_by_its_resident_size() -> None:
    found = Pressed(looked((7, 1, 4)), looked((7, 1, 70_000)))
    bench, sentence = inject(pressure.MemoryHeld(found, 64))
    assert "holds 68 MiB" in sentence
    assert "head -c 64m" in found.scripts[0]
    bench.undo_all()
    demand_not_proven(pressure.MemoryHeld(Pressed(looked((7, 1, 60_000))), 64))


def test_burners_end_with_their_container() -> None:
    class Gone(FakeProcesses):
        def run(self, script: str) -> str:
            raise ExecProblem("no such container")

    pressure.MemoryHeld(Gone(), 1).undo()


# -- a full volume


class Disk(FakeProcesses):
    """A container whose data volume has so much; the file that fills it leaves ``left``."""

    def __init__(self, size_kib: int, free_kib: int, left: int = 0) -> None:
        super().__init__("pod-0")
        self.size_kib, self.free_kib, self.left = size_kib, free_kib, left
        self.refusals = 0

    def run(self, script: str) -> str:
        self.scripts.append(script)
        if script.startswith("rm") and self.refusals:
            self.refusals -= 1
            raise ExecProblem("container not running")
        if "fallocate" in script:
            self.free_kib = self.left
        return f"{self.size_kib} {self.free_kib}\n" if script.startswith("df") else ""


class Refusing(FakeServer):
    """A server that has no room for a new page, and breaks off when it needs a segment."""

    def run(self, sql: str, **_: Any) -> list[str]:
        self.ran.append(sql)
        if "TEMP" in sql:
            text = 'ERROR 53100: could not extend file "base/5/1": No space left on device'
            raise SqlProblem(text, sqlstate="53100")
        if len(self.ran) > 3:
            raise ExecProblem("server closed the connection unexpectedly")
        return []


def volume_full(found: Disk, server: FakeServer) -> disk.VolumeFull:
    return disk.VolumeFull(found, cast(Any, server), lambda: 512 * 2**20)


def test_a_full_volume_is_proven_by_df_and_by_the_servers_refusal() -> None:
    found, server = Disk(512 * 1024, 300_000), Refusing()
    bench, sentence = inject(volume_full(found, server))
    assert "has 0 free bytes" in sentence
    assert "No space left on device" in sentence
    assert len(server.ran) == 4, "segments are used up until the server breaks off"
    found.refusals = 2
    bench.undo_all()
    assert found.scripts[-1].startswith("rm -f")
    assert sum(script.startswith("rm") for script in found.scripts) == 3


def test_a_volume_that_belongs_to_others_too_is_left_alone() -> None:
    found = Disk(60 * 2**20, 2**20)
    bench = Bench()
    with pytest.raises(Inconclusive, match="would harm others"):
        bench.inject(volume_full(found, Refusing()))
    bench.undo_all()
    assert all(script.startswith("df") for script in found.scripts), "nothing was filled or removed"


def test_a_volume_on_which_the_server_still_writes_proves_nothing() -> None:
    demand_not_proven(volume_full(Disk(512 * 1024, 9), FakeServer()))
    demand_not_proven(volume_full(Disk(512 * 1024, 99_999, left=50_000), Refusing()))


# -- delay


class Slow:
    """A probe whose sessions take so long, one after the other; None does not arrive."""

    def __init__(self, *took_s: float | None) -> None:
        self._took = list(took_s)

    def ask(self, _login: Login, _sql: str, **_: Any) -> list[Any]:
        took = self._took.pop(0) if len(self._took) > 1 else self._took[0]
        return [type("Answer", (), {"ok": took is not None, "took_s": took or 0.0})]


def delayed(kube: FakeKube, *took_s: float | None) -> network.PacketsDelayed:
    probe: Any = Slow(*took_s)
    login = Login.at("x", user="u", database="d")
    return network.PacketsDelayed(kube.kube, "n", "pod-0", probe, login, delay_s=0.1)


def test_delayed_packets_are_proven_by_sessions_that_take_longer() -> None:
    kube, board = FakeKube(), Switchboard(0)
    kube.answer = board
    bench, sentence = inject(delayed(kube, 0.02, 0.44))
    assert "takes 0.440 s, 0.020 s before" in sentence
    assert board.requests[0] == {"kind": "delay", "namespace": "n", "pod": "pod-0", "delay_s": 0.1}
    bench.undo_all()
    assert not board.standing


def test_sessions_as_quick_as_before_or_none_at_all_prove_no_delay() -> None:
    for later in (0.05, None):
        kube, board = FakeKube(), Switchboard(0)
        kube.answer = board
        demand_not_proven(delayed(kube, 0.02, later))
        assert not board.standing
    with pytest.raises(Inconclusive, match="even without a delay"):
        inject(delayed(FakeKube(), None))
