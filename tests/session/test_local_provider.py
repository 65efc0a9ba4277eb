"""The stand-in as a program: what it says becomes progress, a handle, or one line of complaint."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pgo_eks.clusters import local
from pytest_pgo_eks.clusters.base import LedgerEntry
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.progress import silent
from pytest_pgo_eks.settings import Settings

SETTINGS = Settings("local")
Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Put a program of a few lines in the stand-in's place; it notes how it was called."""

    def put(code: str) -> Path:
        path = tmp_path / "program.py"
        head = "import json, sys\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
        head += "(HERE / 'called').open('a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
        path.write_text(head + textwrap.dedent(code), "utf-8")
        monkeypatch.setattr(local, "PROGRAM", (sys.executable, str(path)))
        return tmp_path

    return put


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.json"
    LedgerEntry("local", 4711).write(path)
    return path


def calls(place: Path) -> list[list[str]]:
    return [json.loads(line) for line in (place / "called").read_text("utf-8").splitlines()]


READY = """
    print("nodes: 0.1 s")
    print(json.dumps({
        "name": sys.argv[sys.argv.index("--name") + 1], "state_dir": str(HERE / "state"),
        "kubeconfig": str(HERE / "kubeconfig"), "kubernetes_version": "v1.34.0+stand-in",
        "operator_version": "6.0-stand-in", "capabilities": ["zones"],
    }))
"""


def test_the_json_line_becomes_the_handle(program: Program, entry: Path) -> None:
    place = program(READY)
    handle = local.LocalProvider().create(Settings("local", postgres_version=15), silent(), entry)
    assert handle.kubeconfig == place / "kubeconfig"
    assert handle.capabilities == {"zones"}
    assert handle.stand_in
    assert handle.hints[0].startswith(f"kubectl --kubeconfig {place}/kubeconfig")
    assert handle.hints[-1].endswith(f"down --name {handle.name}")
    (call,) = calls(place)
    assert call[:4] == ["up", "--name", handle.name, "--json"]
    assert call[4:] == ["--owner-pid", "4711", "--postgres-version", "15"]


def test_what_is_to_be_kept_has_no_owner(program: Program, entry: Path) -> None:
    place = program(READY)
    local.LocalProvider().create(Settings("local", keep=True), silent(), entry)
    assert "--owner-pid" not in calls(place)[0]


def test_the_ledger_knows_the_name_before_the_program_starts(program: Program, entry: Path) -> None:
    program("(HERE / 'seen').write_text((HERE / 'ledger.json').read_text())\nsys.exit(1)")
    with pytest.raises(ClusterProblem):
        local.LocalProvider().create(SETTINGS, silent(), entry)
    seen = LedgerEntry(**json.loads((entry.parent / "seen").read_text("utf-8")))
    assert seen.name.startswith("run-4711-")
    assert seen.remove.endswith(f"down --name {seen.name}")


def test_a_complaint_about_the_input_is_one_line_of_usage(program: Program, entry: Path) -> None:
    program("print('bwrap is missing: apt-get install bubblewrap', file=sys.stderr); sys.exit(4)")
    provider = local.LocalProvider()
    with pytest.raises(UsageProblem, match=r"^bwrap is missing: apt-get install bubblewrap$"):
        provider.preflight(SETTINGS)
    with pytest.raises(UsageProblem, match=r"^bwrap is missing"):
        provider.create(SETTINGS, silent(), entry)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "print('it broke\\n  the end of its log', file=sys.stderr); sys.exit(1)",
            "end of its log",
        ),
        ("print('half a')", "no word"),
        ("import os; os.kill(os.getpid(), 9)", "status -9"),
    ],
)
def test_a_program_that_breaks_is_a_cluster_problem(
    program: Program, entry: Path, code: str, message: str
) -> None:
    program(code)
    with pytest.raises(ClusterProblem, match=message):
        local.LocalProvider().create(SETTINGS, silent(), entry)


class TestReuse:
    STATUS = """
        print(json.dumps([
            {"name": "mine", "state": "running", "state_dir": str(HERE / "mine")},
            {"name": "dead", "state": "dead", "state_dir": str(HERE / "dead")},
        ]))
    """

    def test_a_running_cluster_is_adopted(self, program: Program) -> None:
        place = program(self.STATUS)
        (place / "mine").mkdir()
        ready = {
            "name": "mine",
            "state_dir": str(place / "mine"),
            "kubeconfig": str(place / "mine" / "kubeconfig"),
            "capabilities": [],
        }
        (place / "mine" / "ready.json").write_text(json.dumps(ready), "utf-8")
        handle = local.LocalProvider().adopt(Settings("local", reuse="mine"), silent())
        assert handle.name == "mine"

    @pytest.mark.parametrize("name", ["dead", "other"])
    def test_any_other_is_refused_with_those_that_run(self, program: Program, name: str) -> None:
        program(self.STATUS)
        with pytest.raises(UsageProblem, match=f"no stand-in cluster '{name}'.*are: mine$"):
            local.LocalProvider().adopt(Settings("local", reuse=name), silent())


class TestSweep:
    def entry(self) -> LedgerEntry:
        return LedgerEntry("local", 1, name="ruin", remove=local._removal("ruin"))

    def test_what_removed_itself_is_absent(self, program: Program) -> None:
        place = program("print('[]')")
        assert local.LocalProvider().sweep(self.entry(), silent()) == "absent"
        assert calls(place) == [["status", "--json"]]

    def test_what_is_there_is_removed(self, program: Program) -> None:
        place = program("print(json.dumps([{'name': 'ruin', 'state': 'dead'}]))")
        assert local.LocalProvider().sweep(self.entry(), silent()) == "removed"
        assert calls(place)[-1] == ["down", "--name", "ruin"]

    def test_what_will_not_go_is_left(self, program: Program) -> None:
        program(
            "print(json.dumps([{'name': 'ruin', 'state': 'dead'}]))\nsys.exit('down' in sys.argv)"
        )
        assert local.LocalProvider().sweep(self.entry(), silent()) == "left"


def test_other_systems_are_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UsageProblem, match=r"needs Linux.*kind, k3s, kubeconfig or eks"):
        local.LocalProvider().preflight(SETTINGS)
