"""The shell in the pods, run here with stand-ins for psql, pkill and pgbackrest."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pgo_eks.local.operator import scripts


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory that comes first on the PATH of the scripts."""
    found = tmp_path / "bin"
    found.mkdir()
    return found


def program(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(0o755)


def environment(programs: Path) -> dict[str, str]:
    return {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(programs / "log")}


def run(programs: Path, script: str, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        scripts.command(script, "-", *arguments),
        input=stdin,
        env=environment(programs),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


PSQL = """
if [[ "$*" == *--command=* ]]; then printf 'a\\nb c\\n'; exit 0; fi
echo "${PGDATABASE}: $* <<< $(cat)" >> "${LOG}"
[[ ${PGDATABASE} != "${BAD:-}" ]]
"""


def test_sql_runs_in_every_database_that_the_query_lists(programs: Path) -> None:
    program(programs, "psql", PSQL)
    status, _, _ = run(programs, scripts.EVERY_DATABASE, "SELECT", "--set=x=1", stdin="SQL;\nMORE")
    assert status == 0
    assert (programs / "log").read_text() == (
        "a: -Xw --file=- --set=x=1 <<< SQL;\nMORE\nb c: -Xw --file=- --set=x=1 <<< SQL;\nMORE\n"
    )


def test_sql_that_fails_in_one_database_fails_at_once(programs: Path) -> None:
    program(programs, "psql", PSQL.replace("${BAD:-}", "a"))
    status, _, _ = run(programs, scripts.EVERY_DATABASE, "SELECT", stdin="SQL")
    assert status != 0
    assert "b c" not in (programs / "log").read_text()


def test_no_databases_is_a_failure(programs: Path) -> None:
    program(programs, "psql", "exit 2")
    status, _, said = run(programs, scripts.EVERY_DATABASE, "SELECT", stdin="SQL")
    assert (status, said) == (3, "no databases found\n")


def stanza(programs: Path, tmp_path: Path, wanted: str) -> tuple[int, str, str]:
    (tmp_path / "config-hash").write_text("new")
    script = scripts.CREATE_STANZA.replace("/etc/pgbackrest/conf.d", str(tmp_path))
    return run(programs, script, wanted, "db")


def test_a_stanza_is_made_or_upgraded(programs: Path, tmp_path: Path) -> None:
    program(programs, "pgbackrest", 'echo "$1 $2"; [[ $1 == stanza-upgrade ]]')
    status, said, _ = stanza(programs, tmp_path, "new")
    assert (status, said) == (0, "stanza-create --stanza=db\nstanza-upgrade --stanza=db\n")


def test_no_stanza_is_made_with_a_configuration_that_is_behind(
    programs: Path, tmp_path: Path
) -> None:
    program(programs, "pgbackrest", "echo never")
    status, said, why = stanza(programs, tmp_path, "newer")
    assert (status, said, why) == (75, "", "configuration is behind\n")


class Volume:
    """A projected volume as the kubelet writes it: a link that is swapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = 0
        path.mkdir()
        self.change()

    def change(self) -> None:
        self._number += 1
        version = self.path / f"..{self._number}"
        (version / "replication").mkdir(parents=True)
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (version / "replication" / name).write_text(f"{name} {self._number}")
        fresh = self.path / "..tmp"
        fresh.symlink_to(version.name)
        fresh.replace(self.path / "..data")
        link = self.path / "replication"
        if not link.exists():
            link.symlink_to("..data/replication")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for process in found:
        process.kill()
        process.wait()


def until(file: Path, lines: int) -> list[str]:
    """Wait until a file has so many lines."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        found = file.read_text().splitlines() if file.exists() else []
        if len(found) >= lines:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{file} never had {lines} lines")


def test_a_changed_volume_is_loaded_once_and_again_if_the_signal_finds_nobody(
    programs: Path, tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    program(programs, "pkill", 'echo "$*" >> "${LOG}"; [[ $(wc -l < "${LOG}") != 1 ]]')
    one, two = Volume(tmp_path / "one"), Volume(tmp_path / "two")
    quick = scripts.RELOAD_PGBACKREST.replace("-t 5", "-t 0.05")
    command = scripts.command(quick, "reload", str(one.path), str(two.path))
    started.append(subprocess.Popen(command, env=environment(programs), stdout=subprocess.DEVNULL))
    time.sleep(0.3)
    assert not (programs / "log").exists()
    two.change()
    # The first signal found no process, so it is sent again; then all is quiet.
    assert until(programs / "log", 2) == ["--signal HUP --exact --parent 0 pgbackrest"] * 2
    time.sleep(0.3)
    assert len(until(programs / "log", 2)) == 2
    one.change()
    until(programs / "log", 3)


def test_renewed_replication_certificates_are_copied_before_postgres_hears_of_them(
    programs: Path, tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    copies = tmp_path / "replication"
    program(programs, "pkill", f'echo "$* $(cat {copies}/tls.key)" >> "${{LOG}}"')
    volume = Volume(tmp_path / "tls")
    quick = scripts.COPY_REPLICATION_CERTIFICATE.replace("-t 5", "-t 0.05")
    command = scripts.command(
        quick.replace("/tmp/replication", str(copies)), "copy", str(volume.path)
    )
    started.append(subprocess.Popen(command, env=environment(programs), stdout=subprocess.DEVNULL))
    time.sleep(0.3)
    volume.change()
    assert until(programs / "log", 1) == ["--signal HUP --exact --parent 1 postgres tls.key 2"]
    assert (copies / "tls.key").stat().st_mode & 0o777 == 0o600
