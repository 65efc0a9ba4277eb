"""Judges the raw histories of a run again, and says where its verdict does not follow from them.

What was asked of a scenario stands in the evidence itself: the replication mode and the session's
level in the history's header, the budget of a recovery in the finding's numbers
(:mod:`pytest_pgo_eks.history.recovery`). What looked at the cluster instead of the clients (roles,
Services, settings) left no raw data and is taken as told.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import BrokenHistory
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.history import recovery
from pytest_pgo_eks.history.history import History
from pytest_pgo_eks.history.judge import judge, measure
from pytest_pgo_eks.history.matrix import ALWAYS, LEVELS, MODES, Level, Mode, promise

HISTORY = ".jsonl.gz"
# A history of an hour is about 40 MiB packed and 60 MiB as text.
_MOST_BYTES = 1 << 30
_MOST_RATIO = 100
_FREE_BYTES = 64 << 20
_CHUNK = 1 << 20

# What reading or judging a history may stumble over that somebody made up.
_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
# Rules that only a history can decide.
_FROM_HISTORY = frozenset(
    {*ALWAYS, *promise("strict", "on").must, "no-unreplicated-acknowledgement"}
)


@dataclass
class Rejudged:
    """What judging one scenario again came to.

    ``wrong`` says why the verdict does not follow, ``notes`` what is worth knowing beside it.
    """

    histories: int = 0
    findings: int = 0
    taken: int = 0
    """Findings that no history can decide: they looked at the cluster, or at a moment of the run."""
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def rejudge(scenario: Mapping[str, Any], folder: Path, *, same_version: bool) -> Rejudged:
    """Judge the histories of one scenario of ``folder`` and compare.

    ``same_version``: the suite that judged was this one; only then must every figure be the same.
    """
    result = Rejudged()
    judged: list[Finding] = []
    histories: list[History] = []
    for name in scenario["attachments"]:
        if not str(name).endswith(HISTORY):
            continue
        try:
            history = _load(folder / name)
            mode, level = _asked(history)
            mine = _judged(history, mode, level)
        except BrokenHistory as error:
            # A probe that died leaves half a history: its scenario may say anything but "pass".
            told = result.wrong if scenario["verdict"] == "pass" else result.notes
            told.append(str(error).replace(f"{folder}/", ""))
            continue
        if (declared := scenario.get("replication")) not in (None, mode):
            result.wrong.append(f"it says replication {declared}, its history was judged as {mode}")
        result.histories += 1
        histories.append(history)
        judged += mine
    _compare(scenario, judged, histories, result, same_version=same_version)
    return result


def _load(path: Path) -> History:
    if not path.is_file():
        raise BrokenHistory(f"{path} is missing")
    packed, seen = path.stat().st_size, 0
    most = min(_MOST_BYTES, max(_FREE_BYTES, packed * _MOST_RATIO))
    try:
        with gzip.open(path, "rb") as stream:
            while part := stream.read(_CHUNK):
                seen += len(part)
                if seen > most:
                    raise BrokenHistory(f"{path}: {packed} bytes unpack to more than {most}")
    except (OSError, EOFError, zlib.error) as error:
        raise BrokenHistory(f"{path}: cannot be read: {error}") from error
    try:
        return History.load(path)
    except _NONSENSE as error:
        raise BrokenHistory(f"{path}: damaged: {type(error).__name__} {error}") from error


def _judged(history: History, mode: Mode, level: Level) -> list[Finding]:
    try:
        return [*judge(history, mode, level), *measure(history)]
    except _NONSENSE as error:
        raise BrokenHistory(f"{history.source}: damaged: {type(error).__name__} {error}") from error


def _asked(history: History) -> tuple[Mode, Level]:
    mode, level = history.settings.get("mode"), history.settings.get("level", "on")
    if mode not in MODES or level not in LEVELS:
        raise BrokenHistory(f"{history.source}: does not say under which mode and level it was run")
    return mode, level


def _compare(
    scenario: Mapping[str, Any],
    judged: Sequence[Finding],
    histories: Sequence[History],
    result: Rejudged,
    *,
    same_version: bool,
) -> None:
    by_rule: dict[str, list[Finding]] = {}
    for finding in judged:
        by_rule.setdefault(finding.rule, []).append(finding)
    last = {finding["rule"]: finding for finding in scenario["findings"]}
    for told in scenario["findings"]:
        rule = told["rule"]
        mine = by_rule.get(rule, [])
        if rule == recovery.RULE:
            mine = list(_recovered(told, histories, result))
        elif rule not in _FROM_HISTORY and told is not last[rule]:
            result.taken += 1
            continue  # measured under way, and again at the end
        if not mine:
            if rule in _FROM_HISTORY:
                result.wrong.append(f"[{rule}] is told, and no history shows it")
            result.taken += 1
            continue
        result.findings += 1
        _same(told, mine, result, same_version=same_version)
    if scenario["verdict"] == "pass":
        for finding in judged:
            if finding.outcome == "violated" and finding.rule not in last:
                result.wrong.append(f"its history breaks [{finding.rule}]: {finding.sentence}")


def _recovered(
    told: Mapping[str, Any], histories: Sequence[History], result: Rejudged
) -> Iterator[Finding]:
    for history in histories:
        try:
            if finding := recovery.again(history, told["numbers"]):
                yield finding
        except BrokenHistory as error:
            result.wrong.append(f"[{recovery.RULE}] cannot be judged again: {error}")
    if not histories and "judged_operations" in told["numbers"]:
        result.wrong.append(f"[{recovery.RULE}] is told, and no history shows it")


def _same(
    told: Mapping[str, Any], mine: Sequence[Finding], result: Rejudged, *, same_version: bool
) -> None:
    rule = told["rule"]
    alike = [one for one in mine if one.outcome == told["outcome"]]
    if not alike:
        result.wrong.append(
            f"[{rule}] is told as {told['outcome']!r}, its history says {mine[0].outcome!r}: "
            f"{mine[0].sentence}"
        )
    elif not any(_equal(told["numbers"], dict(one.numbers)) for one in alike):
        mine_numbers = dict(alike[0].numbers)
        names = [n for n in {**mine_numbers, **told["numbers"]} if _differ(told, mine_numbers, n)]
        figures = ", ".join(
            f"{n} is told as {told['numbers'].get(n)}, its history says {mine_numbers.get(n)}"
            for n in names[:3]
        )
        (result.wrong if same_version else result.notes).append(f"[{rule}] {figures}")


def _differ(told: Mapping[str, Any], mine: Mapping[str, Any], name: str) -> bool:
    numbers = told["numbers"]
    return name not in numbers or name not in mine or not _near(numbers[name], mine[name])


def _equal(told: Mapping[str, Any], mine: Mapping[str, Any]) -> bool:
    return told.keys() == mine.keys() and all(_near(told[name], mine[name]) for name in mine)


def _near(one: object, other: object) -> bool:
    """Compare figures; another machine's arithmetic may differ in the last digit."""
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)
    return one == other and isinstance(one, bool) == isinstance(other, bool)
