"""Earlier runs beside this one, for comparison: same report directory, same provider."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.document import FILE
from pytest_pgo_eks.report.reading import load

RUNS = 6
"""How many are compared."""
# A report directory may hold years of nightly runs; this many folders are looked into at most.
_LOOKED_AT = 30


def earlier_runs(
    document: Mapping[str, Any], run_dir: Path, most: int = RUNS
) -> list[dict[str, Any]]:
    """Return the documents of up to ``most`` runs before this one, newest first.

    The names of the folders decide what was before, not clocks: they are given out in order. What
    cannot be read is left out, as another run's trouble.
    """
    name = document["run"] or run_dir.resolve().name
    found: list[dict[str, Any]] = []
    try:
        folders = sorted(
            (
                path
                for path in run_dir.resolve().parent.iterdir()
                if path.name < name and not path.is_symlink() and (path / FILE).is_file()
            ),
            reverse=True,
        )
    except OSError:
        return []
    for folder in folders[:_LOOKED_AT]:
        try:
            other = _kept(folder / FILE, (folder / FILE).stat().st_mtime_ns)
        except OSError:
            continue  # removed meanwhile
        if other is None:
            continue
        if other["subject"]["provider"] == document["subject"]["provider"]:
            found.append(other)
        if len(found) == most:
            break
    return found


@lru_cache(maxsize=RUNS + 2)
def _kept(file: Path, changed_ns: int) -> dict[str, Any] | None:
    """Read a document once for all views; ``changed_ns`` makes a rewritten one another one."""
    del changed_ns
    try:
        return load(file)
    except UsageProblem:
        return None
