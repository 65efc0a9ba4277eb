"""Probe thresholds, back-off, phases and conditions: the rules without any process."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_pgo_eks.local.kubelet.backoff import BackOff
from pytest_pgo_eks.local.kubelet.probes import Kind, ProbeState, Result, Timing
from pytest_pgo_eks.local.kubelet.status import (
    Conditions,
    Facts,
    Record,
    Running,
    State,
    Terminated,
    Waiting,
    compute,
    phase,
    qos_class,
)


def probe(kind: Kind, **numbers: int) -> ProbeState:
    return ProbeState(kind, Timing.of(numbers))


def test_defaults_of_a_probe() -> None:
    assert Timing.of({}) == Timing(0, 10, 1, 1, 3, None)


@pytest.mark.parametrize(
    ("delay", "period", "liveness"),
    [(0, 10, 10), (3, 10, 10), (10, 10, 10), (15, 10, 20), (3, 2, 4)],
)
def test_first_attempts(delay: int, period: int, liveness: int) -> None:
    timing = Timing.of({"initialDelaySeconds": delay, "periodSeconds": period})
    assert timing.first_s(Kind.READINESS) == delay
    assert timing.first_s(Kind.LIVENESS) == timing.first_s(Kind.STARTUP) == liveness


def test_readiness_needs_its_thresholds_both_ways() -> None:
    state = probe(Kind.READINESS, successThreshold=2, failureThreshold=3)
    assert state.result is Result.FAILURE
    assert not state.take(success=True)
    assert state.take(success=True)
    assert [state.take(success=False) for _ in range(2)] == [False, False]
    # One success in between and the count begins again.
    assert not state.take(success=True)
    assert [state.take(success=False) for _ in range(3)] == [False, False, True]
    assert state.result is Result.FAILURE
    assert not state.on_hold


def test_liveness_holds_still_once_it_has_failed() -> None:
    state = probe(Kind.LIVENESS, failureThreshold=2)
    assert state.result is Result.SUCCESS
    assert not state.take(success=False)
    assert state.due(running_s=1, started=True, terminating=False)
    assert state.take(success=False)
    assert not state.due(running_s=1, started=True, terminating=False)


def test_what_is_due_when() -> None:
    live, ready, start = (probe(kind, initialDelaySeconds=3) for kind in Kind)
    assert not live.due(running_s=2.9, started=True, terminating=False)
    assert live.due(running_s=3, started=True, terminating=False)
    assert not live.due(running_s=3, started=False, terminating=False)
    assert not live.due(running_s=3, started=True, terminating=True)
    assert ready.due(running_s=3, started=True, terminating=True)
    assert start.due(running_s=3, started=False, terminating=False)
    assert not start.due(running_s=3, started=True, terminating=False)


def test_back_off_doubles_from_the_second_restart_to_five_minutes() -> None:
    back_off = BackOff()
    now = 0.0
    waits = []
    for _ in range(8):
        ended = now + 1
        waits.append(back_off.next_delay_s(ended, ended))
        now = ended + waits[-1]
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


def test_back_off_counts_from_the_end_and_forgets_after_ten_minutes() -> None:
    back_off = BackOff()
    assert back_off.next_delay_s(0, 0) == 0
    assert back_off.next_delay_s(5, 8) == 7
    assert back_off.next_delay_s(620, 620) == 0
    assert back_off.next_delay_s(621, 621) == 10


def pod(policy: str = "Always", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 2},
        "spec": {"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}], **spec},
    }


def ended(code: int) -> Terminated:
    return Terminated(code, "Error" if code else "Completed", "", 1, 2, "c://1")


def records(*states: State, init: State | None = None) -> list[Record]:
    found = [Record({"name": name}, state=state) for name, state in zip("ab", states, strict=True)]
    for record in found:
        record.ready = record.started = isinstance(record.state, Running)
    return [Record({"name": "i"}, init=True, state=init), *found] if init else found


NEW = Waiting("ContainerCreating")
UP = Running(1.0)


@pytest.mark.parametrize(
    ("policy", "states", "wanted"),
    [
        ("Always", (NEW, UP), "Pending"),
        ("Always", (UP, UP), "Running"),
        ("Always", (UP, ended(1)), "Running"),
        ("Always", (ended(0), ended(0)), "Running"),
        ("Never", (ended(0), ended(0)), "Succeeded"),
        ("Never", (ended(0), ended(1)), "Failed"),
        ("Never", (UP, ended(1)), "Running"),
        ("OnFailure", (ended(0), ended(1)), "Running"),
        ("OnFailure", (ended(0), ended(0)), "Succeeded"),
    ],
)
def test_phases(policy: str, states: tuple[State, State], wanted: str) -> None:
    assert phase(pod(policy), records(*states)) == wanted


def test_phases_while_initializing() -> None:
    assert phase(pod(), records(NEW, NEW, init=UP)) == "Pending"
    assert phase(pod(), records(NEW, NEW, init=ended(1))) == "Pending"
    assert phase(pod("Never"), records(NEW, NEW, init=ended(1))) == "Failed"
    assert phase(pod(), records(UP, UP, init=ended(0))) == "Running"


def test_a_container_between_two_runs_leaves_the_pod_running() -> None:
    found = records(Waiting("CrashLoopBackOff"), UP)
    found[0].last = ended(1)
    assert phase(pod(), found) == "Running"


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in status["conditions"]}


def test_status_of_a_pod_that_becomes_ready() -> None:
    memory = Conditions()
    facts = Facts("10.0.0.1", pod_ip="10.0.0.2", start_time=5, sandbox=True)
    early = compute(pod(), records(NEW, UP), facts, memory, 10)
    assert conditions(early)["Ready"] == "False"
    ready = next(c for c in early["conditions"] if c["type"] == "Ready")
    assert ready["message"] == "containers with unready status: [a]"
    later = compute(pod(), records(UP, UP), facts, memory, 20)
    assert set(conditions(later).values()) == {"True"}
    moved = {c["type"]: c["lastTransitionTime"] for c in later["conditions"]}
    assert moved["Ready"] == "1970-01-01T00:00:20Z"
    assert moved["PodScheduled"] == "1970-01-01T00:00:10Z"
    # A merge keeps what a patch does not name: yesterday's reason must be taken back.
    ready = next(c for c in later["conditions"] if c["type"] == "Ready")
    assert ready["reason"] is None
    assert (later["podIP"], later["podIPs"]) == ("10.0.0.2", [{"ip": "10.0.0.2"}])
    assert later["observedGeneration"] == 2


def test_readiness_gates_hold_a_pod_back() -> None:
    gated = pod(readinessGates=[{"conditionType": "x/y"}])
    facts = Facts("10.0.0.1", sandbox=True)
    status = compute(gated, records(UP, UP), facts, Conditions(), 1)
    assert conditions(status) | {"Ready": "False"} == conditions(status)
    assert conditions(status)["ContainersReady"] == "True"
    gated["status"] = {"conditions": [{"type": "x/y", "status": "True"}]}
    status = compute(gated, records(UP, UP), facts, Conditions(), 1)
    assert conditions(status)["Ready"] == "True"


def test_qos_classes() -> None:
    def one(**resources: Any) -> str:
        return qos_class({"spec": {"containers": [{"name": "a", "resources": resources}]}})

    full = {"cpu": "1", "memory": "1Gi"}
    assert one() == "BestEffort"
    assert one(limits=full) == "Guaranteed"
    assert one(limits=full, requests={"cpu": "1000m", "memory": "1024Mi"}) == "Guaranteed"
    assert one(limits=full, requests={"cpu": "500m"}) == "Burstable"
    assert one(requests={"memory": "1Gi"}) == "Burstable"
