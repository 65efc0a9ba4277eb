"""Who may log in and how: every way a connection can end has one word."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from local_postgres import Server
from wire_proxy import proxy

from pytest_pgo_eks.probe.agent import resolve
from pytest_pgo_eks.probe.agent.oneshot import parse_uri, target
from pytest_pgo_eks.probe.agent.scram import Scram, ScramProblem
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login
from pytest_pgo_eks.secrets import Secret


def test_each_refusal_has_its_word(
    installed: Installed, login: Login, postgres: Server, tmp_path: Path
) -> None:
    with socket.socket() as silent, socket.socket() as closed:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        closed.bind(("127.0.0.1", 0))
        nowhere, nobody = silent.getsockname()[1], closed.getsockname()[1]
        cases = [
            (login, "SELECT 1", "done", ""),
            (replace(login, password=Secret("wrong")), "SELECT 1", "connect", "28P01"),
            (replace(login, password=None), "SELECT 1", "connect", "lost"),
            (replace(login, database="none"), "SELECT 1", "connect", "3D000"),
            (replace(login, tls="require"), "SELECT 1", "connect", "no-tls"),
            (replace(login, tls="prefer"), "SELECT 1", "done", ""),
            (replace(login, hosts=(("127.0.0.1", nobody),)), "SELECT 1", "connect", "refused"),
            (replace(login, hosts=(("127.0.0.1", nowhere),)), "SELECT 1", "connect", "deadline"),
            (replace(login, hosts=(("no.such.name.invalid", 1),)), "SELECT 1", "connect", None),
            (login, "SELECT 1/0", "statement", "22012"),
            (login, "CREATE ROLE x", "statement", "42501"),
            (replace(login, attributes="standby"), "SELECT 1", "connect", "attributes"),
            (replace(login, attributes="prefer-standby"), "SELECT 1", "done", ""),
            (
                replace(login, options={"synchronous_commit": "local"}),
                "SHOW synchronous_commit",
                "done",
                "",
            ),
        ]
        answers = installed.ask_all([(c[0], c[1]) for c in cases], deadline_s=1.0)
    for (_, _, stage, code), answer in zip(cases, answers, strict=True):
        assert answer.stage == stage, answer
        if code is not None:
            assert answer.code == code, answer
    assert answers[-1].rows == (("local",),)
    assert answers[0].rows == (("1",),)
    assert not answers[0].tls


def test_several_hosts_are_tried_in_order(
    installed: Installed, login: Login, postgres: Server
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hosts = (("127.0.0.1", silent.getsockname()[1]), *login.hosts)
        several = replace(login, hosts=hosts, host_s=0.2, attributes="read-write")
        (answer,) = installed.ask(several, "SELECT inet_server_port()", deadline_s=3)
    assert answer.rows == ((str(postgres.port),),)
    assert 0.2 <= answer.took_s < 8


def test_the_certificate_is_verified(
    installed: Installed, login: Login, postgres: Server, tmp_path: Path
) -> None:
    keys = {}
    for name in ("localhost", "elsewhere"):
        out = tmp_path / f"{name}.pem"
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        files = ["-keyout", str(out), "-out", f"{out}.crt"]
        subprocess.run(["openssl", *words.split(), *names, *files], check=True, capture_output=True)
        keys[name] = Path(f"{out}.crt").read_text()
        out.write_text(out.read_text() + keys[name])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "elsewhere.pem")
    with proxy(postgres.port, context) as running:
        there = replace(login, hosts=(("localhost", running.port),), user="open", password=None)
        cases = [
            (replace(there, tls="require"), ""),
            (replace(there, tls="verify-ca", ca_pem=keys["elsewhere"]), ""),
            (replace(there, tls="verify-full", ca_pem=keys["elsewhere"]), "certificate"),
            (replace(there, tls="verify-ca", ca_pem=keys["localhost"]), "certificate"),
        ]
        answers = installed.ask_all([(c[0], "SELECT 1") for c in cases])
    assert [a.code for a in answers] == [c[1] for c in cases]
    assert answers[0].tls
    with pytest.raises(ValueError, match="needs the CA"):
        installed.ask(replace(login, tls="verify-full"), "SELECT 1")


def test_many_connections_are_counted_apart(installed: Installed, login: Login) -> None:
    answers = installed.ask(login, "SELECT pg_backend_pid()", times=40)
    assert len({a.rows[0][0] for a in answers}) > 30


def test_uris_are_read_as_libpq_reads_them() -> None:
    uri = "postgresql://u%40x:p%3Aw@a:5433,b,[::1]:6/db?sslmode=disable&target_session_attrs=read-write&connect_timeout=3&application_name=me"
    told = target({"uri": uri})
    assert told.hosts == (("a", 5433), ("b", 5432), ("::1", 6))
    assert (told.user, told.password, told.database) == ("u@x", "p:w", "db")
    assert (told.tls, told.attributes, told.host_s) == ("disable", "read-write", 3.0)
    assert told.options == (("application_name", "me"),)
    assert "p:w" not in repr(told)
    with pytest.raises(ValueError, match="not a postgresql"):
        parse_uri("http://x")
    with pytest.raises(ValueError, match="tls is one of"):
        target({"uri": uri, "tls": "maybe"})


def test_scram_refuses_a_server_that_does_not_know_the_password() -> None:
    exchange = Scram("secret")
    nonce = exchange.first().split(b"r=")[1]
    with pytest.raises(ScramProblem, match="continue our nonce"):
        exchange.proof(b"r=other,s=QUFBQQ==,i=4096")
    with pytest.raises(ScramProblem, match="malformed"):
        exchange.proof(b"nonsense")
    exchange.proof(b"r=" + nonce + b"x,s=QUFBQQ==,i=4096")
    with pytest.raises(ScramProblem, match="could not prove"):
        exchange.verify(b"v=QUFBQQ==")


def test_names_are_searched_as_glibc_does() -> None:
    config = resolve._Config(
        "# c\nnameserver 10.96.0.10\nsearch ns.svc.cluster.local svc.cluster.local\noptions ndots:5 edns0\n",
        "127.0.0.1 localhost here\n::1 localhost\n",
    )
    assert config.servers == ["10.96.0.10"]
    assert config.candidates("db") == ["db.ns.svc.cluster.local", "db.svc.cluster.local", "db"]
    assert config.candidates("a.b.c.d.e.f")[0] == "a.b.c.d.e.f"
    assert config.candidates("db.") == ["db"]
    assert config.known["localhost"] == ["127.0.0.1", "::1"]


def test_answers_of_the_name_server_are_understood() -> None:
    question = resolve.question(7, "db.ns")
    assert question[12:] == b"\x02db\x02ns\x00\x00\x01\x00\x01"
    head = struct.pack(">HHHHHH", 7, 0x8180, 1, 2, 0, 0)
    cname = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 5, 2) + b"\xc0\x0c"
    address = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + bytes([10, 1, 2, 3])
    assert resolve.parse(head + question[12:] + cname + address) == ["10.1.2.3"]
    missing = struct.pack(">HHHHHH", 7, 0x8183, 1, 0, 0, 0)
    assert resolve.parse(missing + question[12:]) is None
    six = b"\xc0\x0c" + struct.pack(">HHIH", 28, 1, 5, 16) + bytes(15) + b"\x01"
    one = struct.pack(">HHHHHH", 7, 0x8180, 1, 1, 0, 0)
    assert resolve.parse(one + question[12:] + six) == ["::1"]
    none = struct.pack(">HHHHHH", 7, 0x8180, 1, 0, 0, 0)
    assert resolve.parse(none + question[12:]) == []
    with pytest.raises(OSError, match="code 2"):
        resolve.parse(struct.pack(">HHHHHH", 7, 0x8182, 1, 0, 0, 0) + question[12:])
