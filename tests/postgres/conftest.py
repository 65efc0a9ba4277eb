"""A real server and its streaming replica, and a shell that runs psql beside them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_pgo_eks.kube import ExecResult
from pytest_pgo_eks.postgres import ServerView


def _binaries() -> Path | None:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: path.parent.parent.name
    )
    return found[-1].parent if found else None


BINARIES = _binaries()


def _user() -> str | None:
    """PostgreSQL refuses root; its own user is there wherever the server is packaged."""
    return "postgres" if os.geteuid() == 0 else None


@dataclass
class LocalShell:
    """Runs what would run in a pod's container on this machine; refuses pods it does not know."""

    sockets: dict[str, Path]
    commands: list[list[str]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)

    def exec(
        self,
        namespace: str,
        pod: str,
        command: Sequence[str],
        *,
        container: str | None = None,
        stdin: bytes | str | None = None,
        deadline_s: float = 30.0,
    ) -> ExecResult:
        assert (namespace, container) == ("ns", "database")
        assert isinstance(stdin, str)
        self.commands.append(list(command))
        self.inputs.append(stdin)
        done = subprocess.run(
            list(command),
            input=stdin.encode(),
            capture_output=True,
            timeout=deadline_s,
            check=False,
            user=_user(),
            cwd="/",
            env={"PATH": f"{BINARIES}:/usr/bin:/bin", "PGHOST": str(self.sockets[pod])},
        )
        return ExecResult(done.returncode, done.stdout, done.stderr)


class Server:
    """One data directory with its postmaster, on a socket only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"

    def run(self, program: str, *arguments: str) -> None:
        assert BINARIES is not None
        subprocess.run(
            [str(BINARIES / program), *arguments],
            check=True,
            capture_output=True,
            user=_user(),
            cwd="/",
            timeout=60,
        )

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder}"
        log = self.folder / "log"
        self.run("pg_ctl", "-D", str(self.data), "-w", "-l", str(log), "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    if BINARIES is None:
        pytest.skip("no PostgreSQL server on this machine")
    # Short, because a socket's path may have 107 bytes only.
    path = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(path, user.pw_uid, user.pw_gid)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def primary(folder: Path) -> Iterator[Server]:
    server = Server(folder / "p")
    server.run("initdb", "-D", str(server.data), "-U", "postgres", "-A", "trust", "-N", "-k")
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("wal_level=logical\nfsync=off\nwal_keep_size=64MB\n")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def replica(folder: Path, primary: Server) -> Iterator[Server]:
    server = Server(folder / "r")
    source = f"host={primary.folder} user=postgres application_name=r-0"
    server.run("pg_basebackup", "-D", str(server.data), "-d", source, "-R", "-c", "fast")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shell(primary: Server, replica: Server) -> LocalShell:
    return LocalShell({"p-0": primary.folder, "r-0": replica.folder, "dead-0": Path("/nowhere")})


@pytest.fixture
def view(shell: LocalShell) -> ServerView:
    return ServerView(shell, "ns", "p-0")


@pytest.fixture
def replica_view(shell: LocalShell) -> ServerView:
    return ServerView(shell, "ns", "r-0")


@pytest.fixture
def folder_promotion(folder: Path, primary: Server) -> Iterator[tuple[ServerView, Server]]:
    """A second replica, to be promoted."""
    server = Server(folder / "x")
    source = f"host={primary.folder} user=postgres application_name=x-0"
    server.run("pg_basebackup", "-D", str(server.data), "-d", source, "-R", "-c", "fast")
    server.start()
    yield ServerView(LocalShell({"x-0": server.folder}), "ns", "x-0"), server
    server.stop()
