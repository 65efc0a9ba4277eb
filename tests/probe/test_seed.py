"""The agent's random choices follow from the seed that the run's settings name."""

from __future__ import annotations

from pathlib import Path

from pytest_pgo_eks.probe.agent.main import Agent


def plans(folder: Path, settings: dict[str, object]) -> list[object]:
    folder.mkdir()
    agent = Agent(folder, {"run": "r", "settings": settings})
    try:
        return [agent.shared.lists.plan(number) for number in range(1, 200)]
    finally:
        agent.spool.close()


def test_the_same_seed_makes_the_same_choices(tmp_path: Path) -> None:
    one, again, other = (
        plans(tmp_path / name, {"seed": seed}) for name, seed in (("a", 7), ("b", 7), ("c", 8))
    )
    assert one == again
    assert one != other


def test_without_a_seed_nobody_can_tell(tmp_path: Path) -> None:
    assert plans(tmp_path / "a", {}) != plans(tmp_path / "b", {})
