"""Registers what a run with a cluster needs, differently in the controller and in xdist workers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_pgo_eks.clusters.base import Provider
from pytest_pgo_eks.clusters.known import providers
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.gherkin.selection import Selection
from pytest_pgo_eks.secrets import register_environment
from pytest_pgo_eks.session import versions
from pytest_pgo_eks.session.console import Console, worker_progress
from pytest_pgo_eks.session.evidence import Witness
from pytest_pgo_eks.session.gate import Gate
from pytest_pgo_eks.session.lifecycle import PROGRESS_FILE, Controller
from pytest_pgo_eks.session.operators import record_of
from pytest_pgo_eks.session.run import RUN, Run, open_ledger, run_directory
from pytest_pgo_eks.session.subject import Subject
from pytest_pgo_eks.settings import Settings


def wire(config: pytest.Config, settings: Settings, added: Iterable[Provider]) -> None:
    """Prepare ``config`` for a run on ``settings.provider``; create no more than its folders.

    :raises UsageProblem: the report or state directory cannot be written to, or a version is broken.
    """
    register_environment(os.environ)
    versions.refuse_broken()
    known = providers(added)
    manager = config.pluginmanager
    selection = Selection(settings, known[settings.provider].never)
    manager.register(selection, "pgo-selection")
    if config.option.collectonly or config.option.pgo_steps:
        return
    workerinput = getattr(config, "workerinput", None)
    if workerinput is not None:
        place = workerinput["pgo"]
        run_dir, ledger = Path(place["run_dir"]), Path(place["ledger"])
        progress = worker_progress(
            Path(place["run_dir"]) / ".session" / PROGRESS_FILE, workerinput["workerid"]
        )
        run = Run(settings, known, run_dir, ledger, progress, config.hook)
    else:
        gate = Gate(config, settings.gate, settings.provider) if settings.gate else None
        run_dir = run_directory(settings)
        ledger = open_ledger(settings, run_dir)
        console = Console(run_dir / "run.log")
        run = Run(settings, known, run_dir, ledger, console.progress(), config.hook)
        parallel = getattr(config.option, "dist", "no") != "no"
        manager.register(Controller(run, console, parallel=parallel, gate=gate), "pgo-controller")
    config.stash[RUN] = run
    manager.register(Subject(run.shared, record_of(ledger)), "pgo-subject")
    manager.register(Witness(run, worker=workerinput is not None), "pgo-witness")
    if getattr(config.option, "allure_report_dir", None):
        _bridge_to_allure(config, run_dir)


def _bridge_to_allure(config: pytest.Config, run_dir: Path) -> None:
    manager = config.pluginmanager
    if manager.hasplugin("allure_pytest_bdd"):
        raise UsageProblem(
            "--alluredir: allure-pytest-bdd loses skipped scenarios and shows what fixtures hold; "
            "install allure-pytest in its place (pip uninstall allure-pytest-bdd)"
        )
    from pytest_pgo_eks.session.allure_bridge import AllureBridge

    manager.register(AllureBridge(run_dir), "pgo-allure")
