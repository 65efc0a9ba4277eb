"""The probe's watch: what changed for clients is told once, gaps are told too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pytest_pgo_eks.history.history import FAIL, OK, SCOUT, WRITE, History, Table
from pytest_pgo_eks.history.outage import outages
from pytest_pgo_eks.history.phases import explain, phases
from pytest_pgo_eks.probe.agent.records import Recorder
from pytest_pgo_eks.probe.agent.watch import Watch

ROLE = "postgres-operator.crunchydata.com/role"
Handler = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def _pod(role: str | None, **status: Any) -> dict[str, Any]:
    labels = {ROLE: role} if role else {}
    meta = {"name": "hippo-0", "uid": "u1", "labels": labels}
    return {"metadata": meta, "status": {"phase": "Running", "podIP": "10.0.0.1", **status}}


def _list(*items: dict[str, Any]) -> bytes:
    return json.dumps({"metadata": {"resourceVersion": "7"}, "items": list(items)}).encode()


async def _answer(writer: asyncio.StreamWriter, body: bytes, status: int = 200) -> None:
    writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


def _watch(tmp_path: Path, handler: Handler, until: Callable[[Recorder], bool]) -> Recorder:
    """Run a watch of pods against a server that answers as ``handler`` says."""
    recorder = Recorder("r", {})
    (tmp_path / "token").write_text("secret-token\n")

    async def go() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert "Authorization: Bearer secret-token\r\n" in head
            try:
                await handler(head.split(" ")[1], writer)
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config: dict[str, Any] = {
            "url": f"http://127.0.0.1:{port}",
            "token_file": str(tmp_path / "token"),
        }
        config |= {"namespace": "ns", "labels": "cluster=hippo", "kinds": ["pod"]}
        config["ca"] = ""
        task = asyncio.create_task(Watch(recorder, config).run())
        for _ in range(500):
            if until(recorder) or task.done():
                break
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()

    asyncio.run(go())
    return recorder


def test_changes_are_told_once_and_torn_lines_are_joined(tmp_path: Path) -> None:
    async def handler(path: str, writer: asyncio.StreamWriter) -> None:
        assert path.startswith("/api/v1/namespaces/ns/pods?")
        assert "labelSelector=cluster%3Dhippo" in path
        if "watch=true" not in path:
            await _answer(writer, _list(_pod("replica")))
            return
        assert "resourceVersion=7" in path
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        events = b"".join(
            json.dumps({"type": kind, "object": item}).encode() + b"\n"
            for kind, item in (
                ("MODIFIED", _pod("replica")),
                ("BOOKMARK", {"metadata": {"resourceVersion": "8"}}),
                ("MODIFIED", _pod("master")),
                ("DELETED", _pod("master")),
            )
        )
        for at in range(0, len(events), 50):
            await _chunk(writer, events[at : at + 50])
        await asyncio.sleep(5)

    recorder = _watch(tmp_path, handler, lambda r: len(r.events) >= 3)
    told = [event["what"] for event in recorder.events]
    assert len(told) == 3
    assert told[0].startswith("pod hippo-0: uid u1, role replica")
    assert told[1] == "pod hippo-0: role replica → master"
    assert told[2] == "pod hippo-0: deleted"


def test_a_lost_watch_is_told_and_what_was_missed_is_caught_up(tmp_path: Path) -> None:
    lists = iter([_list(_pod("replica")), None, _list(_pod("master", podIP="10.0.0.9"))])

    async def handler(path: str, writer: asyncio.StreamWriter) -> None:
        if "watch=true" in path:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            gone = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
            await _chunk(writer, json.dumps(gone).encode() + b"\n")
            return
        body = next(lists, _list(_pod("master", podIP="10.0.0.9")))
        await _answer(writer, body or b"no", 200 if body else 503)

    recorder = _watch(
        tmp_path, handler, lambda r: any("is back" in e.get("what", "") for e in r.events)
    )
    kinds = [event["kind"] for event in recorder.events][:4]
    assert kinds == ["cluster", "watch-lost", "cluster", "cluster"]
    assert "too old" in recorder.events[1]["error"]
    assert recorder.events[2]["what"] == (
        "pod hippo-0: role replica → master, address 10.0.0.1 → 10.0.0.9"
    )


def test_an_outage_is_told_in_phases() -> None:
    ms = 1_000_000
    rows: list[dict[str, int]] = []
    for begin in range(0, 3000 * ms, 10 * ms):
        down = 1000 * ms <= begin < 2000 * ms
        rows.append(
            {
                "op": len(rows) + 1,
                "kind": WRITE,
                "session": SCOUT,
                "path": 1,
                "invoke": begin,
                "sent": begin,
                "done": begin + 5 * ms,
                "outcome": FAIL if down else OK,
            }
        )
    events: list[dict[str, Any]] = [
        {"at": 990 * ms, "kind": "mark", "name": "fault begins: pod deleted"},
        {
            "at": 1400 * ms,
            "kind": "cluster",
            "object": "endpoints/hippo-ha",
            "what": "leader a → b",
            "now": {"leader": "b", "acquired": "t"},
            "was": {"leader": "a"},
        },
        {
            "at": 1500 * ms,
            "kind": "cluster",
            "object": "endpoints/hippo-ha",
            "what": "addresses",
            "now": {"addresses": ["2"]},
            "was": {"addresses": []},
        },
        {
            "at": 1600 * ms,
            "kind": "cluster",
            "object": "pod/b",
            "what": "role",
            "now": {"role": "master"},
            "was": {"role": "replica"},
        },
        {
            "at": 2900 * ms,
            "kind": "cluster",
            "object": "pod/c",
            "what": "role",
            "now": {"role": "master"},
            "was": {"role": "replica"},
        },
    ]
    history = History(ops=Table.rows("ops", rows), events=tuple(events), paths={1: "primary"})
    (outage,) = outages(history, "primary")
    found = phases(history, outage)
    assert [p.name for p in found] == [
        "fault",
        "first failure",
        "leader changed",
        "service followed",
        "label moved",
        "first acknowledgement",
    ]
    numbers = explain(history, outage).numbers
    assert numbers["leader_changed_s"] == 0.41
    assert numbers["first_acknowledgement_s"] == 1.015
