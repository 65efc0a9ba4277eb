"""Finds the data that belongs to the package: ``features/`` and ``fixtures/``.

In a checkout the folders beside the package are used live; in an installed wheel they travel under
``pytest_pgo_eks/_shipped``, a name that is no module's.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def features() -> Path:
    """Return the folder of the conformance suite."""
    return _find("features")


def fixtures() -> Path:
    """Return the folder of what the session fixtures apply."""
    return _find("fixtures")


def _find(name: str) -> Path:
    packed = _PACKAGE / "_shipped" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name
