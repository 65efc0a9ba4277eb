"""Rules of the house that a reviewer would otherwise have to remember."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pytest_pgo_eks"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = Path(sysconfig.get_path("scripts"))

# Waiting for an event is done by what knows the deadline; these modules are that, or stand for time
# itself (a load's pace, a heartbeat's period, a restart's delay).
MAY_SLEEP = {
    "kube/wait.py",
    "kube/transport.py",
    "probe/agent",
    "local",
}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def test_imports_point_downwards() -> None:
    done = subprocess.run(
        [SCRIPTS / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_modules_have_a_size_that_fits_a_head() -> None:
    """Aim at 400 lines; the limit leaves room to finish a thought."""
    lines = {relative(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert not {name: count for name, count in lines.items() if count > 450}


def test_modules_are_named_after_what_they_do() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert not [relative(path) for path in MODULES if {*path.with_suffix("").parts} & vague]


def comparisons_returned(module: ast.Module) -> Iterator[ast.Return]:
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef) or not any(
            isinstance(d, ast.Call)
            and getattr(d.func, "id", "") in {"given", "when", "then", "step"}
            for d in function.decorator_list
        ):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and isinstance(
                node.value, ast.Compare | ast.BoolOp | ast.UnaryOp
            ):
                yield node


def test_a_step_asserts_and_never_returns_a_comparison() -> None:
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in sorted((PACKAGE / "steps").glob("*.py"))
        for node in comparisons_returned(tree(path))
    ]
    assert not found, "pytest-bdd ignores what a step returns: such a check cannot fail"


def test_the_rule_on_comparisons_finds_one() -> None:
    (found,) = comparisons_returned(
        ast.parse("@then('x')\ndef _(a):\n    return a == 1\n\ndef other(a):\n    return a == 1\n")
    )
    assert found.lineno == 3


def sleeps(module: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "sleep"
            and getattr(node.func.value, "id", "") in {"time", "asyncio"}
        ):
            yield node


def test_nobody_sleeps_for_synchronisation() -> None:
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in MODULES
        if not relative(path).startswith(tuple(MAY_SLEEP))
        for node in sleeps(tree(path))
    ]
    assert not found, "use eventually or holds (kube/wait.py)"


def test_the_rule_on_sleep_finds_one() -> None:
    assert (
        len(list(sleeps(ast.parse("import time\ntime.sleep(1)\nasyncio.sleep(2)\nx.sleep()")))) == 2
    )


def test_nothing_is_left_for_later() -> None:
    # Put together, so that this line does not find itself.
    marks = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
    tests = sorted((ROOT / "tests").rglob("*.py"))
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*MODULES, *tests]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if marks.search(line)
    ]
    assert not found


def test_every_feature_is_audited_and_carries_an_area() -> None:
    features = sorted((ROOT / "features").rglob("*.feature"))
    assert features
    untagged = [
        path.relative_to(ROOT).as_posix()
        for path in features
        if f"@{path.parent.name}" not in path.read_text("utf-8").split("Feature:")[0].split()
    ]
    assert not untagged, "a feature carries the tag of the folder that it lies in"
    # As where only the conformance suite is installed, without what its harness is tested with.
    without = ("-p", "no:timeout", "-p", "no:hypothesispytest")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *without, "--collect-only", "-q", "features"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_types_are_right() -> None:
    """Incremental: seconds when little changed, about a minute in a fresh checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_style_is_right() -> None:
    for command in (
        ["check", "--quiet", "--output-format=concise"],
        ["format", "--check", "--quiet"],
    ):
        done = subprocess.run(
            [SCRIPTS / "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
