"""Services and policies as rules, and DNS answers, without a kernel."""

from __future__ import annotations

import socket
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pgo_eks.local.network.dns import Zone, records
from pytest_pgo_eks.local.network.policies import Member, policy_rules, selected
from pytest_pgo_eks.local.network.ruleset import update
from pytest_pgo_eks.local.network.services import (
    Endpoint,
    Key,
    endpoints_by_service,
    service_rules,
)
from pytest_pgo_eks.local.objects import Obj


def _service(**spec: Any) -> Obj:
    ports = [{"name": "p", "port": 5432}]
    return {"metadata": {}, "spec": {"clusterIP": "10.96.1.1", "ports": ports, **spec}}


def _endpoint(ip: str, *, ready: bool = True, serving: bool = True, host: str = "") -> Endpoint:
    return Endpoint(ip, host, ready, serving, {"p": 80})


def _only(rules: list[str]) -> list[str]:
    return [r for r in rules if "10.250.0.1" not in r]


def test_terminating_endpoints_serve_only_while_no_other_is_ready() -> None:
    key: Key = ("d", "s")
    leaving = _endpoint("10.244.1.2", ready=False)
    nat, refused, _ = service_rules({key: _service()}, {key: [leaving]})
    assert _only(nat) == ["ip daddr 10.96.1.1 tcp dport 5432 dnat to 10.244.1.2:80"]
    assert refused == []
    nat, _, _ = service_rules({key: _service()}, {key: [leaving, _endpoint("10.244.2.2")]})
    assert _only(nat) == ["ip daddr 10.96.1.1 tcp dport 5432 dnat to 10.244.2.2:80"]
    gone = _endpoint("10.244.1.2", ready=False, serving=False)
    nat, refused, _ = service_rules({key: _service()}, {key: [gone]})
    assert _only(nat) == []
    assert refused == ["ip daddr 10.96.1.1 tcp dport 5432 reject"]


def test_node_ports_have_rules_of_their_own() -> None:
    key: Key = ("d", "s")
    ports = [{"name": "p", "port": 5432, "nodePort": 30001}]
    nat, _, _ = service_rules({key: _service(ports=ports)}, {key: [_endpoint("10.244.1.2")]})
    assert "fib daddr type local tcp dport 30001 dnat to 10.244.1.2:80" in nat


def test_headless_services_have_no_rules() -> None:
    key: Key = ("d", "s")
    nat, refused, hairpin = service_rules({key: _service(clusterIP="None")}, {})
    assert (_only(nat), refused, hairpin) == ([], [], [])


def test_slices_win_over_the_endpoints_object() -> None:
    part = {
        "metadata": {"namespace": "d", "labels": {"kubernetes.io/service-name": "s"}},
        "ports": [{"name": "p", "port": 80}],
        "endpoints": [{"addresses": ["10.244.1.2"], "conditions": {"ready": True}}],
    }
    obj = {"subsets": [{"addresses": [{"ip": "10.244.9.9"}], "ports": [{"name": "p", "port": 80}]}]}
    found = endpoints_by_service([part], {("d", "s"): obj, ("d", "t"): obj})
    assert [e.ip for e in found["d", "s"]] == ["10.244.1.2"]
    assert [e.ip for e in found["d", "t"]] == ["10.244.9.9"]


def test_an_update_replaces_policy_chains() -> None:
    text = update(
        nat=["n"],
        refused=[],
        hairpin=[],
        policies=["jump a"],
        policy_chains={"a": ["x"], "b": ["y"]},
        old_chains=["b", "c"],
    )
    lines = text.splitlines()
    assert "delete chain ip cluster c" in lines
    assert "add chain ip cluster a" in lines
    assert "delete chain ip cluster b" not in lines
    # A chain may only be jumped to once it is there, and deleted once nobody does.
    assert lines.index("flush chain ip cluster policies") < lines.index("delete chain ip cluster c")
    assert lines.index("add chain ip cluster a") < lines.index(
        "add rule ip cluster policies jump a"
    )


_DB = Member("d", {"role": "db"}, "10.244.1.2", {"web": 8080})
_APP = Member("d", {"role": "app"}, "10.244.2.2", {"web": 80})
_FAR = Member("other", {"role": "app"}, "10.244.3.2", {})


