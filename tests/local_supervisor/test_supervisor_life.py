"""From ``up`` to the end, however it comes: afterwards nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.local.preflight import search_path

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("bwrap", path=search_path()),
    reason="needs Linux and the system packages of the stand-in",
)
_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_ORDINARY = 54321


class Box:
    """A user's view: a state root, and the commands."""

    def __init__(self, home: Path, *, ordinary: bool = False) -> None:
        self.home = home
        self.root = home / "state" / "pytest-pgo-eks" / "local"
        self._python, packages = sys.executable, [str(_HERE), str(_ROOT)]
        self._who: dict[str, Any] = {}
        if ordinary:
            self._who = {"user": _ORDINARY, "group": _ORDINARY, "extra_groups": []}
            os.chown(home, _ORDINARY, _ORDINARY)
            base = Path(os.path.realpath(sys.executable))
            if not all(p.stat().st_mode & 0o001 for p in (base, *base.parents)):
                self._python = f"/usr/bin/python3.{sys.version_info.minor}"
                if not Path(self._python).exists():
                    pytest.skip(f"other users may start neither {base} nor a {self._python}")
                packages.append(next(p for p in sys.path if p.endswith("site-packages")))
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "PYTHONPATH": os.pathsep.join(packages),
            "A_SECRET_OF_THE_HOST": "hush",
        }

    def start(self, assembly: str, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._python, str(_HERE / "standin_driver.py"), assembly, "up", "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._env,
            cwd=self.home,
            **self._who,
        )

    def up(self, assembly: str, *options: str) -> dict[str, Any]:
        with self.start(assembly, *options) as process:
            out, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return answer

    def fails(self, assembly: str, *options: str) -> tuple[int, str]:
        with self.start(assembly, *options) as process:
            out, complaint = process.communicate(timeout=60)
        assert "{" not in out
        return process.returncode, complaint.strip()

    def command(self, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [self._python, "-m", "pytest_pgo_eks.local", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self._env,
            cwd=self.home,
            **self._who,
        )
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    def status(self) -> dict[str, str]:
        code, out, _ = self.command("status", "--json")
        assert code == 0
        return {row["name"]: row["state"] for row in json.loads(out)}

    def record(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / name / "cluster.json").read_text())
        return found


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    found = Box(tmp_path)
    yield found
    found.command("down", "--all")


