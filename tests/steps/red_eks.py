"""Red cases of what AWS says: the rows of the pattern, and the audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from audit.sound import facts, sound

from pytest_pgo_eks.steps import eks
from steps.spoiling import Act, Case
from steps.world import World


def _told(world: World) -> dict[str, Any]:
    """Return what AWS says in this world, the same object each time."""
    if not hasattr(world, "aws"):
        world.aws = sound()  # type: ignore[attr-defined]
    said: dict[str, Any] = world.aws  # type: ignore[attr-defined]
    return said


def _case(step: Callable[..., Any], title: str, spoil: Callable[[dict[str, Any]], object]) -> Case:
    def call(world: World) -> object:
        return step(world.stage.evidence, facts(_told(world)), title)

    def change(world: World) -> object:
        return spoil(_told(world))

    act: Act = change
    return Case(step, call, act)


CASES: tuple[Case, ...] = (
    _case(
        eks.as_the_pattern_asks,
        "the nodes",
        lambda said: said["nodes"][0]["status"]["conditions"][0].update(status="False"),
    ),
    _case(
        eks.audit_finds,
        "volumes are encrypted",
        lambda said: said["volumes"][0].update(Encrypted=False),
    ),
)
