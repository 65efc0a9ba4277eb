"""The arithmetic of comparing runs, against enumeration and against published tables."""

from __future__ import annotations

import itertools
import random

import pytest

from pytest_pgo_eks.report.ranks import chance_of_larger, holm, least_chance, midranks, wilson


def enumerated(sample: list[float], baseline: list[float]) -> float:
    """Count every way to choose as many values, by definition."""
    ranks = midranks([*sample, *baseline])
    observed = float(ranks[: len(sample)].sum())
    ways = [float(sum(chosen)) for chosen in itertools.combinations(ranks, len(sample))]
    return sum(way >= observed - 1e-9 for way in ways) / len(ways)


@pytest.mark.parametrize("seed", range(30))
def test_the_exact_distribution_is_that_of_all_choices(seed: int) -> None:
    chance = random.Random(seed)
    few, many = chance.randint(1, 4), chance.randint(1, 7)
    # Few different values, so that there are ties.
    values = [float(chance.randint(0, 5)) for _ in range(few + many)]
    sample, baseline = values[:few], values[few:]
    assert chance_of_larger(sample, baseline) == pytest.approx(enumerated(sample, baseline))


def test_what_the_smallest_samples_can_show_at_best() -> None:
    assert chance_of_larger([9], list(range(9))) == pytest.approx(1 / 10) == least_chance(1, 9)
    assert least_chance(3, 20) == pytest.approx(1 / 1771)
    assert chance_of_larger([30, 31, 32], list(range(20))) == pytest.approx(1 / 1771)
    assert chance_of_larger([], [1]) == chance_of_larger([1], []) == least_chance(0, 5) == 1.0


def test_the_critical_value_of_the_published_table() -> None:
    """n1 = n2 = 10, one-sided 0.05: U may be 27 at most, and 28 is too many."""

    def with_u(wrong: int) -> float:
        """Return the p-value where ``wrong`` of the 100 pairs are the wrong way around."""
        baseline = [float(i) for i in range(10)]
        larger = [20.0 + i for i in range(10)]
        for i in range(10):
            below = min(wrong, 10)
            wrong -= below
            if below:
                larger[i] = 9.5 - below + i / 100
        return chance_of_larger(larger, baseline)

    assert with_u(27) <= 0.05 < with_u(28)


def test_many_values_come_near_to_the_exact_answer() -> None:
    chance = random.Random(7)
    sample = [chance.gauss(0.25, 1) for _ in range(100)]
    baseline = [chance.gauss(0, 1) for _ in range(100)]
    exact = chance_of_larger(sample, baseline)
    approximated = chance_of_larger([*sample, 0.0], baseline)
    assert exact == pytest.approx(approximated, abs=0.01)
    assert chance_of_larger([1.0] * 300, [1.0] * 300) == 1.0


def test_equal_distributions_raise_an_alarm_as_seldom_as_promised() -> None:
    chance = random.Random(11)
    alarms = sum(
        chance_of_larger(
            [chance.expovariate(1) for _ in range(3)], [chance.expovariate(1) for _ in range(20)]
        )
        <= 0.05
        for _ in range(2000)
    )
    assert alarms <= 2000 * 0.05 * 1.35


def test_holm_step_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_wilson_intervals_of_the_textbook() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
