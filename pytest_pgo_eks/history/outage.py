"""Outages as intervals, with the operations that bound them.

What an attempt proves, with one clock and nothing assumed about the server:

* one that was acknowledged: the path worked at *some moment* between its begin and its end;
* one that failed, or took longer than any healthy one: it did not work at some moment between its
  begin and (begin + the longest healthy latency), or its end if that was earlier.

So an outage between two acknowledgements cannot have begun before the last begin of what was
acknowledged before it, nor ended after the first acknowledgement behind it: the *upper* bound.
And it lasted at least from the earliest moment by which it must have begun to the last begin of an
attempt that failed: the *lower* bound. A black hole and a refusal differ in nothing here, because
attempts begin on a clock whether or not earlier ones came back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pytest_pgo_eks.errors import BrokenHistory
from pytest_pgo_eks.findings import Finding, Number
from pytest_pgo_eks.history.history import (
    CONNECT,
    OK,
    PACED,
    PINNED,
    READ,
    SCOUT,
    SESSIONS,
    WRITE,
    Column,
    History,
    Mask,
)

MIN_S = 0.1
"""Silence shorter than this is noise: healthy gaps stay under 10 ms on an idle machine, and under
60 ms beside three databases on two busy cores."""
_HEALTHY_FLOOR_NS = 5_000_000
_HEALTHY_CEILING_NS = 250_000_000
_NEAR_NS = 3_000_000_000


@dataclass(frozen=True)
class Outage:
    """No acknowledgement on one path for one kind of session.

    ``began`` and ``ended`` are [earliest, latest] moments in nanoseconds of the probe's clock;
    ``lower_s`` ≤ truth ≤ ``upper_s``. The indexes point into ``history.ops``: ``last_ack`` (None: none before),
    ``first_failure``, ``last_failure`` (None: attempts hung and then succeeded), ``first_ack``
    (None: none ever came, ``upper_s`` is then the time until the run ended).
    """

    path: str
    session: str
    reads: bool
    began: tuple[int, int]
    ended: tuple[int, int]
    last_ack: int | None
    first_failure: int | None
    last_failure: int | None
    first_ack: int | None
    failures: int
    estimate: tuple[int, int] = (0, 0)
    """The likeliest begin and end, which assume that attempts take their usual time."""

    @property
    def lower_s(self) -> float:
        return max(0, self.ended[0] - self.began[1]) / 1e9

    @property
    def upper_s(self) -> float:
        return (self.ended[1] - self.began[0]) / 1e9

    @property
    def estimate_s(self) -> float:
        """The best single number, inside the interval: what to plot and to compare runs by."""
        likely = (self.estimate[1] - self.estimate[0]) / 1e9
        return min(max(likely, self.lower_s), self.upper_s)

    @property
    def over(self) -> bool:
        return self.first_ack is not None

    def operations(self, history: History) -> tuple[str, ...]:
        """Return the bounding operations, printable, in time order."""
        named = (
            ("last acknowledged", self.last_ack),
            ("first failed", self.first_failure),
            ("last failed", self.last_failure),
            ("first acknowledged", self.first_ack),
        )
        return tuple(f"{what}: {history.describe(i)}" for what, i in named if i is not None)


def outages(
    history: History,
    path: str,
    *,
    session: int = SCOUT,
    reads: bool = False,
    min_s: float = MIN_S,
    client: int | None = None,
) -> list[Outage]:
    """Return the outages of ``path``, in time order.

    ``session`` SCOUT sees what a new session meets, PACED what a client with a session and a
    reconnect meets, PINNED what a session from before the fault meets (one client at a time:
    ``client``). ``min_s``: shorter silences are ignored; so is a silence in which nothing failed
    and nothing was held up: on a busy machine the clients themselves may have been late.

    :raises BrokenHistory: nobody of that kind ran on the path.
    """
    ops = history.ops
    number = history.path_number(path)
    mask: Mask = (ops.path == number) & (ops.session == session)
    # A reconnect that fails is a failed attempt of that client; one that works acknowledges nothing.
    mask &= (ops.kind == (READ if reads else WRITE)) | ((ops.kind == CONNECT) & (ops.outcome != OK))
    if client is not None:
        mask &= ops.client == client
    index = np.flatnonzero(mask)
    if not len(index):
        raise BrokenHistory(f"no {SESSIONS[session]} session ran on path {path!r}")
    seen = _Attempts(
        path=path,
        session=session,
        reads=reads,
        index=index,
        invoke=ops.invoke[index],
        done=ops.done[index],
        acknowledged=(ops.outcome[index] == OK) & (ops.kind[index] != CONNECT),
        run_end=int(ops.done.max()),
        gone_at=_gone_at(history, client) if session == PINNED else None,
    )
    gaps = _gaps(seen, int(min_s * 1e9))
    calm = _calm(seen, gaps)
    found = [_bounded(seen, gap, calm) for gap in gaps]
    return [one for one in found if one.lower_s > 0 or one.failures or not one.over]


@dataclass(frozen=True)
class _Attempts:
    """What one kind of session did on one path, as columns; ``index`` points into ``history.ops``."""

    path: str
    session: int
    reads: bool
    index: Column
    invoke: Column
    done: Column
    acknowledged: Mask
    run_end: int
    """A session that fell silent is silent until here: a pinned one leaves no further record."""
    gone_at: int | None
    """When a pinned session learned that it is lost; it is never opened again, so it stays so."""


def _gone_at(history: History, client: int | None) -> int | None:
    ended = [
        int(event["at"])
        for event in history.events
        if event["kind"] == "pinned-ended" and client in (None, event["client"])
    ]
    return min(ended, default=None)


def _gaps(seen: _Attempts, min_ns: int) -> list[tuple[int | None, int | None]]:
    """Return (last ack, first ack) around every silence, as positions in the given columns."""
    invoke, done, acknowledged = seen.invoke, seen.done, seen.acknowledged
    acks = np.flatnonzero(acknowledged)
    if not len(acks):
        return [(None, None)]
    acks = acks[np.argsort(done[acks], kind="stable")]
    silence = np.diff(done[acks])
    found: list[tuple[int | None, int | None]] = [
        (int(acks[i]), int(acks[i + 1])) for i in np.flatnonzero(silence >= min_ns)
    ]
    if done[acks[0]] - invoke.min() >= min_ns and np.any(~acknowledged & (done <= done[acks[0]])):
        found.insert(0, (None, int(acks[0])))
    if seen.run_end - done[acks[-1]] >= min_ns:
        found.append((int(acks[-1]), None))
    return found


def _bounded(seen: _Attempts, gap: tuple[int | None, int | None], calm: Mask) -> Outage:
    index, invoke, done, acknowledged = seen.index, seen.invoke, seen.done, seen.acknowledged
    last, first = gap
    earliest = int(invoke.min())
    if last is not None:
        before = acknowledged & (done <= done[last])
        earliest = int(invoke[before].max())
    latest = seen.run_end if first is None else int(done[first])
    usual, healthy = _latencies(seen, calm, earliest, latest)
    inside = (invoke >= earliest) & (invoke < latest)
    # An attempt that was acknowledged late proves the same as one that failed: it was held up. It
    # has to be late beyond doubt, for nothing but its lateness speaks against the path.
    held = acknowledged & (done - invoke > 2 * healthy) & (done >= latest)
    witnesses = np.flatnonzero(inside & (~acknowledged | held))
    failures = np.flatnonzero(inside & ~acknowledged)
    if len(witnesses):
        begun_by = int(np.minimum(done[witnesses], invoke[witnesses] + healthy).min())
        lasted_to = int(_felt_until(seen, witnesses, held, healthy).max())
    else:
        begun_by, lasted_to = latest, earliest  # nothing but silence: it proves no length
    if seen.gone_at is not None and first is None:
        begun_by, lasted_to = min(begun_by, seen.gone_at), latest
    ordered = failures[np.argsort(invoke[failures], kind="stable")]
    # Begin: after the last acknowledgement, before the first attempt that was under way too long.
    begin_to = latest
    if len(witnesses):
        begin_to = int(np.minimum(done[witnesses], invoke[witnesses] + usual).min())
    begin_from = earliest if last is None else min(int(done[last]), begin_to)
    # End: after the last attempt that failed began, before the first that was acknowledged did; if
    # that one was held up through the outage, just before its answer.
    end_from, end_to = max(lasted_to, begin_to), latest
    if first is not None:
        end_to = max(int(invoke[first]), int(done[first]) - usual)
        late = done[first] - invoke[first] > healthy
        end_from = end_to if late else min(end_from, end_to)
    return Outage(
        path=seen.path,
        session=SESSIONS[seen.session],
        reads=seen.reads,
        began=(earliest, min(begun_by, latest)),
        ended=(min(max(lasted_to, earliest), latest), latest),
        last_ack=None if last is None else int(index[last]),
        first_failure=int(index[ordered[0]]) if len(ordered) else None,
        last_failure=int(index[ordered[-1]]) if len(ordered) else None,
        first_ack=None if first is None else int(index[first]),
        failures=len(ordered),
        estimate=((begin_from + begin_to) // 2, (end_from + end_to) // 2),
    )


def _felt_until(seen: _Attempts, witnesses: Column, held: Mask, healthy: int) -> Column:
    """Return until when each witness proves that its kind of session was out.

    A new session only proves it for the moment it began: what became of it later may be its own
    bad luck (a lost SYN is sent again after a second). A session that is kept *is* the subject:
    until it is answered, less the time that an answer takes, it was out.
    """
    until = seen.invoke[witnesses].copy()
    if seen.session == SCOUT:
        return until
    answered = held[witnesses]
    if seen.session == PINNED:
        answered |= seen.done[witnesses] - seen.invoke[witnesses] > 2 * healthy
    until[answered] = (seen.done[witnesses] - healthy)[answered]
    return until


def _calm(seen: _Attempts, gaps: list[tuple[int | None, int | None]]) -> Mask:
    """Return the acknowledgements that no silence held up: those that tell of healthy latency."""
    calm = seen.acknowledged.copy()
    for last, first in gaps:
        begin = 0 if last is None else int(seen.done[last])
        end = seen.run_end if first is None else int(seen.done[first])
        calm &= (seen.done <= begin) | (seen.invoke >= end)
    return calm


def _latencies(seen: _Attempts, calm: Mask, earliest: int, latest: int) -> tuple[int, int]:
    """Return the usual and the longest healthy latency within three seconds of an outage.

    The longest one decides what an attempt proves, so a slow machine widens the interval instead
    of shifting it.
    """
    near = calm & (seen.invoke > earliest - _NEAR_NS) & (seen.done < latest + _NEAR_NS)
    latency = (seen.done - seen.invoke)[near]
    if not len(latency):
        return _HEALTHY_FLOOR_NS, _HEALTHY_CEILING_NS
    longest = int(min(max(int(latency.max()), _HEALTHY_FLOOR_NS), _HEALTHY_CEILING_NS))
    return int(np.median(latency)), longest


def every_outage(history: History, *, min_s: float = MIN_S) -> list[Outage]:
    """Return the outages of every path and kind of session that ran, pinned clients one by one."""
    found: list[Outage] = []
    ops = history.ops
    for number, path in sorted(history.paths.items()):
        reads = number in history.reading_paths
        for session in (SCOUT, PACED, PINNED):
            here = (ops.path == number) & (ops.session == session)
            if not here.any():
                continue
            clients: Iterable[int | None] = (
                map(int, np.unique(ops.client[here])) if session == PINNED else (None,)
            )
            for client in clients:
                found += outages(
                    history, path, session=session, reads=reads, min_s=min_s, client=client
                )
    return found


def within(history: History, found: Iterable[Outage], budget_s: float, path: str) -> Finding:
    """Judge that no outage of ``path`` in ``found`` may have lasted longer than ``budget_s``.

    Violated only if a *lower* bound is above the budget; an interval with the budget inside is
    told as unknown, because the measurement cannot decide it.
    """
    longest = max(found, key=lambda o: o.upper_s, default=None)
    rule = "acknowledged-again-in-time"
    if longest is None:
        return Finding(
            rule,
            "holds",
            f"writes through {path} were never interrupted for {MIN_S * 1000:.0f} ms",
            {"budget_s": budget_s, "upper_s": 0.0},
        )
    numbers: dict[str, Number] = {
        "lower_s": round(longest.lower_s, 4),
        "upper_s": round(longest.upper_s, 4),
        "budget_s": budget_s,
        "failures": longest.failures,
    }
    what = "reads" if longest.reads else "writes"
    span = f"{longest.lower_s:.2f} to {longest.upper_s:.2f} s"
    operations = longest.operations(history)
    who = {"scout": "new sessions", "paced": "reconnecting clients", "pinned": "a pinned session"}
    where = f"{what} of {who[longest.session]} through {path}"
    if not longest.over:
        outcome = "violated" if longest.upper_s > budget_s else "unknown"
        sentence = (
            f"{where} were not acknowledged again: {longest.upper_s:.2f} s until the run ended"
        )
    elif longest.upper_s <= budget_s:
        outcome, sentence = "holds", f"{where} were out for {span} at most"
    elif longest.lower_s > budget_s:
        outcome, sentence = "violated", f"{where} were out for {span}, allowed were {budget_s:g} s"
    else:
        outcome = "unknown"
        sentence = f"{where} were out for {span}, which does not decide about {budget_s:g} s"
    return Finding(rule, outcome, sentence, numbers, operations)  # type: ignore[arg-type]
