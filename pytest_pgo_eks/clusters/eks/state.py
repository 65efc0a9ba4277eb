"""What this machine remembers of a run: written before AWS is asked to create anything.

One JSON file per run below ``eks/`` of the state folder. AWS's stacks are the ledger of what exists;
this file is how a later start finds the run, and how its cost is known.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pytest_pgo_eks.clusters.base import state_root
from pytest_pgo_eks.clusters.eks.names import Names, moment, stamp
from pytest_pgo_eks.clusters.eks.prices import Span
from pytest_pgo_eks.errors import ClusterProblem
from pytest_pgo_eks.settings import Settings


@dataclass(frozen=True)
class Attempt:
    """One time that a stack was asked for. ``asked`` is set before the call, ``id`` after it.

    ``type`` is the instance type, of the nodes' stack only. The moments are stamps (UTC).
    """

    layer: str
    asked: str
    token: str
    id: str | None = None
    type: str | None = None
    gone: str | None = None


@dataclass(frozen=True)
class RunState:
    """A run on EKS, as far as this machine knows.

    ``choice`` is what the preflight decided, ``shape`` how many nodes and gateways there are.
    """

    run: str
    region: str
    account: str
    expires: str
    tags: dict[str, str]
    choice: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, int] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    estimate_usd: float | None = None
    removing: bool = False
    removed: str | None = None

    @property
    def names(self) -> Names:
        return Names(self.run)

    def latest(self, layer: str) -> Attempt | None:
        """Return the last time that a layer was asked for."""
        found = [each for each in self.attempts if each.layer == layer]
        return found[-1] if found else None

    def asked(self, attempt: Attempt) -> Self:
        return replace(self, attempts=(*self.attempts, attempt))

    def noted(self, layer: str, **facts: str | None) -> Self:
        """Return the state with facts added to a layer's last attempt."""
        latest = self.latest(layer)
        if latest is None:
            return self
        new = replace(latest, **facts)  # type: ignore[arg-type]
        return replace(
            self, attempts=tuple(new if each is latest else each for each in self.attempts)
        )

    def spans(self, nodes: int, gateways: int) -> list[Span]:
        """Return what was there for how long; an attempt is counted from the call on."""
        found: list[Span] = []
        for each in self.attempts:
            began = moment(each.asked)
            if began is None:
                continue
            until: datetime | None = moment(each.gone or self.removed or "")
            if each.layer == "base":
                found.append(Span("control plane", 1, began, until))
                found.append(Span("network", gateways, began, until))
            elif each.layer == "nodes" and each.type:
                found.append(Span("nodes", nodes, began, until, each.type))
        return found


class StateFile:
    """The file of one run. Every change is on disk, whole, before :meth:`write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, settings: Settings, run: str) -> Self:
        return cls(folder(settings) / f"{run}.json")

    def read(self) -> RunState | None:
        """Return what is remembered, None where nothing is.

        :raises ClusterProblem: the file is damaged.
        """
        try:
            found = json.loads(self.path.read_text("utf-8"))
            attempts = tuple(Attempt(**each) for each in found.pop("attempts"))
            return RunState(**found, attempts=attempts)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ClusterProblem(
                f"{self.path} cannot be read ({error}); the run's things in AWS carry its tags: "
                "look for them with python -m pytest_pgo_eks.clusters.eks sweep --all"
            ) from error

    def write(self, state: RunState) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".tmp")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(state), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def folder(settings: Settings) -> Path:
    """Return where runs on EKS are remembered."""
    return state_root(settings).absolute() / "eks"


def first_state(
    names: Names, region: str, account: str, expires: datetime, tags: dict[str, str]
) -> RunState:
    return RunState(names.run, region, account, stamp(expires), dict(tags))
