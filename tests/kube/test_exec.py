"""Exec and port-forward over real sockets, with what goes wrong there."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_pgo_eks.errors import ApiProblem, ExecProblem, NotFound
from pytest_pgo_eks.kube import ExecResult, Kube

from .conftest import NAMESPACE, Server, pod


@pytest.fixture
def ready(kube: Kube) -> Kube:
    kube.create(pod("a"))
    return kube


def run(
    kube: Kube, script: str, stdin: bytes | str | None = None, deadline_s: float = 5.0
) -> ExecResult:
    command = ["sh", "-c", script]
    return kube.exec(NAMESPACE, "a", command, container="c", stdin=stdin, deadline_s=deadline_s)


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_the_exit_status_is_the_commands_own(ready: Kube, status: int) -> None:
    assert run(ready, f"exit {status}").exit_status == status


def test_output_and_errors_are_kept_apart(ready: Kube) -> None:
    result = run(ready, "printf out; printf err >&2; exit 4")
    assert (result.stdout, result.stderr, result.exit_status) == (b"out", b"err", 4)


def test_arguments_arrive_as_they_are(ready: Kube) -> None:
    words = ["a b", "ä&=%+", "", "'\"\n"]
    assert ready.exec(NAMESPACE, "a", ["printf", "%s|", *words]).text == "|".join(words) + "|"


def test_a_character_split_over_two_frames_stays_whole(server: Server, ready: Kube) -> None:
    server.rule("frames", frame=1, path="exec")
    assert run(ready, "printf 'äöü€'").text == "äöü€"


def test_standard_input_is_fed_and_ended(ready: Kube) -> None:
    assert run(ready, "cat; echo done", stdin="héllo").text == "héllodone\n"
    assert run(ready, "wc -c", stdin=b"").text.strip() == "0"


def test_megabytes_go_both_ways_without_a_deadlock(ready: Kube) -> None:
    data = os.urandom(4 << 20)
    assert run(ready, "cat", stdin=data, deadline_s=20).stdout == data


def test_megabytes_over_tls(tls_kube: Kube) -> None:
    tls_kube.create(pod("a"))
    data = os.urandom(2 << 20)
    assert run(tls_kube, "cat", stdin=data, deadline_s=20).stdout == data


def test_a_server_without_v5_cannot_end_standard_input(server: Server, ready: Kube) -> None:
    server.rule("v4", path="exec", times=4)
    assert run(ready, "echo fine").text == "fine\n"
    assert run(ready, "head -c 5", stdin="count").text == "count"
    with pytest.raises(ExecProblem, match="cannot end its standard input"):
        run(ready, "cat", stdin="x", deadline_s=0.5)
    with (
        ready.open_exec(NAMESPACE, "a", ["cat"], stdin=True) as session,
        pytest.raises(ExecProblem, match="standard input never ends"),
    ):
        session.end_input()


def test_a_command_that_does_not_end_is_left_at_the_deadline(ready: Kube) -> None:
    began = time.monotonic()
    with pytest.raises(ExecProblem, match=r"not ended within 2 s.*may still run.*working"):
        run(ready, "echo working; exec sleep 60", deadline_s=2.0)
    assert time.monotonic() - began < 20


def test_a_command_that_talks_for_ever_is_left_at_the_deadline(ready: Kube) -> None:
    with pytest.raises(ExecProblem, match="not ended within"):
        ready.exec(NAMESPACE, "a", ["yes"], deadline_s=0.5)


def test_a_server_that_never_answers_is_left_at_the_deadline(server: Server, ready: Kube) -> None:
    server.rule("hang", path="exec")
    began = time.monotonic()
    with pytest.raises(ExecProblem, match="no connection within"):
        run(ready, "true", deadline_s=0.5)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("exec-cut", "no exit status: the connection broke.*may have run.*so far"),
        ("exec-no-status", "no exit status: the server closed the connection"),
        ("exec-bad-status", "exit status cannot be read"),
    ],
)
def test_a_missing_status_is_never_taken_for_success(
    server: Server, ready: Kube, do: str, message: str
) -> None:
    server.rule(do, path="exec")
    with pytest.raises(ExecProblem, match=message):
        run(ready, "echo so far; exec sleep 0.2")


def test_a_command_that_is_not_there_says_so(ready: Kube) -> None:
    with pytest.raises(ExecProblem, match=r"not started.*no-such-program"):
        ready.exec(NAMESPACE, "a", ["/no-such-program"])


def test_refusals_keep_their_meaning(server: Server, ready: Kube) -> None:
    with pytest.raises(NotFound, match='pods "gone"'):
        ready.exec(NAMESPACE, "gone", ["true"])
    server.rule("status", code=403, message="no pods/exec for you", path="exec")
    with pytest.raises(ApiProblem, match="no pods/exec for you") as caught:
        run(ready, "true")
    assert caught.value.status == 403
    server.rule("garbage", path="exec")
    with pytest.raises(ApiProblem):
        run(ready, "true")


def test_many_threads_exec_and_read_at_once(ready: Kube) -> None:
    def one(number: int) -> bool:
        if number % 2:
            return bool(ready.get("Pod", "a", NAMESPACE)["metadata"]["name"] == "a")
        return run(ready, f"echo {number}; exit {number % 7}").text == f"{number}\n"

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(one, range(80)))


def test_an_interrupt_stays_an_interrupt(ready: Kube) -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(ready, "exec sleep 20", deadline_s=20)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_session_streams_as_the_command_runs(ready: Kube) -> None:
    command = ["sh", "-c", "while read line; do echo got $line; done; echo bye >&2; exit 2"]
    with ready.open_exec(NAMESPACE, "a", command, stdin=True) as session:
        with pytest.raises(TimeoutError):
            session.read(0.1)
        session.write(b"one\n")
        assert session.read(5) == ("stdout", b"got one\n")
        session.write(b"two\n")
        assert session.read(5) == ("stdout", b"got two\n")
        session.end_input()
        assert session.read(5) == ("stderr", b"bye\n")
        assert session.read(5) is None
        assert session.exit_status() == 2


class Echo:
    """A TCP server that echoes in capitals, until the client stops sending."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        with client:
            while data := client.recv(65536):
                if data.startswith(b"quit"):
                    return
                client.sendall(data.upper())


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.close()


