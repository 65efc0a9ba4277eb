"""What the tests of the network do inside its namespaces. Each returns what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import Any

from network_bed import Bed

from pytest_pgo_eks.local.network import netns
from pytest_pgo_eks.local.network.faults import FaultProblem
from pytest_pgo_eks.local.network.netns import Place
from pytest_pgo_eks.local.objects import ENDPOINTS, NETWORK_POLICY, SERVICE, Obj

VIP = "10.96.7.7"


async def services(bed: Bed) -> dict[str, Any]:
    one, two = await bed.pod("one", 1), await bed.pod("two", 2)
    await bed.pod("client", 3)
    saw: dict[str, Any] = {}
    bed.service("db", VIP)
    await bed.settled()
    saw["nobody"] = await bed.ask("client", VIP, 5432)
    saw["nobody, from a node"] = await bed.ask(bed.network.nodes["node-1"].place, VIP, 5432)
    bed.slice("db", one, two)
    await bed.settled()
    answers = [await bed.ask("client", VIP, 5432) for _ in range(60)]
    saw["both"] = sorted({who for who, _ in answers})
    saw["fewest"] = min([a for a, _ in answers].count(name) for name in ("one", "two"))
    saw["client's own address"] = {a for _, a in answers} == {bed.pods["client"].ip}
    saw["from a node"] = (await bed.ask(bed.network.nodes["node-1"].place, VIP, 5432))[0]
    saw["another port"] = await bed.ask("client", VIP, 1, 0.3)
    bed.slice("db", one)
    await bed.settled()
    saw["itself"] = await bed.ask("one", VIP, 5432)
    saw["only one"] = sorted({(await bed.ask("client", VIP, 5432))[0] for _ in range(10)})
    bed.slice("db", one, ready=False)
    await bed.settled()
    saw["not ready"] = await bed.ask("client", VIP, 5432)
    bed.slice("db", one, two)
    bed.service("db", VIP, sessionAffinity="ClientIP")
    await bed.settled()
    saw["sticky"] = len({await bed.ask("client", VIP, 5432) for _ in range(20)})
    bed.api.drop(SERVICE, "db", "default")
    await bed.settled()
    saw["gone"] = await bed.ask("client", VIP, 5432, 0.3)
    return saw


async def connection_outlives_its_endpoint(bed: Bed) -> dict[str, Any]:
    one, two = await bed.pod("one", 1), await bed.pod("two", 2)
    client = await bed.pod("client", 3)
    bed.service("db", VIP)
    bed.slice("db", one, port=81)
    loop = asyncio.get_running_loop()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(b"one " + line)
        writer.close()

    server = await asyncio.start_server(echo, sock=one.place.listener("0.0.0.0", 81))
    await bed.settled()
    with client.place.socket() as talk:
        talk.setblocking(False)
        await loop.sock_connect(talk, (VIP, 5432))
        bed.slice("db", two)
        await bed.settled()
        await loop.sock_sendall(talk, b"still there?\n")
        async with asyncio.timeout(10):
            old = (await loop.sock_recv(talk, 100)).decode().strip()
    server.close()
    return {"old": old, "new": (await bed.ask("client", VIP, 5432))[0]}


async def endpoints_without_slices(bed: Bed) -> dict[str, Any]:
    one = await bed.pod("one", 1)
    await bed.pod("client", 3)
    bed.service("db", VIP)
    bed.api.put(
        ENDPOINTS,
        {
            "metadata": {"name": "db", "namespace": "default"},
            "subsets": [
                {"addresses": [{"ip": one.ip}], "ports": [{"name": "p", "port": 80}]},
            ],
        },
    )
    await bed.settled()
    return {"by the object": (await bed.ask("client", VIP, 5432))[0]}


async def dead_pods(bed: Bed) -> dict[str, Any]:
    await bed.pod("client", 1)
    await bed.pod("near", 1)
    await bed.pod("far", 2)
    saw: dict[str, Any] = {}
    for name in ("near", "far"):
        ip = bed.pods[name].ip
        saw[f"{name} alive"] = (await bed.ask("client", ip, 80))[0]
        saw[f"{name} refuses"] = (await bed.ask("client", ip, 81))[0]
        began = time.monotonic()
        await bed.network.detach(f"u-{name}")
        saw[f"{name} detach_s"] = time.monotonic() - began
        # A neighbour that does not answer would be reported after three seconds.
        saw[f"{name} dead"] = (await bed.ask("client", ip, 80, 3.5 if name == "far" else 0.5))[0]
    saw["from its node"] = (await bed.ask(bed.network.nodes["node-2"].place, ip, 80, 0.5))[0]
    again = await bed.network.attach("node-2", "u-next")
    saw["address not reused at once"] = again.ip != ip
    saw["same again"] = again == await bed.network.attach("node-2", "u-next")
    await bed.network.detach("u-unknown")
    return saw


async def names(bed: Bed) -> dict[str, Any]:
    one, two = await bed.pod("one", 1), await bed.pod("two", 2)
    bed.service("db", VIP)
    bed.service("pods", "None")
    bed.slice("pods", one, two)
    await bed.settled()
    tail = "default.svc.cluster.local"
    saw: dict[str, Any] = {
        "service": await bed.resolve("one", f"DB.{tail}"),
        "headless addresses": sorted((await bed.resolve("one", f"pods.{tail}"))[1])
        == sorted([one.ip, two.ip]),
        "host": (await bed.resolve("one", f"two.pods.{tail}"))[1] == [two.ip],
        "no such": await bed.resolve("one", f"nobody.{tail}"),
        "AAAA": await bed.resolve("one", f"db.{tail}", 28),
        "outside": await bed.resolve("one", "postgresql.org"),
    }
    bed.service("late", "10.96.7.8")
    await bed.settled()
    saw["late"] = await bed.resolve("one", f"late.{tail}")
    return saw


def _policy(name: str, namespace: str = "default", **spec: Any) -> Obj:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


async def policies(bed: Bed) -> dict[str, Any]:
    db = await bed.pod("db", 1, role="db")
    await bed.pod("app", 2, role="app")
    await bed.pod("near", 1, role="other")
    await bed.pod("stranger", 3, "other", role="app")
    await bed.serve("db", 81)
    saw: dict[str, Any] = {"before": (await bed.ask("near", db.ip, 80))[0]}
    only_db = {"matchLabels": {"role": "db"}}
    bed.api.put(
        NETWORK_POLICY,
        _policy(
            "db",
            podSelector=only_db,
            ingress=[
                {
                    "from": [{"podSelector": {"matchLabels": {"role": "app"}}}],
                    "ports": [{"port": "web"}],
                }
            ],
        ),
    )
    bed.service("svc", VIP)
    bed.slice("svc", db)
    await bed.settled()
    saw["app"] = (await bed.ask("app", db.ip, 80))[0]
    saw["app, by the Service"] = (await bed.ask("app", VIP, 5432))[0]
    saw["app, another port"] = (await bed.ask("app", db.ip, 81, 0.3))[0]
    saw["same node, not allowed"] = (await bed.ask("near", db.ip, 80, 0.3))[0]
    saw["other namespace"] = (await bed.ask("stranger", db.ip, 80, 0.3))[0]
    saw["its kubelet"] = (await bed.ask(bed.network.nodes["node-1"].place, db.ip, 80))[0]
    saw["outwards"] = (await bed.ask("db", bed.pods["app"].ip, 80))[0]
    bed.api.put(
        NETWORK_POLICY,
        _policy(
            "out",
            podSelector=only_db,
            policyTypes=["Egress"],
            egress=[
                {
                    "to": [
                        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": "other"}}}
                    ]
                },
            ],
        ),
    )
    await bed.settled()
    saw["egress denied"] = (await bed.ask("db", bed.pods["app"].ip, 80, 0.3))[0]
    saw["egress allowed"] = (await bed.ask("db", bed.pods["near"].ip, 80))[0]
    late = await bed.pod("late", 2, role="db")
    saw["a new pod at once"] = (await bed.ask("near", late.ip, 80, 0.3))[0]
    bed.api.drop(NETWORK_POLICY, "db", "default")
    bed.api.drop(NETWORK_POLICY, "out", "default")
    await bed.settled()
    saw["after"] = (await bed.ask("near", db.ip, 80))[0]
    return saw


async def partitions(bed: Bed) -> dict[str, Any]:
    one, two = await bed.pod("one", 1), await bed.pod("two", 2)
    mate, three = await bed.pod("mate", 1), await bed.pod("three", 3)
    bed.service("db", VIP)
    bed.slice("db", one)
    await bed.settled()
    kubelet = bed.network.nodes["node-1"].place
    saw: dict[str, Any] = {}

    async def look(
        title: str, *asks: tuple[str | Place, str] | tuple[str | Place, str, str]
    ) -> None:
        saw[title] = [
            (
                await bed.ask(
                    ask[0], ask[1], 5432 if ask[1] == VIP else 80, 10 if ask[2:] == () else 0.3
                )
            )[0]
            for ask in asks
        ]

    fault = await bed.faults.inject({"kind": "partition-node", "node": "node-1"})
    await look(
        "node cut",
        ("two", one.ip, "dark"),
        ("one", two.ip, "dark"),
        ("mate", one.ip),
        ("two", VIP, "dark"),
    )
    last = await bed.faults.undo(fault["id"])
    saw["node evidence"] = [last["evidence"][f"packets_{d}"] > 0 for d in ("in", "out")]
    await look("node back", ("two", one.ip), ("one", two.ip), ("two", VIP))

    fault = await bed.faults.inject(
        {
            "kind": "partition-node",
            "node": "node-1",
            # Overlapping on purpose.
            "peers": [{"node": "node-2"}, {"namespace": "default", "pod": "two"}],
            "spare": [{"zone": "zone-c"}, {"node": "node-3"}],
        }
    )
    await look("only from node-2", ("two", one.ip, "dark"), ("three", one.ip), ("two", VIP, "dark"))
    await bed.faults.undo(fault["id"])

    fault = await bed.faults.inject({"kind": "partition-pod", "namespace": "default", "pod": "one"})
    await look(
        "pod cut",
        ("mate", one.ip, "dark"),
        ("one", mate.ip, "dark"),
        ("mate", two.ip),
        (kubelet, one.ip),
    )
    await bed.faults.undo(fault["id"])

    fault = await bed.faults.inject(
        {"kind": "partition-pod", "namespace": "default", "pod": "one", "kubelet": True}
    )
    await look("pod cut from its kubelet too", (kubelet, one.ip, "dark"))
    await bed.faults.undo(fault["id"])

    # One way: its packets leave, the answers do not come in.
    fault = await bed.faults.inject(
        {"kind": "partition-pod", "namespace": "default", "pod": "one", "direction": "in"}
    )
    await look("one way", ("one", two.ip, "dark"))
    got = (await bed.faults.get(fault["id"]))["evidence"]
    saw["one way evidence"] = [got["packets_in"] > 0, got["packets_out"]]
    await bed.faults.undo(fault["id"])

    fault = await bed.faults.inject(
        {
            "kind": "partition-pod",
            "namespace": "default",
            "pod": "one",
            "action": "reject",
        }
    )
    await look("refused", ("two", one.ip), ("one", two.ip))
    await bed.faults.undo(fault["id"])

    fault = await bed.faults.inject({"kind": "zone-loss", "zone": "zone-b"})
    await look("zone lost", ("two", one.ip, "dark"), ("one", two.ip, "dark"), ("one", three.ip))
    await bed.faults.undo(fault["id"])
    await look("all back", ("two", one.ip), ("one", two.ip), ("one", three.ip), (kubelet, one.ip))
    saw["none left"] = await bed.faults.all()
    return saw


async def loss(bed: Bed) -> dict[str, Any]:
    one = await bed.pod("one", 1)
    client = await bed.pod("client", 2)
    fault = await bed.faults.inject(
        {
            "kind": "packet-loss",
            "namespace": "default",
            "pod": "one",
            "direction": "in",
            "percent": 30,
        }
    )
    loop = asyncio.get_running_loop()
    got = 0
    with (
        one.place.socket(kind=socket.SOCK_DGRAM) as server,
        client.place.socket(kind=socket.SOCK_DGRAM) as talk,
    ):
        server.bind(("0.0.0.0", 99))
        server.setblocking(False)
        for _ in range(1000):
            talk.sendto(b"x", (one.ip, 99))
            with contextlib.suppress(BlockingIOError):
                while server.recv(10):
                    got += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while await loop.sock_recv(server, 10):
                    got += 1
    last = await bed.faults.undo(fault["id"])
    return {"got": got, "dropped": last["evidence"]["packets_in"]}


async def delays(bed: Bed) -> dict[str, Any]:
    one = await bed.pod("one", 1)
    await bed.pod("client", 2)
    request = {"kind": "delay", "namespace": "default", "pod": "one", "delay_s": 0.05}
    if not bed.faults.delay_works:
        try:
            await bed.faults.inject(request)
        except FaultProblem as problem:
            return {"code": problem.code, "delay": "delay" in bed.faults.capabilities}
    fault = await bed.faults.inject(request)
    began = time.monotonic()
    await bed.ask("client", one.ip, 80, 3)
    slow_s = time.monotonic() - began
    await bed.faults.undo(fault["id"])
    began = time.monotonic()
    await bed.ask("client", one.ip, 80, 3)
    return {"slow": slow_s >= 0.1, "quick": time.monotonic() - began < 0.05, "delay": True}


async def bad_faults(bed: Bed) -> dict[str, Any]:
    bad: list[Obj] = [
        {"kind": "earthquake"},
        {"kind": "partition-node", "node": "node-9"},
        {"kind": "partition-node", "node": ["x"]},
        {"kind": "partition-node", "node": "node-1", "percent": 3},
        {"kind": "partition-node", "node": "node-1", "direction": "up"},
        {"kind": "partition-node", "node": "node-1", "action": "explode"},
        {"kind": "partition-node", "node": "node-1", "peers": []},
        {"kind": "partition-node", "node": "node-1", "peers": ["nobody"]},
        {"kind": "partition-node", "node": "node-1", "peers": "api"},
        {"kind": "partition-pod", "namespace": "default", "pod": "nobody"},
        {"kind": "packet-loss", "node": "node-1", "percent": 0},
        {"kind": "packet-loss", "node": "node-1", "percent": "many"},
        {"kind": "zone-loss", "zone": "zone-z"},
        {"kind": "node-loss", "node": "node-1"},
    ]
    codes = []
    for request in bad:
        try:
            await bed.faults.inject(request)
        except FaultProblem as problem:
            codes.append(problem.code)
        else:
            codes.append(200)
    return {"codes": codes, "left": await bed.faults.all()}


async def isolation(bed: Bed) -> dict[str, Any]:
    """Look for any way out, from a pod, from a node and from the supervisor's own namespace."""
    one = await bed.pod("one", 1)
    places = {
        "pod": one.place,
        "node": bed.network.nodes["node-1"].place,
        "core": Place("core", None),
    }
    saw: dict[str, Any] = {}
    for name, place in places.items():
        saw[name] = {
            "outside": (await bed.ask(place, "192.0.2.1", 80, 1.0))[0],
            "resolver": (await bed.ask(place, "169.254.169.254", 80, 1.0))[0],
            "routes": place.submit(
                netns.run, ("ip", "-4", "route", "show", "table", "main"), ""
            ).result(),
            "ipv6": place.submit(
                netns.run, ("ip", "-6", "-o", "addr", "show", "scope", "link"), ""
            ).result(),
            "links": place.submit(netns.run, ("ip", "-o", "link"), "").result(),
            "forward": place.submit(Path("/proc/sys/net/ipv4/ip_forward").read_text)
            .result()
            .strip(),
        }
    places["core"].close()
    return saw


async def figures(bed: Bed) -> dict[str, Any]:
    attach = []
    for i in range(12):
        began = time.monotonic()
        await bed.network.attach(f"node-{i % 3 + 1}", f"u-{i}")
        attach.append(time.monotonic() - began)
    one = await bed.pod("one", 1)
    began = time.monotonic()
    for i in range(100):
        bed.service(f"s{i}", f"10.96.8.{i + 1}")
        bed.slice(f"s{i}", one)
    await bed.settled()
    bulk_s = time.monotonic() - began
    await bed.ask("one", "10.96.8.100", 5432)
    before = time.process_time()
    await asyncio.sleep(1.0)
    idle = time.process_time() - before
    return {"attach_s": sorted(attach)[6], "bulk_s": bulk_s, "idle": idle}


async def nothing(bed: Bed) -> dict[str, Any]:
    return {"nodes": sorted(bed.network.nodes)}
