"""Putting an operator on a cluster and taking it away again: from where, with what, and exactly that."""

from __future__ import annotations

from pytest_pgo_eks.pgo.install.installing import Installed, install, uninstall
from pytest_pgo_eks.pgo.install.overrides import Overrides, adjusted, overrides_of
from pytest_pgo_eks.pgo.install.rendering import render, render_checked
from pytest_pgo_eks.pgo.install.sources import ALREADY, Source, source_of

__all__ = [
    "ALREADY",
    "Installed",
    "Overrides",
    "Source",
    "adjusted",
    "install",
    "overrides_of",
    "render",
    "render_checked",
    "source_of",
    "uninstall",
]