def _rules(spec: Obj, *members: Member) -> dict[str, list[str]]:
    policy = {"metadata": {"name": "p", "namespace": "d"}, "spec": spec}
    _, chains = policy_rules([policy], members, {"d": {}, "other": {"team": "x"}})
    return chains


def test_deny_all() -> None:
    assert _rules({"podSelector": {}}, _DB, _FAR) == {"ingress-10-244-1-2": ["counter drop"]}


def test_a_policy_without_types_isolates_outwards_only_with_egress_rules() -> None:
    assert list(_rules({"podSelector": {}, "egress": []}, _DB)) == [
        "ingress-10-244-1-2",
        "egress-10-244-1-2",
    ]


def test_peers_by_namespace_block_and_named_port() -> None:
    chains = _rules(
        {
            "podSelector": {"matchLabels": {"role": "db"}},
            "ingress": [
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}]},
                {
                    "from": [
                        {
                            "ipBlock": {
                                "cidr": "10.0.0.0/8",
                                "except": ["10.244.2.0/24", "10.244.2.7/32"],
                            }
                        }
                    ],
                    "ports": [{"port": "web"}, {"port": 1, "endPort": 9, "protocol": "UDP"}],
                },
                {"from": [{"podSelector": {"matchLabels": {"role": "nobody"}}}]},
            ],
        },
        _DB,
        _APP,
        _FAR,
    )
    assert chains == {
        "ingress-10-244-1-2": [
            "ip saddr { 10.244.3.2 }  return",
            "ip saddr 10.0.0.0/8 ip saddr != { 10.244.2.0/24 } tcp dport 8080 return",
            "ip saddr 10.0.0.0/8 ip saddr != { 10.244.2.0/24 } udp dport 1-9 return",
            "counter drop",
        ]
    }


def test_a_named_port_of_egress_is_each_targets_own() -> None:
    chains = _rules(
        {
            "podSelector": {"matchLabels": {"role": "db"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "web"}]}],
        },
        _DB,
        _APP,
    )
    (rules,) = chains.values()
    assert [r.split("} ")[1] for r in rules[:2]] == [
        "ip daddr 10.244.1.2 tcp dport 8080 return",
        "ip daddr 10.244.2.2 tcp dport 80 return",
    ]


def test_what_is_no_ipv4_never_gets_into_a_rule() -> None:
    chains = _rules(
        {
            "podSelector": {"matchLabels": {"role": "db"}},
            "ingress": [
                {"from": [{"ipBlock": {"cidr": "fd00::/8"}}, {"ipBlock": {"cidr": "nonsense"}}]},
                {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/8"]}}]},
            ],
        },
        _DB,
    )
    assert chains == {"ingress-10-244-1-2": ["ip saddr 10.0.0.0/8  return", "counter drop"]}
    ports = [{"name": "p", "port": 80}]
    obj = {"subsets": [{"addresses": [{"ip": "fd00::1"}, {"ip": "10.244.1.2"}], "ports": ports}]}
    part = {
        "metadata": {"namespace": "d", "labels": {"kubernetes.io/service-name": "s"}},
        "endpoints": [{"addresses": ["db.example.org"]}, {"addresses": ["10.244.1.3"]}],
    }
    found = endpoints_by_service([part], {("d", "t"): obj})
    assert {k[1]: [e.ip for e in v] for k, v in found.items()} == {
        "s": ["10.244.1.3"],
        "t": ["10.244.1.2"],
    }


def test_selected() -> None:
    policy = {"metadata": {"namespace": "d"}, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}}
    assert selected([policy], {"metadata": {"namespace": "d", "labels": {"a": "b"}}})
    assert not selected([policy], {"metadata": {"namespace": "e", "labels": {"a": "b"}}})


# ---------------------------------------------------------------------- DNS


