"""The ``project`` that the plugin's tests run pytest on."""

from __future__ import annotations

import os

import pytest

# Runs in this process forget what they imported; what is imported here already is not read again.
import pytest_pgo_eks.session.wiring  # noqa: F401

from .castles import Project


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in [name for name in os.environ if name.startswith(("PGO_", "PYTEST_XDIST"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    return Project(pytester)
