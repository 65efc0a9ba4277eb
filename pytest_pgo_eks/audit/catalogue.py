"""Every check by its identifier."""

from __future__ import annotations

import difflib

from pytest_pgo_eks.audit import control_plane, identity, network, pattern, workload
from pytest_pgo_eks.audit.result import Check
from pytest_pgo_eks.errors import UsageProblem

AUDIT: tuple[Check, ...] = tuple(
    sorted(
        (*control_plane.CHECKS, *identity.CHECKS, *network.CHECKS, *workload.CHECKS),
        key=lambda check: int(check.identifier[1:]),
    )
)
ROWS: tuple[Check, ...] = pattern.CHECKS


def named(title: str) -> Check:
    """Return the check with a title, as sentences of features name it.

    :raises UsageProblem: no check has it; the nearest titles are named.
    """
    known = {check.title: check for check in (*ROWS, *AUDIT)}
    if title in known:
        return known[title]
    near = difflib.get_close_matches(title, known, n=3)
    raise UsageProblem(f"no check is called {title!r}; near are: {', '.join(near) or 'none'}")
