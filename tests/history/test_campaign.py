"""Planted anomalies are all found and named; clean runs with every trap in them raise no alarm.

The full campaign (10,000 mutated, 1,000 clean) is benchmarks/campaign.py; this is its small sister.
"""

from __future__ import annotations

import random

import pytest

from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.history.matrix import MODES, Mode

from .simulated import PLANTS, simulate


@pytest.mark.parametrize("mode", MODES)
def test_clean_runs_raise_no_alarm(mode: Mode) -> None:
    for seed in range(40):
        findings = judge(simulate(seed, mode=mode).history(), mode)
        wrong = [f for f in findings if f.outcome in {"violated", "unknown"}]
        assert not wrong, (seed, wrong)


@pytest.mark.parametrize("name", PLANTS)
def test_planted_anomalies_are_found_and_named(name: str) -> None:
    plant, rules = PLANTS[name]
    for seed in range(40):
        model = simulate(seed, mode="sync")
        plant(model, random.Random(seed))
        found = {f.rule: f for f in judge(model.history(), "sync")}
        for rule in rules:
            assert found[rule].outcome == "violated", (seed, rule, found[rule])
            assert found[rule].operations, "a violation names the operations that prove it"


def test_asynchronous_loss_is_expected_but_only_at_the_end() -> None:
    lost = 0
    for seed in range(40):
        model = simulate(seed, mode="async")
        found = {f.rule: f for f in judge(model.history(), "async")}
        lost += found["no-acknowledged-write-lost"].outcome == "expected"
        assert not [f for f in found.values() if f.outcome == "violated"]
        plant, _ = PLANTS["lost"]
        plant(model, random.Random(seed))
        found = {f.rule: f for f in judge(model.history(), "async")}
        assert found["no-acknowledged-write-lost"].outcome == "expected"
        assert found["loss-is-a-suffix"].outcome == "violated", seed
    assert lost > 10, "the simulation must lose something, or this proves nothing"


def test_the_same_loss_is_a_violation_under_synchronous_replication() -> None:
    violated = 0
    for seed in range(40):
        found = {f.rule: f for f in judge(simulate(seed, mode="async").history(), "sync")}
        violated += found["no-acknowledged-write-lost"].outcome == "violated"
    assert violated > 10
