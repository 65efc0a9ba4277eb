"""Comparing distributions without assuming their shape: few runs, skewed times, ties.

Sources: H. B. Mann and D. R. Whitney, "On a test of whether one of two random variables is
stochastically larger than the other", Annals of Mathematical Statistics 18 (1947) 50–60, with
midranks for ties and the exact permutation distribution of the rank sum (E. L. Lehmann,
*Nonparametrics*, 1975, ch. 1); S. Holm, "A simple sequentially rejective multiple test procedure",
Scandinavian Journal of Statistics 6 (1979) 65–70; E. B. Wilson, "Probable inference, the law of
succession, and statistical inference", Journal of the American Statistical Association 22 (1927)
209–212.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

# Up to here the exact distribution is computed; a run of numbers this long takes milliseconds.
_EXACT = 200

Floats = npt.NDArray[np.float64]


def midranks(values: Sequence[float]) -> Floats:
    """Return the rank of every value, from 1; equal values share the mean of theirs."""
    _, where, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[where]
    return ranks


def chance_of_larger(sample: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the one-sided p-value of "``sample`` is no larger than ``baseline``" (Mann–Whitney).

    Small where ``sample`` is larger. Exact up to 200 values in all, else the normal approximation
    with correction for ties and continuity. 1.0 where one of the two is empty.
    """
    few, many = len(sample), len(baseline)
    if not few or not many:
        return 1.0
    ranks = midranks([*sample, *baseline])
    total = few + many
    observed = float(ranks[:few].sum())
    if total > _EXACT:
        mean = few * (total + 1) / 2
        _, ties = np.unique(ranks, return_counts=True)
        tied = float((ties**3 - ties).sum()) / (total * (total - 1))
        variance = few * many / 12 * (total + 1 - tied)
        return (
            1.0 if variance <= 0 else 1 - NormalDist().cdf((observed - 0.5 - mean) / variance**0.5)
        )
    # Twice the midranks are whole numbers: ways[k][s] ways to choose k of them with sum s.
    doubled = np.rint(2 * ranks).astype(int)
    most = int(np.sort(doubled)[-few:].sum())
    ways = np.zeros((few + 1, most + 1))
    ways[0, 0] = 1.0
    for rank in doubled:
        # Backwards, so that no rank is chosen twice.
        for chosen in range(few, 0, -1):
            ways[chosen, rank:] += ways[chosen - 1, : most + 1 - rank]
    reached = ways[few, round(2 * observed) :].sum()
    return float(reached / ways[few].sum())


def least_chance(few: int, many: int) -> float:
    """Return the smallest p-value that samples of these sizes can give at all."""
    return 1.0 if not few or not many else 1 / math.comb(few + many, few)


def holm(chances: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for having looked at all of them (Holm)."""
    order = sorted(range(len(chances)), key=chances.__getitem__)
    adjusted, worst = [0.0] * len(chances), 0.0
    for place, index in enumerate(order):
        worst = max(worst, min(1.0, chances[index] * (len(chances) - place)))
        adjusted[index] = worst
    return adjusted


def wilson(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a rate seen as ``hits`` of ``of`` (Wilson); (0, 1) where none was tried."""
    if not of:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, squared = hits / of, z * z / of
    middle = (rate + squared / 2) / (1 + squared)
    half = z / (1 + squared) * math.sqrt(rate * (1 - rate) / of + squared / of / 4)
    # At the ends rounding would leave 1e-17.
    return (0.0 if hits == 0 else middle - half, 1.0 if hits == of else middle + half)