def test_a_forwarded_port_carries_many_connections(kube: Kube, echo: Echo) -> None:
    with kube.forward(NAMESPACE, "a", echo.port) as forward:

        def talk(number: int) -> bool:
            text = f"hello {number} ".encode() * 2000
            with socket.create_connection((forward.host, forward.port), 5) as client:
                client.settimeout(5)
                client.sendall(text)
                got = b""
                while len(got) < len(text):
                    part = client.recv(65536)
                    if not part:
                        break
                    got += part
                return got == text.upper()

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(talk, range(16)))
        assert forward.errors == []
    with pytest.raises(OSError):
        socket.create_connection((forward.host, forward.port), 1)


def test_the_pods_end_of_a_connection_reaches_the_client(kube: Kube, echo: Echo) -> None:
    with kube.forward(NAMESPACE, "a", echo.port) as forward:  # noqa: SIM117
        with socket.create_connection((forward.host, forward.port), 5) as client:
            client.sendall(b"quit")
            assert client.recv(10) == b""


def test_an_answer_after_the_clients_last_word_still_arrives(kube: Kube, echo: Echo) -> None:
    with kube.forward(NAMESPACE, "a", echo.port) as forward:  # noqa: SIM117
        with socket.create_connection((forward.host, forward.port), 5) as client:
            client.sendall(b"last")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(10) == b"LAST"


def first_bytes(host: str, port: int) -> bytes:
    """Connect and read; a reset may come before the client has looked whether it is connected."""
    with socket.create_connection((host, port), 5) as client:
        client.settimeout(5)
        return client.recv(10)


@pytest.mark.parametrize("what", ["closed port", "refused", "server gone"])
def test_a_forward_that_fails_resets_the_client_and_says_why(
    server: Server, kube: Kube, what: str
) -> None:
    if what == "refused":
        server.rule("status", code=403, message="no pods/portforward for you")
    elif what == "server gone":
        server.rule("drop")
    with kube.forward(NAMESPACE, "a", 1) as forward:
        with pytest.raises(ConnectionResetError):
            first_bytes(forward.host, forward.port)
        assert len(forward.errors) == 1
        expected = {"closed port": "cannot connect to 1", "refused": "no pods/portforward"}
        assert expected.get(what, "closed the connection") in forward.errors[0]


def test_a_forward_works_over_tls(tls_kube: Kube, echo: Echo) -> None:
    async def talk(host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"x" * 300_000)
        got = await asyncio.wait_for(reader.readexactly(300_000), 10)
        writer.close()
        await writer.wait_closed()
        return got

    with tls_kube.forward(NAMESPACE, "a", echo.port) as forward:
        assert asyncio.run(talk(forward.host, forward.port)) == b"X" * 300_000
