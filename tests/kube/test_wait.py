"""Eventually and holds, on a clock of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from pytest_pgo_eks.errors import ApiProblem, ExecProblem, Violation, WaitTimeout
from pytest_pgo_eks.kube import eventually, holds
from pytest_pgo_eks.secrets import Secret
from pytest_pgo_eks.timeouts import TIMEOUTS, Timeouts


class FakeClock:
    def __init__(self) -> None:
        self.time = 1000.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        assert seconds >= 0
        self.pauses.append(seconds)
        self.time += max(seconds, 1e-6)


class FakeWake:
    """Wakes at the given times on the fake clock."""

    def __init__(self, clock: FakeClock, *at: float) -> None:
        self.clock = clock
        self.at = [1000.0 + t for t in at]
        self.waits = 0

    def sequence(self) -> int:
        return sum(t <= self.clock.time for t in self.at)

    def wait(self, after: int, timeout_s: float) -> int:
        self.waits += 1
        coming = [t for t in self.at if t > self.clock.time]
        if self.sequence() <= after:
            until = self.clock.time + timeout_s
            self.clock.time = min(*[*coming, until], until)
        return self.sequence()


def states(*values: object) -> Callable[[], object]:
    """Look at each value in turn, the last one for ever; raise those that are exceptions."""
    waiting: Iterator[object] = iter(values)
    last = [values[-1]]

    def look() -> object:
        last[0] = next(waiting, last[0])
        if isinstance(last[0], Exception):
            raise last[0]
        return last[0]

    return look


def test_three_successes_in_a_row_are_needed() -> None:
    clock = FakeClock()
    looks = []

    def look() -> str:
        looks.append(clock.now())
        return ["no", "yes", "yes", "no", "yes", "yes", "yes", "yes"][len(looks) - 1]

    assert (
        eventually(look, accept=lambda s: s == "yes", within_s=10, what="yes", clock=clock) == "yes"
    )
    assert len(looks) == 7


def test_the_message_has_what_was_expected_seen_and_how_long() -> None:
    with pytest.raises(WaitTimeout) as caught:
        eventually(
            states({"ready": 2}),
            accept=lambda s: False,
            within_s=5,
            what="three ready instances",
            clock=FakeClock(),
        )
    assert "waited 5 s for three ready instances" in str(caught.value)
    assert "{'ready': 2}" in str(caught.value)
    assert caught.value.looked
    assert caught.value.last_seen == "{'ready': 2}"


def test_not_being_able_to_look_is_not_seeing_it_wrong() -> None:
    with pytest.raises(WaitTimeout) as caught:
        eventually(
            states("old", ApiProblem("connection refused")),
            accept=lambda s: False,
            within_s=2,
            what="x",
            clock=FakeClock(),
        )
    assert not caught.value.looked
    assert caught.value.last_seen == "'old'"
    assert "the last look failed: connection refused" in str(caught.value)


def test_trouble_of_the_api_is_outlived_and_breaks_the_row() -> None:
    trouble = ExecProblem("cut")
    look = states(trouble, "yes", "yes", trouble, "yes", "yes", "yes")
    assert eventually(look, accept=lambda s: s == "yes", within_s=9, what="x", clock=FakeClock())


@pytest.mark.parametrize("error", [Violation("broken"), KeyError("x"), WaitTimeout("nested")])
def test_everything_else_ends_the_wait(error: Exception) -> None:
    clock = FakeClock()
    with pytest.raises(type(error)):
        eventually(states(error), accept=lambda s: True, within_s=9, what="x", clock=clock)
    assert clock.time == 1000.0


def test_a_hopeless_state_stops_early_with_its_reason() -> None:
    clock = FakeClock()
    with pytest.raises(
        WaitTimeout, match=r"gave up after 0\.\d s: no such image; last seen: 'pull"
    ) as caught:
        eventually(
            states("starting", "pull failed"),
            accept=lambda s: s == "up",
            fail=lambda s: "no such image" if s == "pull failed" else None,
            within_s=600,
            what="the cluster",
            clock=clock,
        )
    assert caught.value.looked
    assert clock.time < 1001


def test_what_becomes_so_too_late_is_late() -> None:
    clock = FakeClock()

    def look() -> bool:
        at = clock.now() - 1000
        clock.time += 0.4 if at >= 4.8 else 0.0
        return at > 5

    with pytest.raises(WaitTimeout) as caught:
        eventually(look, accept=bool, within_s=5, what="x", clock=clock, poll_s=4.9)
    assert caught.value.looked


def test_a_look_across_the_deadline_proves_nothing() -> None:
    clock = FakeClock()

    def look() -> bool:
        clock.time += 8
        return True

    with pytest.raises(WaitTimeout, match="ended too late to tell") as caught:
        eventually(look, accept=bool, within_s=5, what="x", clock=clock)
    assert not caught.value.looked


def test_confirming_looks_may_pass_the_deadline() -> None:
    clock = FakeClock()
    look = lambda: clock.now() >= 1005  # noqa: E731
    assert eventually(look, accept=bool, within_s=5.01, what="x", clock=clock, poll_s=1, settle_s=1)


def test_a_wake_up_ends_a_pause_and_polling_is_the_fallback() -> None:
    clock = FakeClock()
    wake = FakeWake(clock, 0.3)
    eventually(
        lambda: clock.now() >= 1000.3, accept=bool, within_s=9, what="x", wake=wake, clock=clock
    )
    assert clock.time < 1000.5
    clock = FakeClock()
    silent = FakeWake(clock)
    eventually(
        lambda: clock.now() >= 1003, accept=bool, within_s=9, what="x", wake=silent, clock=clock
    )
    assert 1003 <= clock.time < 1003.2
    assert silent.waits == 3


def test_looks_stay_apart_however_often_they_are_woken() -> None:
    clock = FakeClock()
    wake = FakeWake(clock, *[number / 100 for number in range(300)])
    looks: list[float] = []

    def look() -> bool:
        looks.append(clock.now())
        return clock.now() >= 1002

    eventually(
        look, accept=bool, within_s=9, what="x", wake=wake, calm_s=0.5, successes=1, clock=clock
    )
    assert len(looks) == 5
    with pytest.raises(WaitTimeout):
        eventually(
            lambda: False, accept=bool, within_s=0.2, what="x", wake=wake, calm_s=60, clock=clock
        )
    assert clock.time < 1003


def test_a_change_during_the_look_is_not_slept_over() -> None:
    clock = FakeClock()
    wake = FakeWake(clock, 0.05)
    looks = []

    def look() -> bool:
        looks.append(clock.now())
        clock.time += 0.1
        return len(looks) > 1

    eventually(look, accept=bool, within_s=9, what="x", wake=wake, clock=clock)
    assert looks[1] - looks[0] < 0.2


def test_holds_looks_until_after_the_end() -> None:
    clock = FakeClock()
    looks: list[float] = []

    def look() -> str:
        looks.append(clock.now())
        return "fine"

    assert holds(look, accept=lambda s: s == "fine", for_s=3, what="x", clock=clock) == "fine"
    assert looks[0] == 1000
    assert looks[-1] >= 1003
    assert max(b - a for a, b in itertools.pairwise(looks)) <= 0.26


def test_holds_fails_when_it_ends() -> None:
    with pytest.raises(
        WaitTimeout, match="commits blocked did not hold for 3 s: it ended after"
    ) as caught:
        holds(
            states(True, True, False),
            accept=bool,
            for_s=3,
            what="commits blocked",
            clock=FakeClock(),
        )
    assert caught.value.looked


def test_a_short_lapse_is_seen_through_its_wake_up() -> None:
    clock = FakeClock()
    wake = FakeWake(clock, 1.03)
    look = lambda: not 1.025 < clock.now() - 1000 < 1.05  # noqa: E731
    with pytest.raises(WaitTimeout):
        holds(look, accept=bool, for_s=3, what="x", wake=wake, clock=clock)


def test_holds_needs_to_see() -> None:
    with pytest.raises(WaitTimeout, match="could not be seen") as caught:
        holds(
            states(True, ApiProblem("gone")),
            accept=bool,
            for_s=60,
            what="x",
            clock=FakeClock(),
        )
    assert not caught.value.looked
    short = ApiProblem("a moment")
    assert holds(
        states(True, short, short, True), accept=bool, for_s=3, what="x", clock=FakeClock()
    )


def test_a_blind_end_does_not_hold() -> None:
    clock = FakeClock()

    def look() -> bool:
        if clock.now() > 1002.5:
            raise ApiProblem("gone")
        return True

    with pytest.raises(WaitTimeout, match="could not be seen"):
        holds(look, accept=bool, for_s=3, what="x", clock=clock)


def test_messages_are_short_and_without_secrets() -> None:
    secret = Secret("hunter2hunter2")
    state = f"password is {secret} " + "x" * 5000
    with pytest.raises(WaitTimeout) as caught:
        eventually(lambda: state, accept=lambda _: False, within_s=0, what="x", clock=FakeClock())
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_time_has_to_be_one(seconds: float) -> None:
    with pytest.raises(ValueError, match="needs a time"):
        eventually(lambda: 1, accept=bool, within_s=seconds, what="x")
    with pytest.raises(ValueError, match="needs a time"):
        holds(lambda: 1, accept=bool, for_s=seconds, what="x")


def test_timeouts_know_their_provider_and_multiplier() -> None:
    assert Timeouts(stand_in=True)["postgres-ready"] < Timeouts(stand_in=False)["postgres-ready"]
    assert Timeouts(scale=3)["exec"] == 3 * Timeouts()["exec"]
    with pytest.raises(KeyError, match="did you mean 'postgres-ready'"):
        Timeouts()["postgres-redy"]
    for timeout in TIMEOUTS.values():
        assert 0 < timeout.local_s <= timeout.real_s
        assert timeout.what
