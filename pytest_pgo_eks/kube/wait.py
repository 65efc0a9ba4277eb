"""Eventually and holds: the only two ways to wait.

Both look, decide and look again: woken by a watch where there is one, by polling as the fallback.
They are the only code that may pause for the sake of order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from pytest_pgo_eks.errors import ApiProblem, ExecProblem, WaitTimeout
from pytest_pgo_eks.secrets import filtered

T = TypeVar("T")

POLL_S = 0.25
# With a watch the poll is only there for a watch that died without a word.
POLL_WITH_WAKE_S = 1.0
SETTLE_S = 0.05
MAX_BLIND_S = 5.0
_SHOWN = 2000


class Clock(Protocol):
    """Time as the waits see it; tests bring their own."""

    def now(self) -> float:
        """Return monotonic seconds."""
        ...

    def pause(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        ...


class Wakeup(Protocol):
    """Something that counts changes and lets a wait sleep until the next one."""

    def sequence(self) -> int:
        """Return how many changes there were so far."""
        ...

    def wait(self, after: int, timeout_s: float) -> int:
        """Return the count as soon as it exceeds ``after``, or unchanged after ``timeout_s``."""
        ...


class SystemClock:
    """Real time."""

    def __init__(self) -> None:
        self._never = threading.Event()

    def now(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        self._never.wait(seconds)


SYSTEM_CLOCK: Clock = SystemClock()


class _Polling:
    """The Wakeup of a wait that has no watch: nothing ever wakes it early."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def sequence(self) -> int:
        return 0

    def wait(self, after: int, timeout_s: float) -> int:
        self._clock.pause(timeout_s)
        return after


class _Look:
    """What the looks of one wait saw so far."""

    def __init__(self, show: Callable[[object], str]) -> None:
        self._show = show
        self.last_seen = ""
        self.worked = 0
        self.trouble: Exception | None = None
        self.count = 0

    def at(self, look: Callable[[], T]) -> tuple[bool, T | None]:
        """Look once; return whether that worked, and what was seen.

        Only trouble of the API and of exec is outlived. Everything else, a hopeless state that
        the look itself found included, ends the wait.
        """
        self.count += 1
        try:
            value = look()
        except (ApiProblem, ExecProblem) as trouble:
            self.trouble = trouble
            return False, None
        self.trouble = None
        self.worked += 1
        self.last_seen = _cut(self._show(value))
        return True, value

    def story(self) -> str:
        shown = self.last_seen or "(empty)"
        seen = f"last seen: {shown}" if self.worked else "nothing was ever seen"
        if self.trouble is not None:
            return f"the last look failed: {filtered(str(self.trouble))}; {seen}"
        return seen


def eventually(
    look: Callable[[], T],
    *,
    accept: Callable[[T], bool],
    within_s: float,
    what: str,
    fail: Callable[[T], str | None] | None = None,
    successes: int = 3,
    wake: Wakeup | None = None,
    poll_s: float | None = None,
    settle_s: float = SETTLE_S,
    calm_s: float = 0.0,
    show: Callable[[T], str] = repr,
    clock: Clock = SYSTEM_CLOCK,
) -> T:
    """Look until ``accept`` is true ``successes`` times in a row; return what was seen last.

    The first of these looks has to *end* within ``within_s``; the others only confirm it,
    ``settle_s`` apart. However often it is woken, looks stay ``calm_s`` apart. ``fail`` may say why waiting longer is hopeless. ``what`` completes the
    sentence "waited for …". ``show`` prints a state for the message.

    :raises WaitTimeout: not within ``within_s``, or ``fail`` gave a reason; ``looked`` says
        whether the last look worked, ``last_seen`` what the last one that worked saw.
    """
    _check(within_s, what)
    wake = wake or _Polling(clock)
    pause_s = poll_s or (POLL_S if isinstance(wake, _Polling) else POLL_WITH_WAKE_S)
    seen: _Look = _Look(show)  # type: ignore[arg-type]
    began = clock.now()
    ends = began + within_s
    streak = 0
    while True:
        # Before the look: a change during it must wake the wait after it.
        change = wake.sequence()
        look_began = clock.now()
        looked, value = seen.at(look)
        now = clock.now()
        if looked and accept(value):  # type: ignore[arg-type]
            if streak == 0 and now > ends:
                raise _late(seen, what, within_s, now - began, in_time=look_began <= ends)
            streak += 1
            if streak >= successes:
                return value  # type: ignore[return-value]
            clock.pause(settle_s)
            continue
        streak = 0
        if looked and fail is not None and (reason := fail(value)) is not None:  # type: ignore[arg-type]
            raise WaitTimeout(
                f"waited for {what}; gave up after {now - began:.1f} s: {filtered(reason)}; "
                f"{seen.story()}",
                last_seen=seen.last_seen,
            )
        if now >= ends:
            raise WaitTimeout(
                f"waited {within_s:g} s for {what} ({seen.count} looks); {seen.story()}",
                last_seen=seen.last_seen,
                looked=looked,
            )
        wake.wait(change, min(pause_s, ends - now))
        early_s = now + calm_s - clock.now()
        if early_s > 0:
            clock.pause(min(early_s, max(ends - clock.now(), 0.0)))


