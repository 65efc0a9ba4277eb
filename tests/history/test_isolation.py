"""List-append checking: against a closure of relations, planted anomalies, and serial runs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pgo_eks.history.history import INFO
from pytest_pgo_eks.history.isolation import FORBIDDEN, check_isolation, find_anomalies

from .lists import MS, PLANTS, Lists, plant, reference, scrambled, serial

CYCLES = {"G0", "G1c", "G-single", "G-nonadjacent", "G2-item"}


def test_serial_runs_have_no_anomaly() -> None:
    for seed in range(60):
        found = find_anomalies(serial(seed).history(), real_time=True)
        assert not found.counts, (seed, found.examples)
        assert found.edges > 10


@pytest.mark.parametrize("name", PLANTS)
def test_planted_anomalies_are_found_and_named(name: str) -> None:
    for seed in range(30):
        lists = serial(seed)
        plant(lists, name, random.Random(seed))
        found = find_anomalies(lists.history())
        # Who reads half of a transaction has also not seen its other half.
        also = {"G-single"} if name == "G1b" else set()
        assert set(found.counts) == {name} | also, (seed, found.examples)
        assert "T" in found.examples[name][0] or "list" in found.examples[name][0]


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), txns=st.integers(2, 6), keys=st.integers(1, 4))
def test_any_graph_is_named_as_the_closure_of_relations_says(
    seed: int, txns: int, keys: int
) -> None:
    lists = scrambled(random.Random(seed), txns=txns, keys=keys)
    found = find_anomalies(lists.history())
    want = reference(lists)
    counted = {name: sum(name in names for names in want) for name in CYCLES}
    assert {n: c for n, c in found.counts.items() if n in CYCLES} == {
        n: c for n, c in counted.items() if c
    }


def test_the_order_of_ends_does_not_change_the_answer() -> None:
    """Segments come from times; wrong times must only cost speed."""
    for seed in range(200):
        lists = scrambled(random.Random(seed))
        before = find_anomalies(lists.history()).counts
        random.Random(seed + 1).shuffle(lists.txns)
        for txn in lists.txns:
            txn.done = random.Random(seed + 2).randrange(1, 10**9)
        assert find_anomalies(lists.history()).counts == before


def test_a_stale_read_contradicts_real_time_only() -> None:
    lists = Lists()
    lists.add(("a", 1, 11), invoke=1 * MS, done=2 * MS)
    lists.add(("r", 1, []), invoke=3 * MS, done=4 * MS)
    lists.add(("r", 1, [11]), invoke=5 * MS, done=6 * MS)
    assert not find_anomalies(lists.history()).counts
    found = find_anomalies(lists.history(), real_time=True)
    assert set(found.counts) == {"real-time"}
    assert "T2" in found.examples["real-time"][0]
    assert "had ended before the begin of" in found.examples["real-time"][0]


def test_an_acknowledged_append_that_no_later_read_has_contradicts_real_time() -> None:
    lists = Lists()
    lists.add(("a", 1, 11), invoke=1 * MS, done=2 * MS)
    lists.add(("a", 1, 12), invoke=3 * MS, done=4 * MS)
    lists.add(("r", 1, [11]), invoke=5 * MS, done=6 * MS)
    assert set(find_anomalies(lists.history(), real_time=True).counts) == {"real-time"}
    lists.txns[1].outcome = INFO
    assert not find_anomalies(lists.history(), real_time=True).counts


def test_levels_forbid_what_postgresql_forbids() -> None:
    skew = Lists()
    plant_into(skew, "G2-item")
    assert {f.outcome for f in check_isolation(skew.history(), "repeatable read")} == {
        "holds",
        "expected",
    }
    assert {f.outcome for f in check_isolation(skew.history(), "serializable")} == {"violated"}
    single = Lists()
    plant_into(single, "G-single")
    assert {f.outcome for f in check_isolation(single.history(), "read committed")} == {
        "holds",
        "expected",
    }
    (finding,) = check_isolation(single.history(), "repeatable read")
    assert finding.outcome == "violated"
    assert "–rw→" in finding.operations[0]
    assert (
        set(FORBIDDEN["read committed"])
        < set(FORBIDDEN["repeatable read"])
        < set(FORBIDDEN["serializable"])
    )
    assert [f.outcome for f in check_isolation(Lists().history(), "serializable")] == ["unknown"]


def plant_into(lists: Lists, name: str) -> None:
    for steps, outcome in PLANTS[name]:
        lists.add(*steps, outcome=outcome)
