"""A throw-away PostgreSQL on 127.0.0.1, with TLS, SCRAM and standbys, for the probe's own tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_HBA = """
local all postgres peer
host all open 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
hostssl all all 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 md5
"""


def binaries() -> Path | None:
    """Return the newest PostgreSQL's bin directory of this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: p.parts[-3])
    return found[-1].parent if found else None


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Server:
    """One instance; ``start`` and ``stop`` wait. Everything lives in one directory."""

    def __init__(self, directory: Path, bin_dir: Path) -> None:
        self.data = directory
        self.bin = bin_dir
        self.port = free_port()

    @property
    def owner(self) -> str | None:
        return "postgres" if os.geteuid() == 0 else None

    def run(self, *command: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
        as_owner = ["setpriv", f"--reuid={self.owner}", "--regid=postgres", "--clear-groups"]
        full = [*(as_owner if self.owner else []), str(self.bin / command[0]), *command[1:]]
        done = subprocess.run(
            full, check=False, capture_output=True, text=True, cwd="/", timeout=60, **kwargs
        )  # type: ignore[call-overload]
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done  # type: ignore[no-any-return]

    def create(self) -> None:
        self.run(
            "initdb",
            "-D",
            str(self.data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-N",
            "--no-locale",
            "-E",
            "UTF8",
        )
        self.configure()
        (self.data / "pg_hba.conf").write_text(_HBA, encoding="utf-8")
        self.own()

    def configure(self, **settings: str) -> None:
        base = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "max_wal_senders": "5",
            "wal_keep_size": "64MB",
            "fsync": "off",
            "lc_messages": "C",
        }
        with (self.data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            for name, value in (base | settings).items():
                file.write(f"{name} = '{value}'\n")

    def own(self) -> None:
        if self.owner:
            entry = pwd.getpwnam(self.owner)
            for path in [self.data, *self.data.iterdir()]:
                os.chown(path, entry.pw_uid, entry.pw_gid)

    def start(self) -> None:
        self.run(
            "pg_ctl", "-D", str(self.data), "-w", "-t", "30", "-l", str(self.data / "log"), "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        with contextlib.suppress(RuntimeError):
            self.run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def reload(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "reload")

    def promote(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def sql(self, statement: str, database: str = "app") -> str:
        """Run ``statement`` as the superuser through a peerless local trust line."""
        dsn = f"host=127.0.0.1 port={self.port} user=open dbname={database}"
        return self.run("psql", "-XAtqd", dsn, "-c", statement).stdout.strip()

    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def children(self, title: str) -> list[int]:
        """Return the pids of this server's processes whose title contains ``title``."""
        parent = str(self.pid())
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if stat[1] == parent and title in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
        return found

    def standby(self, name: str) -> Server:
        """Clone a streaming standby that calls itself ``name``."""
        other = Server(self.data.parent / name, self.bin)
        self.run(
            "pg_basebackup",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "open",
            "-D",
            str(other.data),
            "-c",
            "fast",
            "-X",
            "stream",
            "-R",
        )
        conninfo = f"host=127.0.0.1 port={self.port} user=open application_name={name}"
        other.configure(primary_conninfo=conninfo)
        other.own()
        other.start()
        return other


@contextlib.contextmanager
def server(bin_dir: Path, where: Path | None = None) -> Iterator[Server]:
    """A running primary with users ``app`` (SCRAM, owns database ``app``) and ``open`` (trust).

    Its files are in memory unless ``where`` says otherwise.
    """
    memory = Path("/dev/shm")
    root = Path(
        tempfile.mkdtemp(prefix="probe-pg-", dir=where or (memory if memory.is_dir() else None))
    )
    root.chmod(0o755)
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        os.chown(root, entry.pw_uid, entry.pw_gid)
    instance = Server(root / "primary", bin_dir)
    try:
        instance.create()
        hba = (instance.data / "pg_hba.conf").read_text()
        (instance.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n" + hba)
        instance.start()
        boot = f"host=127.0.0.1 port={instance.port} user=postgres dbname=postgres"
        for statement in (
            "CREATE ROLE app LOGIN PASSWORD 'app-secret'",
            "CREATE ROLE open SUPERUSER REPLICATION LOGIN",
            "CREATE DATABASE app OWNER app",
        ):
            instance.run("psql", "-Xqd", boot, "-c", statement)
        (instance.data / "pg_hba.conf").write_text(
            "host replication open 127.0.0.1/32 trust\n" + hba
        )
        instance.reload()
        yield instance
    finally:
        for data in root.iterdir():
            pid_file = data / "postmaster.pid"
            if pid_file.exists():
                with contextlib.suppress(OSError, ValueError):
                    pid = int(pid_file.read_text().splitlines()[0])
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                Server(data, bin_dir).stop()
        for _ in range(5):
            shutil.rmtree(root, ignore_errors=True)
            if not root.exists():
                break
            time.sleep(0.05)
