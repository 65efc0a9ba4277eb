"""No path out of a statement sends a CancelRequest: it would create the loss we look for."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from local_postgres import Server
from wire_proxy import CANCEL_REQUEST, PROTOCOL_3, SSL_REQUEST, Proxy, proxy

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.history.history import FAIL, INFO, OK, PACED, SCOUT, WRITE, History
from pytest_pgo_eks.history.judge import judge
from pytest_pgo_eks.probe.control import Installed, Probe
from pytest_pgo_eks.probe.plan import Login, PathSpec


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tls") / "server.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(out), "-out", str(out.with_suffix(".crt"))]
    subprocess.run(["openssl", *words.split(), *names, *files], check=True, capture_output=True)
    out.write_text(out.read_text() + out.with_suffix(".crt").read_text())
    return out


@pytest.fixture(params=["plain", "tls"])
def recorder(
    request: pytest.FixtureRequest, postgres: Server, certificate: Path
) -> Iterator[tuple[Proxy, Login]]:
    context = None
    if request.param == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    plain = Login.at("localhost", 0, user="open", database="app", tls="disable")
    ca = certificate.with_suffix(".crt").read_text()
    login = plain if context is None else replace(plain, tls="verify-full", ca_pem=ca)
    with proxy(postgres.port, context) as running:
        yield running, replace(login, hosts=(("localhost", running.port),))


@pytest.fixture
def hanging(postgres: Server, installed: Installed, login: Login) -> Iterator[Server]:
    """Every commit waits for a standby that will never come."""
    installed.prepare(login, counters=16)
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
    postgres.reload()
    yield postgres
    postgres.sql("ALTER SYSTEM RESET synchronous_standby_names")
    postgres.reload()


def _start(installed: Installed, login: Login, file: Path) -> Probe:
    paths = [
        PathSpec(
            "primary",
            login,
            workers=2,
            deadline_s=0.3,
            scout_every_s=0.05,
            scout_deadline_s=0.2,
            pinned=1,
        ),
        PathSpec("unnamed", login, workers=1, deadline_s=0.3, prepared=False),
    ]
    return installed.start(paths, file)


def _waiting(postgres: Server) -> int:
    count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    return int(postgres.sql(count))


@pytest.mark.parametrize("ending", ["stop", "terminate", "kill"])
def test_deadlines_and_endings_close_the_socket(
    ending: str,
    recorder: tuple[Proxy, Login],
    hanging: Server,
    installed: Installed,
    tmp_path: Path,
) -> None:
    login = recorder[1]
    probe = _start(installed, login, tmp_path / "h.jsonl.gz")
    for _ in range(100):
        probe.stream.wait(len(probe.stream.lines), 0.2)
        history = History.of(probe.lines())
        late = (history.ops.kind == WRITE) & (history.ops.outcome == INFO)
        if (late & (history.ops.session == PACED)).sum() > 4 and (
            late & (history.ops.session == SCOUT)
        ).sum() > 4:
            break
    else:
        pytest.fail("no deadline ever passed")
    assert _waiting(hanging) > 5, "a deadline must leave the commit waiting, not cancel it"
    if ending != "stop":
        pid = int((Path(probe.directory) / "pid").read_text())
        os.kill(pid, signal.SIGTERM if ending == "terminate" else signal.SIGKILL)
    probe.stop()
    history = History.load(tmp_path / "h.jsonl.gz")
    assert history.end == {"stop": "stopped", "terminate": "terminated", "kill": "killed"}[ending]
    assert history.is_complete == (ending != "kill")
    writes = history.ops.kind == WRITE
    assert not (writes & (history.ops.outcome == OK)).any()
    assert not (writes & (history.ops.outcome == FAIL) & (history.ops.sent > 0)).any()
    codes = recorder[0].codes
    assert codes.count(PROTOCOL_3) > 10
    # A connection that was cut between its TLS request and its first packet has only the former.
    encrypted = recorder[0]._tls is not None
    assert not encrypted or codes.count(SSL_REQUEST) >= codes.count(PROTOCOL_3)
    assert set(codes) == ({PROTOCOL_3, SSL_REQUEST} if encrypted else {PROTOCOL_3})


def test_one_shots_close_the_socket(
    recorder: tuple[Proxy, Login], hanging: Server, installed: Installed
) -> None:
    login = recorder[1]
    insert = "INSERT INTO pgo_probe.log VALUES (-1, 0, 0, '0/0', '')"
    (answer,) = installed.ask(login, insert, deadline_s=0.3)
    assert (answer.stage, answer.code) == ("statement", "deadline")
    assert _waiting(hanging) >= 1
    assert CANCEL_REQUEST not in recorder[0].codes


def test_reading_back_closes_the_socket(
    recorder: tuple[Proxy, Login],
    hanging: Server,
    installed: Installed,
    tmp_path: Path,
) -> None:
    login = recorder[1]
    with installed.start([], tmp_path / "h.jsonl.gz") as probe:
        recorder[0].set_mode("blackhole")
        with pytest.raises(Inconclusive, match="not read back within"):
            probe.read_back("primary", login, within_s=0.3)
        recorder[0].set_mode("pass")
    assert CANCEL_REQUEST not in recorder[0].codes


def test_the_recorder_sees_a_cancel_request(
    recorder: tuple[Proxy, Login], certificate: Path
) -> None:
    running, _ = recorder
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        if running._tls is not None:
            sock.sendall(struct.pack(">ii", 8, SSL_REQUEST))
            assert sock.recv(1) == b"S"
            context = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))
            with context.wrap_socket(sock, server_hostname="localhost") as inside:
                inside.sendall(struct.pack(">iiii", 16, CANCEL_REQUEST, 1, 1))
                inside.recv(1)
        else:
            sock.sendall(struct.pack(">iiii", 16, CANCEL_REQUEST, 1, 1))
            sock.recv(1)
    assert CANCEL_REQUEST in running.codes


def test_the_unsafe_acknowledgement_is_heard(
    postgres: Server, hanging: Server, installed: Installed, login: Login, tmp_path: Path
) -> None:
    """Somebody else cancels a waiting commit: PostgreSQL says success, and the notice decides."""
    superuser = replace(login, user="open", password=None)
    paths = [PathSpec("primary", superuser, workers=3, deadline_s=20)]
    with installed.start(paths, tmp_path / "h.jsonl.gz") as probe:
        for _ in range(100):
            if _waiting(hanging) == 3:
                break
            probe.stream.wait(len(probe.stream.lines), 0.1)
        postgres.sql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        )
        for _ in range(100):
            if _waiting(hanging) == 3:
                break
            probe.stream.wait(len(probe.stream.lines), 0.1)
        postgres.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        )
        for _ in range(100):
            if (History.of(probe.lines()).ops.outcome == INFO).sum() >= 3:
                break
            probe.stream.wait(len(probe.stream.lines), 0.1)
        probe.quiet()
        probe.read_back("primary", superuser)
    history = History.load(tmp_path / "h.jsonl.gz")
    ops = history.ops
    writes = ops.kind == WRITE
    outcomes = ops.outcome[writes]
    assert (outcomes == 1).sum() >= 3, "a cancelled wait must be unsafe, never ok"
    assert (outcomes == OK).sum() == 0
    assert (outcomes == INFO).sum() >= 3
    assert "01000" in {history.word(c) for c in ops.code[writes]}
    assert "57P01" in {history.word(c) for c in ops.code[writes]}
    found = {f.rule: f.outcome for f in judge(history, "sync")}
    assert found.pop("no-acknowledged-write-lost") == "unknown"
    assert found.pop("one-primary-at-a-time") == "unknown"
    assert set(found.values()) == {"holds"}
