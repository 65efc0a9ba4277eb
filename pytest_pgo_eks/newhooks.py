"""Hooks with which a user's conftest or plugin extends the harness.

Implement them in an initial ``conftest.py`` (beside the features or in the root directory). Mark
them ``@pytest.hookimpl(optionalhook=True)`` where the conftest must also load without this plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_pgo_eks.clusters.base import ClusterHandle, Provider
    from pytest_pgo_eks.faults.bench import Fault
    from pytest_pgo_eks.pgo import PostgresCluster
    from pytest_pgo_eks.progress import Progress
    from pytest_pgo_eks.settings import Settings


def pytest_pgo_providers() -> Sequence[Provider]:
    """Return further providers of Kubernetes clusters; each becomes a value of ``--cluster``.

    One that bears the name of a built-in provider replaces it. Called once per process, at
    configuration, so it must be cheap and create nothing.
    """
    raise NotImplementedError


@pytest.hookspec(firstresult=True)
def pytest_pgo_operator(
    cluster: ClusterHandle, settings: Settings, progress: Progress, first: bool
) -> object:
    """Make sure that the operator runs on ``cluster``; return what ``pgo_operator`` shall be.

    ``first`` is True in exactly one process of the run and False in those that follow it, once the
    first has succeeded: they only connect. The first answer that is not None wins; the built-in one
    comes last.
    """
    raise NotImplementedError


@pytest.hookspec(firstresult=True)
def pytest_pgo_postgres(
    cluster: ClusterHandle, operator: object, settings: Settings, progress: Progress, first: bool
) -> object:
    """Make sure that the PostgresCluster under test is ready; return what ``pgo_postgres`` shall be.

    ``first`` as in :func:`pytest_pgo_operator`.
    """
    raise NotImplementedError


@pytest.hookspec(firstresult=True)
def pytest_pgo_prove_healthy(postgres: object, settings: Settings, before: object | None) -> object:
    """Prove that the cluster under test is healthy, or raise.

    Called around every ``@disruptive`` scenario: first with ``before`` None, where the answer
    describes the identity of what is there (never None), then with that answer, to compare. Raise
    :class:`~pytest_pgo_eks.errors.Violation` for a broken promise (another system identifier) and
    :class:`~pytest_pgo_eks.errors.Inconclusive` for everything that could not be seen.
    """
    raise NotImplementedError


def pytest_pgo_faults() -> Mapping[str, Callable[[PostgresCluster], Fault]]:
    """Return further faults by name, for the sentence ``When the fault "NAME" is injected``.

    Each is a function that is given the PostgresCluster under test and returns a
    :class:`~pytest_pgo_eks.faults.bench.Fault`: inject, prove, undo.
    """
    raise NotImplementedError


def pytest_pgo_diagnostics(
    cluster: ClusterHandle, settings: Settings, folder: Path, error: BaseException
) -> None:
    """Write into ``folder`` what explains ``error``.

    Called before anything is torn down, for every scenario that failed, every creation that failed,
    in the process where it happened. Whatever an implementation raises is noted beside the others'
    files and changes no verdict.
    """
    raise NotImplementedError


def pytest_pgo_report(verdict: Mapping[str, Any], run_dir: Path, settings: Settings) -> None:
    """Report on the finished run.

    Called once, in the controller, when ``verdict.json`` is written: ``verdict`` is its content.
    """
    raise NotImplementedError
