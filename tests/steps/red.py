"""For every Then-step: how it is called, what a healthy world shows it, and what must turn it red."""

from __future__ import annotations

from steps import red_diagnosis, red_eks, red_moving, red_standing, red_upgrade
from steps.spoiling import Case

CASES: tuple[Case, ...] = (
    *red_standing.CASES,
    *red_moving.CASES,
    *red_eks.CASES,
    *red_upgrade.CASES,
    *red_diagnosis.CASES,
)
MEASURED: tuple[Case, ...] = (*red_moving.MEASURED, *red_upgrade.MEASURED)

__all__ = ["CASES", "MEASURED", "Case"]
