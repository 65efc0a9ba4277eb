"""The bench on which a scenario injects its faults: proof at once, undo always."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pytest_pgo_eks.errors import FaultNotProven, PgoEksError
from pytest_pgo_eks.findings import Number


@dataclass(frozen=True)
class Proof:
    """The effect that shows a fault happened: a sentence and the figures in it."""

    sentence: str
    numbers: Mapping[str, Number] = field(default_factory=dict)


class Fault(Protocol):
    """What the bench can inject. ``kind`` is for machines, ``target`` names what it hits.

    ``inject`` does it, ``prove`` waits for its effect and raises :class:`FaultNotProven` without
    one, ``undo`` takes it back; undo is called exactly once, also after a failed inject, and must
    then do what is left to do.
    """

    @property
    def kind(self) -> str: ...
    @property
    def target(self) -> str: ...
    def inject(self) -> None: ...
    def prove(self) -> Proof: ...
    def undo(self) -> None: ...


@dataclass(frozen=True)
class Injected:
    """A proven fault; the times are of this process's monotonic clock, in seconds."""

    kind: str
    target: str
    proof: Proof
    began: float
    injected: float
    proven: float


class Bench:
    """Injects faults one by one and undoes them in reverse order.

    ``mark`` is told the name of every moment that a timeline wants to show (``fault: kind``,
    ``undone: kind``) right before and after it; the probe stamps it with its own clock.
    """

    def __init__(
        self,
        record: Callable[[Injected], None] = lambda _injected: None,
        mark: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self.injected: list[Injected] = []
        self.mark = mark
        self._record = record
        self._undo: list[Fault] = []

    @property
    def standing(self) -> tuple[Fault, ...]:
        """The faults that are not undone yet, in the order of their injection."""
        return tuple(self._undo)

    def inject(self, fault: Fault) -> Injected:
        """Inject a fault and prove it.

        :raises FaultNotProven: no effect was seen; the fault is undone at the end all the same.
        """
        began = time.monotonic()
        self._undo.append(fault)
        self.mark(f"fault begins: {fault.kind} {fault.target}")
        fault.inject()
        injected = time.monotonic()
        self.mark(f"fault injected: {fault.kind} {fault.target}")
        try:
            proof = fault.prove()
        except TimeoutError as error:
            raise FaultNotProven(
                f"{fault.kind} of {fault.target} was injected but had no visible effect: {error}"
            ) from error
        done = Injected(fault.kind, fault.target, proof, began, injected, time.monotonic())
        self.injected.append(done)
        self._record(done)
        return done

    def undo(self, kind: str) -> None:
        """Undo the latest fault of this kind now, instead of at the end."""
        for index in range(len(self._undo) - 1, -1, -1):
            if self._undo[index].kind == kind:
                fault = self._undo.pop(index)
                fault.undo()
                self.mark(f"fault undone: {fault.kind} {fault.target}")
                return
        raise LookupError(f"no fault of kind {kind!r} is injected")

    def undo_all(self) -> None:
        """Undo what is left, last first; every undo runs even if an earlier one fails.

        :raises PgoEksError: the first failure, when all undos were tried.
        """
        first: PgoEksError | None = None
        while self._undo:
            fault = self._undo.pop()
            try:
                fault.undo()
                self.mark(f"fault undone: {fault.kind} {fault.target}")
            except PgoEksError as error:
                first = first or error
        if first:
            raise first
