"""Since when a series is otherwise, and how sure that is.

Method: Pettitt's test for one change of level at an unknown time, on ranks, so that neither the shape
of the distribution nor single outliers matter (A. N. Pettitt, "A non-parametric approach to the
change-point problem", Applied Statistics 28 (1979) 126–135). Its p-value is taken by permutation,
counted so that it is never zero (B. Phipson and G. K. Smyth, "Permutation p-values should never be
zero", Statistical Applications in Genetics and Molecular Biology 9 (2010) 39), and corrected for
having looked at every series (Holm). Where a change was found, the runs behind it are looked at
again, so that the newest one is told.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from pytest_pgo_eks.report.ranks import Floats, holm, midranks
from pytest_pgo_eks.report.trend.series import SUBJECT, Point, Series

LEAST = 8
"""Fewer points than this cannot show a change: the best p-value of seven is 2/35."""
CONFIDENCE = 0.95
_MOST_PERMUTATIONS = 200_000
_AT_ONCE = 5_000
# By Pettitt's own approximation; what is far from it is not looked at closer.
_WORTH_A_LOOK = 0.2


@dataclass(frozen=True)
class Change:
    """The level changed between points ``at - 1`` and ``at``; ``confidence`` is 1 − p, corrected."""

    at: int
    before: float
    after: float
    confidence: float
    since: str
    together_with: tuple[str, ...]
    """What of the subject changed at the same time: ``pgo 6.0 → 6.1``."""

    @property
    def worse(self) -> bool:
        return self.after > self.before


def changes(series: Sequence[Series], confidence: float = CONFIDENCE) -> dict[str, Change]:
    """Return the newest change of every series that has one, by the series' key."""
    able = [one for one in series if len(one.points) >= LEAST]
    if not able:
        return {}
    permutations = min(_MOST_PERMUTATIONS, max(4_999, math.ceil(2 * len(able) / (1 - confidence))))
    tests = [_test(one, 0, permutations) for one in able]
    found = {}
    for one, (first, _), chance in zip(able, tests, holm([p for _, p in tests]), strict=True):
        if 1 - chance >= confidence:
            begin, at = _newest(one, first, lambda p: 1 - p * len(able) >= confidence, permutations)
            found[one.key] = _change(one.points, begin, at, 1 - chance)
    return found


def _newest(
    series: Series, first: int, certain: Callable[[float], bool], permutations: int
) -> tuple[int, int]:
    """Return the newest change behind ``first``, and where the level before it began."""
    begin, at = 0, first
    # At most as often as there is room for another change.
    while len(series.points) - at >= LEAST:
        newer, chance = _test(series, at, permutations)
        if not certain(chance):
            break
        begin, at = at, newer
    # And back: the level before it may have been of a part only.
    while at - begin >= LEAST:
        earlier, chance = _test(series, begin, permutations, at)
        if not certain(chance):
            break
        begin = earlier
    return begin, at


def _test(
    series: Series, begin: int, permutations: int, end: int | None = None
) -> tuple[int, float]:
    """Return where the points from ``begin`` on change most, and the p-value of "they do not"."""
    values = [point.middle for point in series.points[begin:end]]
    ranks = midranks(values)
    count = len(ranks)
    differences = _differences(ranks[np.newaxis, :])[0]
    place = int(np.argmax(differences))
    most = float(differences[place])
    if 2 * math.exp(-6 * most**2 / (count**3 + count**2)) > _WORTH_A_LOOK:
        return begin + place + 1, 1.0
    # Seeded by the series, so that the same runs give the same answer.
    chance = np.random.default_rng(zlib.crc32(series.key.encode()))
    reached = 0
    for first in range(0, permutations, _AT_ONCE):
        rows = min(_AT_ONCE, permutations - first)
        shuffled = chance.permuted(np.tile(ranks, (rows, 1)), axis=1)
        reached += int((_differences(shuffled).max(axis=1) >= most - 1e-9).sum())
    return begin + place + 1, (reached + 1) / (permutations + 1)


def _differences(ranks: Floats) -> Floats:
    """Return |U| for every place between two points, row by row (Pettitt's statistic)."""
    count = ranks.shape[1]
    places = np.arange(1, count)
    found: Floats = np.abs(2 * np.cumsum(ranks, axis=1)[:, :-1] - places * (count + 1))
    return found


def _change(points: Sequence[Point], begin: int, at: int, confidence: float) -> Change:
    old, new = points[at - 1], points[at]
    moved = tuple(
        f"{name} {was or 'unknown'} → {now or 'unknown'}"
        for name, was, now in zip(SUBJECT, old.subject, new.subject, strict=True)
        if was != now
    )
    return Change(
        at,
        median(point.middle for point in points[begin:at]),
        median(point.middle for point in points[at:]),
        confidence,
        new.run or new.began,
        moved,
    )
