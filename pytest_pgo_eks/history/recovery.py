"""When writes went through again after a fault: the interval that a budget is compared with.

A finding of :func:`in_time` says in its numbers what was asked (path, kinds of sessions, the fault's
moment, the budget) and how many operations had been recorded when it was judged. So anybody who has
the raw history can judge the same again, by :func:`again`, and must come to the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_pgo_eks.errors import BrokenHistory
from pytest_pgo_eks.findings import Finding, Number, Outcome
from pytest_pgo_eks.history.history import OK, PACED, SCOUT, SESSIONS, WRITE, History
from pytest_pgo_eks.history.outage import Outage, outages

RULE = "acknowledged-again-in-time"
FAULT_BEGINS = "fault begins"
# New sessions, and those of clients that reconnect when they lose theirs.
ALL = (SCOUT, PACED)
# An outage counts as over when writes have gone on for this long without another one.
CALM_S = 3.0
# A silence counts as an interruption from here on, or from twice the longest one before the fault:
# beside three databases on two busy cores healthy silences reach 0.2 s.
NOISE_S = 0.4
_WHO = {"scout": "new sessions", "paced": "reconnecting clients", "pinned": "a pinned session"}


def calm(history: History, path: str, since: int, sessions: Sequence[int] = ALL) -> bool:
    """Say whether an outage came after ``since``, ended, and writes went on for a while."""
    found = _seen(history, path, since, sessions)
    if not found or not all(outage.over for outage in found):
        return False
    ended = max(outage.ended[1] for outage in found)
    return _last_ack(history, path) - ended >= CALM_S * 1e9


def in_time(
    history: History, path: str, since: int, within_s: float, sessions: Sequence[int] = ALL
) -> Finding:
    """Judge when the last outage behind ``since`` (ns of the probe's clock) ended, as an interval."""
    asked: dict[str, Number] = {
        "budget_s": within_s,
        "path": path,
        "asked_sessions": " ".join(SESSIONS[session] for session in sessions),
        "since_ns": since,
        "judged_operations": len(history.ops),
    }
    found = _seen(history, path, since, sessions)
    if not found:
        if _last_ack(history, path) <= since:
            sentence = f"no write through {path} was acknowledged after the fault"
            return Finding(RULE, "violated", sentence, asked)
        sentence = f"writes through {path} were never interrupted for {NOISE_S:g} s"
        return Finding(RULE, "holds", sentence, {**asked, "lower_s": 0.0, "upper_s": 0.0})
    last = max(found, key=lambda outage: outage.ended[1])
    lower_s = max(0.0, (last.ended[0] - since) / 1e9)
    upper_s = (last.ended[1] - since) / 1e9
    numbers: dict[str, Number] = {
        **asked,
        "lower_s": round(lower_s, 3),
        "upper_s": round(upper_s, 3),
        "outage_lower_s": round(last.lower_s, 3),
        "outage_upper_s": round(last.upper_s, 3),
        "outages": len(found),
        "sessions": _WHO[last.session],
        "over": last.over,
    }
    proof = last.operations(history)
    where = f"writes of {_WHO[last.session]} through {path}"
    span = f"{lower_s:.2f} to {upper_s:.2f} s after the fault"
    outcome: Outcome
    if not last.over:
        told = f"{where} were not acknowledged again in {upper_s:.2f} s"
        outcome = "violated" if upper_s > within_s else "unknown"
    elif upper_s <= within_s:
        told, outcome = f"{where} were acknowledged again {span}", "holds"
    elif lower_s > within_s:
        told = f"{where} were acknowledged again only {span}, allowed were {within_s:g} s"
        outcome = "violated"
    else:
        told = f"{where} were acknowledged again {span}, which cannot decide about {within_s:g} s"
        outcome = "unknown"
    return Finding(RULE, outcome, told, numbers, proof)


def again(history: History, numbers: Mapping[str, object]) -> Finding | None:
    """Judge what a finding of :func:`in_time` says it was asked; None where it does not say.

    :raises BrokenHistory: the history has fewer operations than the finding was judged by, no such
        path or kind of session, or no fault that began when the finding says.
    """
    path, since, within_s = (numbers.get(key) for key in ("path", "since_ns", "budget_s"))
    count, named = numbers.get("judged_operations"), numbers.get("asked_sessions")
    if not (isinstance(path, str) and isinstance(named, str) and _is_number(within_s)):
        return None
    if not (isinstance(since, int) and isinstance(count, int)) or isinstance(count, bool):
        return None
    if not 0 <= count <= len(history.ops):
        raise BrokenHistory(f"{count} operations were judged, {len(history.ops)} are recorded")
    if unknown := [name for name in named.split() if name not in SESSIONS]:
        raise BrokenHistory(f"there is no kind of session {unknown[0]!r}")
    sessions = [SESSIONS.index(name) for name in named.split()]
    as_it_was = replace(history, ops=history.ops[:count])
    # The clock starts with the last fault that had begun by then, and with nothing else.
    until = max(since, int(as_it_was.ops.done.max()) if count else 0)
    begun = [int(mark["at"]) for mark in history.marks(FAULT_BEGINS) if mark["at"] <= until]
    if since != max(begun, default=None):
        raise BrokenHistory(
            f"the last fault began at {max(begun, default=None)}, not at {since} ns"
        )
    return in_time(as_it_was, path, since, float(str(within_s)), sessions)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _seen(history: History, path: str, since: int, sessions: Sequence[int]) -> list[Outage]:
    """Return the outages of a path that touch the time after ``since``, of these kinds of sessions."""
    found: list[Outage] = []
    for session in sessions:
        try:
            every = outages(history, path, session=session, min_s=NOISE_S)
        except BrokenHistory:
            continue  # that kind of session does not run on this path
        before = [outage.upper_s for outage in every if outage.ended[1] < _undisturbed(history)]
        least_s = max(NOISE_S, 2 * max(before, default=0.0))
        found += [one for one in every if one.ended[1] >= since and one.upper_s >= least_s]
    return found


def _undisturbed(history: History) -> int:
    """Return until when nothing had been done to the cluster: silences up to then are noise."""
    return min((int(mark["at"]) for mark in history.marks(FAULT_BEGINS)), default=0)


def _last_ack(history: History, path: str) -> int:
    ops = history.ops
    here = (ops.path == history.path_number(path)) & (ops.kind == WRITE) & (ops.outcome == OK)
    return int(ops.done[here].max()) if here.any() else 0
