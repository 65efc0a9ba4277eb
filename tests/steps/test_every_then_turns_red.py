"""A Then-step that cannot fail is the worst bug there is: each is shown green, then red."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from pytest_bdd.steps import step_function_context_registry

import pytest_pgo_eks.steps
from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.report.verdict import classify
from steps.red import CASES, MEASURED, Case
from steps.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_broken_promise_turns_the_step_red(case: Case, world: World, tmp_path: Path) -> None:
    case.prepare(world)
    case.call(world)
    spoiled = World(tmp_path / "spoiled")
    case.prepare(spoiled)
    case.spoil(spoiled)
    with pytest.raises(Exception) as seen:
        case.call(spoiled)
    assert classify(seen.value, step="then", when="call") == "violation", seen.value


@pytest.mark.parametrize("case", MEASURED, ids=lambda case: case.name)
def test_what_could_not_be_measured_is_inconclusive(
    case: Case, world: World, tmp_path: Path
) -> None:
    case.prepare(world)
    case.call(world)
    spoiled = World(tmp_path / "spoiled")
    case.spoil(spoiled)
    with pytest.raises(Inconclusive):
        case.call(spoiled)


def test_every_then_step_is_in_the_list() -> None:
    shown = {case.name for case in (*CASES, *MEASURED)}
    assert shown == then_steps()


def then_steps() -> set[str]:
    """Return every shipped Then-step by module and function."""
    found = set()
    for module in pkgutil.iter_modules(pytest_pgo_eks.steps.__path__):
        loaded = importlib.import_module(f"pytest_pgo_eks.steps.{module.name}")
        for value in vars(loaded).values():
            # pytest-bdd leaves a fixture beside every decorated function.
            inner = getattr(value, "_get_wrapped_function", lambda value=value: value)()
            if not inspect.isfunction(inner):
                continue
            context = step_function_context_registry.get(inner)
            if context is not None and context.type == "then":
                found.add(f"{module.name}.{context.step_func.__name__}")
    assert len(found) > 50, "the registry was not found where pytest-bdd keeps it"
    return found


def test_no_step_returns_a_comparison() -> None:
    """A step that returns instead of asserting passes whatever it found."""
    import ast

    for module in pkgutil.iter_modules(pytest_pgo_eks.steps.__path__):
        source = inspect.getsource(importlib.import_module(f"pytest_pgo_eks.steps.{module.name}"))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Return) and node.value is not None:
                assert not isinstance(node.value, ast.Compare | ast.BoolOp), (
                    f"{module.name}, line {node.lineno} returns a comparison"
                )
