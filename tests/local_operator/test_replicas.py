"""Which instances there shall be, which go, and what an instance is, from the objects alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.local.operator.observe import Instance, Observed
from pytest_pgo_eks.local.operator.replicas import orphaned, planned_names, surplus

P = "postgres-operator.crunchydata.com/"


def runner(name: str, **status: Any) -> Obj:
    labels = {f"{P}instance": name, f"{P}instance-set": "pg-1"}
    metadata = {"name": name, "uid": f"uid-{name}", "labels": labels, "generation": 2}
    given = {"observedGeneration": 2, "updateRevision": "new"} | status
    return {"metadata": metadata, "spec": {"replicas": 1}, "status": given}


def pod(
    name: str,
    label: str | None = "replica",
    /,
    *,
    ready: bool = True,
    revision: str = "new",
    dying: bool = False,
    **patroni: Any,
) -> Obj:
    labels = {
        f"{P}instance": name,
        f"{P}instance-set": "pg-1",
        "controller-revision-hash": revision,
    }
    if label:
        labels[f"{P}role"] = label
    status = {"role": "primary" if label == "master" else "replica", "state": "running"} | patroni
    metadata: Obj = {"name": f"{name}-0", "uid": f"pod-{name}", "labels": labels}
    metadata["annotations"] = {"status": json.dumps(status)}
    if dying:
        metadata["deletionTimestamp"] = "2026-05-17T12:00:00Z"
    return {
        "metadata": metadata,
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "database", "state": {"running": {}}}],
        },
    }


def instance(name: str, *args: Any, **kwargs: Any) -> Instance:
    return Instance(name, "pg-1", runner(name), (pod(name, *args, **kwargs),))


def claim(name: str, role: str = "pgdata", *, dying: bool = False) -> Obj:
    metadata: Obj = {"labels": {f"{P}instance": name, f"{P}role": role}}
    if dying:
        metadata["deletionTimestamp"] = "2026-05-17T12:00:00Z"
    return {"metadata": metadata}


@given(
    st.integers(min_value=1, max_value=6),
    st.sets(st.sampled_from(["hippo-pg-1-bbbb", "hippo-pg-1-cccc", "hippo-pg-1-dddd"])),
    st.sets(st.sampled_from(["hippo-pg-1-ffff", "hippo-pg-1-gggg"])),
)
def test_a_plan_keeps_what_is_and_reuses_data_before_it_invents_names(
    replicas: int, existing: set[str], orphans: set[str]
) -> None:
    each = {"name": "pg-1", "replicas": replicas}
    found = planned_names("hippo", each, sorted(existing), sorted(orphans))
    assert len(found) == len(set(found)) == max(replicas, len(existing))
    assert existing <= set(found)
    missing = max(0, replicas - len(existing))
    assert len(orphans & set(found)) == min(missing, len(orphans))


def test_data_is_orphaned_when_no_stateful_set_has_it() -> None:
    claims = [claim("a"), claim("b"), claim("c", dying=True), claim("b", "pgwal")]
    assert orphaned(claims, ["a"], wal=False) == ["b"]
    assert orphaned([*claims, claim("d")], ["a"], wal=True) == ["b"]


def test_scaling_down_never_takes_the_primary() -> None:
    here = [instance("a", "master"), instance("b"), instance("c"), instance("d", None)]
    each = {"name": "pg-1", "replicas": 1}
    assert {i.name for i in surplus(each, here)} == {"b", "c", "d"}
    gone = surplus(each | {"replicas": 3}, here)
    assert len(gone) == 1
    assert gone == surplus(each | {"replicas": 3}, list(reversed(here)))


def test_a_removed_set_takes_its_primary_along() -> None:
    assert len(surplus(None, [instance("a", "master"), instance("b")])) == 2


@pytest.mark.parametrize(
    ("made", "primary", "writable", "available"),
    [
        (instance("a", "master"), True, True, True),
        (instance("a"), False, False, True),
        (instance("a", "master", role="replica"), True, False, True),
        (instance("a", "master", state="stopping"), True, False, True),
        (instance("a", "master", dying=True), True, False, False),
        (instance("a", ready=False), False, False, False),
        (Instance("a", "pg-1", runner("a"), ()), False, False, False),
    ],
)
def test_what_an_instance_is(
    made: Instance, primary: bool, writable: bool, available: bool
) -> None:
    assert (made.primary, made.writable, made.available) == (primary, writable, available)


def test_a_pod_is_current_only_when_that_is_known() -> None:
    assert instance("a").current is True
    assert instance("a", revision="old").current is False
    behind = Instance("a", "pg-1", runner("a", observedGeneration=1), (pod("a"),))
    assert behind.current is None


def test_instances_are_those_with_a_stateful_set_or_a_pod_left() -> None:
    observed = Observed([runner("b")], [pod("a", "master"), pod("b")])
    assert [each.name for each in observed.instances] == ["a", "b"]
    assert [each.name for each in observed.runners] == ["b"]
    assert observed.running is not None
    assert observed.running.name == "a"
    assert observed.pods == 2


@pytest.mark.parametrize(("leader", "chosen"), [("b-0", "b"), ("a-0", "a"), ("c-0", "a")])
def test_of_two_that_claim_to_lead_the_holder_of_the_lock_is_asked(
    leader: str, chosen: str
) -> None:
    pods = [pod("a", "master"), pod("b", "master"), pod("c")]
    observed = Observed([runner(n) for n in "abc"], pods, leader)
    assert observed.writable is not None
    assert observed.writable.name == chosen
