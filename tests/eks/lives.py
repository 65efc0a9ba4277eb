"""The life of a run on the fake AWS, for tests to cut short wherever they like."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from fakes.aws import FakeAws, World

from pytest_pgo_eks.clusters.eks.belongings import Thing
from pytest_pgo_eks.clusters.eks.building import Building
from pytest_pgo_eks.clusters.eks.calls import Aws
from pytest_pgo_eks.clusters.eks.names import Names
from pytest_pgo_eks.clusters.eks.preflight import Preflight
from pytest_pgo_eks.clusters.eks.removal import Removal
from pytest_pgo_eks.clusters.eks.state import StateFile
from pytest_pgo_eks.clusters.eks.templates import Choice
from pytest_pgo_eks.clusters.eks.wanted import Wanted, wanted
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.settings_eks import EksSettings

RUN = "night"
ADDRESS = "203.0.113.7"


@functools.cache
def _fake() -> FakeAws:
    return FakeAws()


def fake_aws() -> FakeAws:
    """Return the process's fake AWS with a new world in it."""
    return _fake().fresh()


def settings(**eks: Any) -> Settings:
    return Settings("eks", eks=EksSettings(**eks))


class QuietPhase:
    def __init__(self, said: list[str]) -> None:
        self._said = said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, detail: str) -> None:
        self._said.append(detail)


class Told(Progress):
    """Keeps what is said, and starts no thread: a matrix of lives would start thousands."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.details: list[str] = []
        super().__init__(self.lines.append)

    def phase(self, title: str, expected_s: float | None = None) -> Any:
        del title, expected_s
        return QuietPhase(self.details)


class Life:
    """One run: a world, the client's disk, and what a client does with them."""

    def __init__(self, fake: FakeAws, disk: Path, **eks: Any) -> None:
        self.fake = fake
        self.names = Names(eks.pop("run", RUN))
        self.wanted: Wanted = wanted(settings(**eks))
        self.file = StateFile(disk / f"{self.names.run}.json")
        self.told = Told()

    @property
    def world(self) -> World:
        return self.fake.world

    def aws(self) -> Aws:
        return Aws(self.fake.clients, "us-east-1", self.world.clock)

    def choice(self) -> Choice:
        return Preflight(self.aws(), self.wanted, self.names, lambda: ADDRESS).choose()

    def build(self) -> Any:
        return Building(self.aws(), self.names, self.file, self.told).build(
            self.wanted, self.choice()
        )

    def remove(self) -> list[Thing]:
        return Removal(self.aws(), self.names, self.told, file=self.file).remove()

    def wants(self, **changes: Any) -> None:
        self.wanted = replace(self.wanted, **changes)


def remains(world: World) -> list[str]:
    """Return what is in the world but for the memory of deleted stacks."""
    return [each for each in world.everything() if not each.startswith("gone-stack ")]