def _inhabitants(pid_namespace: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str((entry / "ns" / "pid").readlink()) == pid_namespace:
                    found.append(int(entry.name))
    return found


def _within(accept: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not accept():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.01)
    return True


def _open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


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
def test_up_and_down_leave_nothing(tmp_path: Path, ordinary: bool) -> None:
    with contextlib.ExitStack() as after:
        if ordinary:
            # The parents of tmp_path are closed to other users.
            tmp_path = Path("/tmp") / f"pgo-ordinary-{os.getpid()}"
            tmp_path.mkdir(mode=0o755)
            after.callback(shutil.rmtree, tmp_path)
        box = Box(tmp_path, ordinary=ordinary)
        after.callback(box.command, "down", "--all")
        ready = box.up("standin_bare", "--name", "one")
        assert box.status() == {"one": "running"}
        assert len(_inhabitants(ready["pid_namespace"])) == 3
        assert _open(ready["door"])
        assert ready["shared_mounts"] == 0
        assert ready["run"] == ["netns"]
        assert ready["secret"] is None
        assert (box.root / "one").stat().st_mode & 0o777 == 0o700
        assert box.command("down", "--name", "one") == (0, "cluster 'one' is removed", "")
        assert _inhabitants(ready["pid_namespace"]) == []
        assert not _open(ready["door"])
        assert list(box.root.iterdir()) == []
        assert box.status() == {}


def test_children_inherit_no_descriptor(box: Box) -> None:
    files = box.up("standin_bare")["child_files"]
    log = str(box.root / "local" / "supervisor.log")
    assert files == [log, "pipe", "pipe"]


def test_several_side_by_side(box: Box) -> None:
    ready = {name: box.up("standin_bare", "--name", name) for name in ("a", "b")}
    elsewhere = box.up("standin_bare", "--state-dir", str(box.home / "Else where"))
    assert elsewhere["name"] == "else-where"
    assert box.status() == {"a": "running", "b": "running", "else-where": "running"}
    assert box.command("down", "--name", "a")[0] == 0
    assert _open(ready["b"]["door"])
    assert not _open(ready["a"]["door"])
    assert box.command("down", "--all")[0] == 0
    assert box.status() == {}
    assert not (box.home / "Else where").exists()
    assert list(box.root.iterdir()) == []


def test_a_second_start_in_the_same_place_is_refused_and_harms_nothing(box: Box) -> None:
    ready = box.up("standin_bare", "--name", "one")
    code, complaint = box.fails("standin_bare", "--name", "one")
    assert code == 4
    assert "in use by 'one'" in complaint
    assert "\n" not in complaint
    code, complaint = box.fails(
        "standin_bare", "--name", "one", "--state-dir", str(box.home / "other")
    )
    assert code == 4
    assert "is taken by the cluster in" in complaint
    assert not (box.home / "other").exists()
    assert _open(ready["door"])
    assert box.status() == {"one": "running"}


@pytest.mark.parametrize("victim", ["supervisor", "process 1", "unshare"])
def test_a_killed_supervisor_takes_everything_with_it(box: Box, victim: str) -> None:
    ready = box.up("standin_bare", "--name", "one")
    inhabitants = sorted(_inhabitants(ready["pid_namespace"]))
    pid = {
        "supervisor": inhabitants[1],
        "process 1": inhabitants[0],
        "unshare": box.record("one")["pid"],
    }[victim]
    os.kill(pid, signal.SIGKILL)
    assert _within(lambda: not _inhabitants(ready["pid_namespace"]))
    assert _within(lambda: box.status() == {"one": "dead"})
    assert "down --name one" in box.command("status")[1]
    assert not _open(ready["door"])
    assert box.command("down")[0] == 4
    assert box.command("down", "--name", "one") == (0, "cluster 'one' is removed", "")
    assert list(box.root.iterdir()) == []


def test_a_start_clears_away_a_dead_one(box: Box) -> None:
    ready = box.up("standin_bare", "--name", "one")
    os.kill(box.record("one")["pid"], signal.SIGKILL)
    assert _within(lambda: box.status() == {"one": "dead"})
    again = box.up("standin_bare", "--name", "one")
    assert again["pid_namespace"] != ready["pid_namespace"]
    assert box.status() == {"one": "running"}


def test_the_cluster_goes_with_its_owner(box: Box) -> None:
    with subprocess.Popen(["sleep", "1000"]) as owner:
        ready = box.up("standin_bare", "--owner-pid", str(owner.pid))
        assert box.status() == {"local": "running"}
        owner.kill()
    assert _within(lambda: not _inhabitants(ready["pid_namespace"]))
    assert _within(lambda: not list(box.root.iterdir()))


def test_the_cluster_goes_with_its_directory(box: Box) -> None:
    ready = box.up("standin_bare", "--state-dir", str(box.home / "place"))
    (box.home / "place" / "volumes" / "closed").chmod(0o700)
    shutil.rmtree(box.home / "place")
    assert _within(lambda: not _inhabitants(ready["pid_namespace"]))
    assert box.status() == {}
    assert list(box.root.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_start_leaves_nothing(box: Box, how: signal.Signals) -> None:
    with box.start("standin_slow") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        unshare = box.record("local")["pid"]
        process.send_signal(how)
        _, complaint = process.communicate(timeout=60)
    if how is not signal.SIGKILL:
        assert process.returncode == 130
        assert "interrupted" in complaint
    assert _within(lambda: not list(box.root.iterdir()))
    assert _within(lambda: _gone(unshare))


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_failed_start_says_why_and_leaves_nothing(box: Box) -> None:
    code, complaint = box.fails("standin_broken")
    assert code == 1
    assert "the widget did not come up" in complaint
    assert list(box.root.iterdir()) == []


def test_a_cluster_that_does_not_stop_is_ended(box: Box) -> None:
    ready = box.up("standin_stubborn")
    assert box.command("down")[0] == 0
    assert _inhabitants(ready["pid_namespace"]) == []
    assert list(box.root.iterdir()) == []


def test_a_part_that_ends_by_itself_ends_the_cluster_and_says_so(box: Box) -> None:
    ready = box.up("standin_fragile")
    os.kill(sorted(_inhabitants(ready["pid_namespace"]))[1], signal.SIGUSR1)
    assert _within(lambda: box.status() == {"local": "dead"})
    assert _inhabitants(ready["pid_namespace"]) == []
    assert "OSError: the part broke" in (box.root / "local" / "supervisor.log").read_text()


def test_a_foreign_directory_is_left_alone(box: Box) -> None:
    foreign = box.home / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years")
    code, complaint = box.fails("standin_bare", "--state-dir", str(foreign))
    assert code == 4
    assert "no stand-in cluster made it" in complaint
    assert box.command("down", "--state-dir", str(foreign))[0] == 4
    assert (foreign / "thesis.txt").read_text() == "years"


def test_links_in_a_state_directory_are_not_followed(box: Box) -> None:
    ready = box.up("standin_bare")
    precious = box.home / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (Path(ready["state_dir"]) / "volumes" / "link").symlink_to(precious)
    assert box.command("down")[0] == 0
    assert (precious / "file").read_text() == "x"
