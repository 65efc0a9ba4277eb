"""The network with real packets, in throw-away namespaces."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import network_bed as bed
import pytest

from pytest_pgo_eks.local.preflight import search_path

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("nft", path=search_path()),
    reason="needs Linux with nftables",
)


@pytest.mark.parametrize(
    "ordinary",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                sys.platform == "win32" or os.geteuid() != 0, reason="we are ordinary ourselves"
            ),
        ),
    ],
)
def test_services_lead_to_ready_endpoints_only(ordinary: bool) -> None:
    saw = bed.run("services", ordinary=ordinary)
    assert saw["nobody"][0] == saw["nobody, from a node"][0] == "Connection refused"
    assert saw["both"] == ["one", "two"]
    # Fair coin, 60 throws: fewer than 10 of one kind happens once in 10 million runs.
    assert saw["fewest"] >= 10
    assert saw["client's own address"]
    assert saw["from a node"] in {"one", "two"}
    assert saw["another port"][0] == "silence"
    assert saw["itself"][0] == "one"
    assert saw["only one"] == ["one"]
    assert saw["not ready"][0] == "Connection refused"
    assert saw["sticky"] == 1
    assert saw["gone"][0] == "silence"


def test_an_open_connection_stays_when_its_endpoint_leaves_the_service() -> None:
    saw = bed.run("connection_outlives_its_endpoint")
    assert saw == {"old": "one still there?", "new": "two"}


def test_an_endpoints_object_without_slices_is_enough() -> None:
    assert bed.run("endpoints_without_slices") == {"by the object": "one"}


def test_the_address_of_a_dead_pod_is_a_black_hole() -> None:
    saw = bed.run("dead_pods")
    assert (saw["near alive"], saw["far alive"]) == ("near", "far")
    assert (saw["near refuses"], saw["far refuses"]) == ("Connection refused",) * 2
    assert (saw["near dead"], saw["far dead"], saw["from its node"]) == ("silence",) * 3
    assert saw["address not reused at once"]
    assert saw["same again"]


def test_names_of_the_cluster_and_none_beyond() -> None:
    saw = bed.run("names")
    assert saw["service"] == [0, ["10.96.7.7"]]
    assert saw["headless addresses"]
    assert saw["host"]
    assert saw["no such"] == [3, []]
    assert saw["AAAA"] == [0, []]
    assert saw["outside"] == [3, []]
    assert saw["late"] == [0, ["10.96.7.8"]]


def test_policies_are_enforced() -> None:
    saw = bed.run("policies")
    assert saw == {
        "before": "db",
        "app": "db",
        "app, by the Service": "db",
        "app, another port": "silence",
        "same node, not allowed": "silence",
        "other namespace": "silence",
        "its kubelet": "db",
        "outwards": "app",
        "egress denied": "silence",
        "egress allowed": "near",
        "a new pod at once": "silence",
        "after": "db",
    }


def test_partitions_cut_exactly_what_they_say_and_heal() -> None:
    saw = bed.run("partitions")
    assert saw["node cut"] == ["silence", "silence", "one", "silence"]
    assert saw["node evidence"] == [True, True]
    assert saw["node back"] == ["one", "two", "one"]
    assert saw["only from node-2"] == ["silence", "one", "silence"]
    assert saw["pod cut"] == ["silence", "silence", "two", "one"]
    assert saw["pod cut from its kubelet too"] == ["silence"]
    assert saw["one way"] == ["silence"]
    assert saw["one way evidence"] == [True, 0]
    assert saw["refused"] == ["Connection refused"] * 2
    assert saw["zone lost"] == ["silence", "silence", "three"]
    assert saw["all back"] == ["one", "two", "three", "one"]
    assert saw["none left"] == []


def test_loss_is_random_and_counted() -> None:
    saw = bed.run("loss")
    assert saw["got"] + saw["dropped"] == 1000
    # 30 percent of 1000, ten standard deviations either way.
    assert 155 < saw["dropped"] < 445


def test_delay_where_the_kernel_can() -> None:
    saw = bed.run("delays")
    assert saw in ({"slow": True, "quick": True, "delay": True}, {"code": 501, "delay": False})


def test_bad_fault_requests_leave_nothing() -> None:
    saw = bed.run("bad_faults")
    wanted = [400, 404, 404, 400, 400, 400, 400, 400, 400, 404, 400, 400, 404, 501]
    assert saw == {"codes": wanted, "left": []}


def test_there_is_no_way_out() -> None:
    saw = bed.run("isolation")
    for place in ("pod", "node", "core"):
        seen: dict[str, Any] = saw[place]
        assert seen["outside"] == seen["resolver"] == "Network is unreachable", place
        names = [
            line.split()[1].partition("@")[0].rstrip(":") for line in seen["links"].splitlines()
        ]
        ours = {"lo", "core", "eth0", "n1", "n2", "n3", "void", "void-end", "p1"}
        assert set(names) <= ours, place
        assert seen["ipv6"] == "", place
        for route in seen["routes"].splitlines():
            inside = route.startswith(("10.96.", "10.244.", "10.250."))
            assert inside or (place == "pod" and route.startswith("default via 10.244.1.1")), route
    # Only nodes forward; the namespace that touches the outside world's listener does not.
    assert [saw[p]["forward"] for p in ("pod", "node", "core")] == ["0", "1", "0"]


def test_an_idle_network_costs_nothing() -> None:
    saw = bed.run("figures")
    # One second asleep: 1 percent of a core is already a timer somewhere.
    assert saw["idle"] < 0.01
