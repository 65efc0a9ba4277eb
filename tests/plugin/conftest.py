"""The ``project`` that the plugin's tests run pytest on."""

from __future__ import annotations

import importlib
import os
import pkgutil

import pytest

from pytest_pgo_eks import session, steps

from .castles import Project

# Runs in this process forget what they imported, and NumPy cannot be imported twice; what is
# imported here already is not read again.
for package in (session, steps):
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in [name for name in os.environ if name.startswith(("PGO_", "PYTEST_XDIST"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    return Project(pytester)