def holds(
    look: Callable[[], T],
    *,
    accept: Callable[[T], bool],
    for_s: float,
    what: str,
    wake: Wakeup | None = None,
    poll_s: float = POLL_S,
    show: Callable[[T], str] = repr,
    max_blind_s: float = MAX_BLIND_S,
    clock: Clock = SYSTEM_CLOCK,
) -> T:
    """Look for ``for_s`` seconds and see ``accept`` true every time; return what was seen last.

    Looks every ``poll_s`` and at every wake-up, at the start and at the end. A time longer than
    ``max_blind_s`` in which no look worked proves nothing about ``what``.

    :raises WaitTimeout: it did not hold (``looked`` is True), or could not be seen (False).
    """
    _check(for_s, what)
    wake = wake or _Polling(clock)
    seen: _Look = _Look(show)  # type: ignore[arg-type]
    began = last_good = clock.now()
    ends = began + for_s
    last: T | None = None
    while True:
        change = wake.sequence()
        look_began = clock.now()
        looked, value = seen.at(look)
        now = clock.now()
        if looked:
            if not accept(value):  # type: ignore[arg-type]
                raise WaitTimeout(
                    f"{what} did not hold for {for_s:g} s: it ended after {now - began:.1f} s; "
                    f"{seen.story()}",
                    last_seen=seen.last_seen,
                )
            last = value
        blind_s = now - last_good
        if blind_s > max_blind_s + poll_s:
            raise WaitTimeout(
                f"whether {what} held for {for_s:g} s could not be seen: no look worked for "
                f"{blind_s:.1f} s; {seen.story()}",
                last_seen=seen.last_seen,
                looked=False,
            )
        if looked:
            last_good = now
            # The last look has to begin at the end or later, or the end was not seen.
            if look_began >= ends:
                return last  # type: ignore[return-value]
        wake.wait(change, min(poll_s, max(ends - now, 0.0)) or (0.0 if looked else poll_s))


def _late(seen: _Look, what: str, within_s: float, took_s: float, *, in_time: bool) -> WaitTimeout:
    if in_time:
        return WaitTimeout(
            f"waited {within_s:g} s for {what}: it is so after {took_s:.1f} s, but the look that "
            f"saw it began in time and ended too late to tell when it became so; {seen.story()}",
            last_seen=seen.last_seen,
            looked=False,
        )
    return WaitTimeout(
        f"waited {within_s:g} s for {what}: it became so only after that, {took_s:.1f} s; "
        f"{seen.story()}",
        last_seen=seen.last_seen,
    )


def _check(seconds: float, what: str) -> None:
    if not seconds >= 0:
        raise ValueError(f"a wait for {what} needs a time, not {seconds!r}")


def _cut(text: str) -> str:
    text = filtered(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … ({len(text)} characters)"