def _zone() -> Zone:
    services: dict[Key, Obj] = {
        ("d", "db"): _service(),
        ("d", "pods"): _service(clusterIP="None"),
        ("d", "quiet"): _service(clusterIP="None", publishNotReadyAddresses=True),
        ("d", "empty"): _service(clusterIP="None"),
        ("d", "out"): {
            "metadata": {},
            "spec": {"type": "ExternalName", "externalName": "db.d.svc.cluster.local"},
        },
    }
    behind = [_endpoint("10.244.1.2", host="a"), _endpoint("10.244.2.2", ready=False, host="b")]
    return Zone(lambda: records(services, {("d", "pods"): behind, ("d", "quiet"): behind}))


def _query(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
    return struct.pack("!HHHHHH", 9, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


def _ask(name: str, kind: int = 1) -> tuple[int, list[tuple[int, bytes]]]:
    query = _query(name, kind)
    answer = _zone().answer(query)
    assert answer is not None
    flags, questions, count = struct.unpack_from("!HHH", answer, 2)
    assert questions == 1
    rest = answer[len(query) :]
    found = []
    for _ in range(count):
        at = rest.index(0) + 1
        record, _, ttl, size = struct.unpack_from("!HHIH", rest, at)
        assert ttl == 5
        found.append((record, rest[at + 10 : at + 10 + size]))
        rest = rest[at + 10 + size :]
    return flags & 15, found


def _addresses(name: str) -> list[str]:
    return sorted(socket.inet_ntoa(data) for kind, data in _ask(name)[1] if kind == 1)


def test_headless_names_hold_ready_addresses_unless_all_are_published() -> None:
    assert _addresses("pods.d.svc.cluster.local") == ["10.244.1.2"]
    assert _addresses("a.pods.d.svc.cluster.local") == ["10.244.1.2"]
    assert _ask("b.pods.d.svc.cluster.local") == (3, [])
    assert _addresses("quiet.d.svc.cluster.local") == ["10.244.1.2", "10.244.2.2"]
    assert _addresses("b.quiet.d.svc.cluster.local") == ["10.244.2.2"]
    assert _ask("empty.d.svc.cluster.local") == (3, [])


def test_aliases_are_followed() -> None:
    code, found = _ask("out.d.svc.cluster.local")
    assert code == 0
    assert [kind for kind, _ in found] == [5, 1]
    assert _addresses("out.d.svc.cluster.local") == ["10.96.1.1"]


def test_service_and_pointer_records() -> None:
    code, found = _ask("_p._tcp.pods.d.svc.cluster.local", 33)
    assert code == 0
    assert [struct.unpack("!HHH", data[:6]) for _, data in found] == [(0, 100, 80)]
    code, found = _ask("1.1.96.10.in-addr.arpa", 12)
    assert (code, found[0][1]) == (0, b"\x02db\x01d\x03svc\x07cluster\x05local\x00")


def test_names_between_exist_without_records() -> None:
    assert _ask("svc.cluster.local") == (0, [])
    assert _ask("d.svc.cluster.local") == (0, [])
    assert _ask("e.svc.cluster.local") == (3, [])


def test_pod_names_spell_their_address() -> None:
    assert _addresses("10-244-1-2.d.pod.cluster.local") == ["10.244.1.2"]
    assert _ask("10-244-1-999.d.pod.cluster.local") == (3, [])


def test_a_long_answer_is_cut_on_udp_and_whole_on_tcp() -> None:
    many = [_endpoint(f"10.244.1.{i}", host=f"host-{i}") for i in range(2, 102)]
    key: Key = ("d", "many")
    zone = Zone(lambda: records({key: _service(clusterIP="None")}, {key: many}))
    query = _query("many.d.svc.cluster.local", 1)
    cut, whole = zone.answer(query, 512), zone.answer(query)
    assert cut is not None
    assert whole is not None
    assert len(cut) <= 512
    assert struct.unpack_from("!H", cut, 2)[0] & 0x0200
    assert struct.unpack_from("!H", whole, 6)[0] == 100
    wide = query[:10] + b"\0\1" + query[12:] + b"\0" + struct.pack("!HHIH", 41, 8192, 0, 0)
    answered = zone.answer(wide, 512)
    assert answered is not None
    assert struct.unpack_from("!H", answered, 6)[0] == 100


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_no_message_breaks_the_responder(data: bytes) -> None:
    answer = _zone().answer(data, 512)
    assert answer is None or answer[:2] == data[:2]
