from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, cast

import pytest
from pgo.conftest import PRIMARY, STANDBY

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.faults.bench import Fault
from pytest_pgo_eks.faults.network import PacketsDropped
from pytest_pgo_eks.faults.switchover import Switchover
from pytest_pgo_eks.scenario import aim, roles
from steps.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    # The agent's pod, which a fault of the network may have to spare.
    cast(Any, found.stage)._install_probe = type("P", (), {"pod": "probe-0"})
    return found


@pytest.mark.parametrize("what", sorted(aim.AT_INSTANCE))
def test_every_fault_names_what_it_hits(what: str, world: World) -> None:
    primary = roles.primary(world.seen)
    fault: Fault = aim.AT_INSTANCE[what](world.stage, world.seen, primary)
    assert re.fullmatch(r"[a-z-]+", fault.kind)
    hit = {primary.pod, primary.node, primary.zone, world.postgres.name}
    assert any(one and one in fault.target for one in hit), fault.target


def test_words_that_name_no_fault_are_told(world: World) -> None:
    with pytest.raises(Inconclusive, match="no fault is called"):
        aim.at_primary(world.stage, "is told a bad joke")


def test_a_primary_cut_off_from_all_but_clients_spares_the_clients(world: World) -> None:
    make = aim.AT_INSTANCE["cut off from everybody but its clients"]
    fault = make(world.stage, world.seen, roles.primary(world.seen))
    assert isinstance(fault, PacketsDropped)
    (request,) = fault._requests
    assert {"namespace": "postgres-operator", "pod": "probe-0"} in request["spare"]
    assert "peers" not in request


def test_without_its_api_a_primary_is_cut_from_nothing_else(world: World) -> None:
    make = aim.AT_INSTANCE["API server is unreachable"]
    fault = make(world.stage, world.seen, roles.primary(world.seen))
    assert isinstance(fault, PacketsDropped)
    assert [one["peers"] for one in fault._requests] == [["api"]]


def test_a_primary_that_is_apart_already_stays(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(aim, "Switchover", _refuse)
    aim.lead_elsewhere(world.stage, {"a node of nobody"})


def test_a_switchover_to_somebody_names_the_instance_and_waits_for_its_pod(world: World) -> None:
    wanted = next(one for one in world.seen.instances if one.pod == STANDBY)
    fault = Switchover(world.postgres, target=wanted, within_s=1.0)
    fault.inject()
    _, _, _, patch = next(call for call in reversed(world.kube.calls) if call[0] == "patch")
    asked = patch["spec"]["patroni"]["switchover"]
    assert asked["targetInstance"] == wanted.name != wanted.pod

    def carried_out(leader: str) -> None:
        seen = world.seen
        assert seen.status is not None
        assert seen.leader is not None
        world.observation = dataclasses.replace(
            seen,
            status=dataclasses.replace(seen.status, switchover=fault._trigger),
            leader=dataclasses.replace(seen.leader, leader=leader),
        )

    carried_out(STANDBY)
    assert STANDBY in fault.prove().sentence
    carried_out("another-0")
    with pytest.raises(TimeoutError):
        fault.prove()


def test_there_has_to_be_a_node_that_nobody_needs(world: World) -> None:
    nodes = {str(one.node) for one in world.seen.instances}
    with pytest.raises(Inconclusive, match="every instance is on a node that is needed"):
        aim.lead_elsewhere(world.stage, nodes)


def test_a_replica_that_is_held_back_is_the_asynchronous_one(world: World) -> None:
    pod = aim._any_replica(world.seen)
    assert pod not in {PRIMARY, STANDBY}


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("nothing had to be switched over")
