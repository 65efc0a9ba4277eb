"""The wheel carries the suite, and an empty directory is enough to run it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("dist")
    # What pip does with the build system's back end, without a network or an isolated environment.
    code = f"import hatchling.build; hatchling.build.build_wheel({str(place)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (found,) = place.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel installed, and what it depends on by a path of its own."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    site = home / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Everything but this checkout: its own .pth file and metadata would win over the wheel's.
    here = Path(sysconfig.get_path("purelib"))
    others = home / "others"
    others.mkdir()
    for entry in here.iterdir():
        if not entry.name.startswith(("pytest_pgo_eks", "__pycache__")) and entry.suffix != ".pth":
            (others / entry.name).symlink_to(entry)
    (site / "others.pth").write_text(f"{others}\n", "utf-8")
    return home / "bin" / "python"


def run(python: Path, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PGO_"))}
    return subprocess.run(
        [python, "-m", "pytest", *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_features_and_fixtures_travel_under_a_name_of_their_own(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in ("features", "fixtures"):
        there = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert there
        assert {f"pytest_pgo_eks/_shipped/{name}" for name in there} <= names
    assert "pytest_pgo_eks/py.typed" in names
    assert not {name for name in names if name.startswith(("features", "fixtures", "tests"))}


def test_an_empty_directory_collects_the_shipped_suite(python: Path, tmp_path: Path) -> None:
    done = run(python, tmp_path, "--cluster=local", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deployment/" in done.stdout
    assert str(ROOT) not in done.stdout
    here = run(Path(sys.executable), ROOT, "--collect-only", "-q", "--pgo-level=3", "features")
    ours = {line for line in here.stdout.splitlines() if ".feature::" in line}
    theirs = {line for line in done.stdout.splitlines() if ".feature::" in line}
    assert theirs
    assert theirs <= ours, "node ids are the same as in a checkout"
    again = run(python, tmp_path, "--cluster=local", "--collect-only", "-q", min(theirs))
    assert min(theirs) in again.stdout.splitlines(), again.stdout + again.stderr
    assert not list(tmp_path.glob("reports/*"))


def test_a_part_of_the_suite_is_named_as_in_a_checkout(python: Path, tmp_path: Path) -> None:
    for name in ("features/deployment", "deployment"):
        done = run(python, tmp_path, "--cluster=local", "--collect-only", "-q", name)
        found = [line for line in done.stdout.splitlines() if ".feature::" in line]
        assert found, done.stdout + done.stderr
        assert all("deployment" in line for line in found)


def test_a_bare_run_of_another_project_sees_no_change(python: Path, tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n", "utf-8")
    (tmp_path / "own.feature").write_text("Feature: Own\n", "utf-8")
    done = run(python, tmp_path, "-q")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
