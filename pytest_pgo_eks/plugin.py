"""The pytest plugin: options, markers, wiring.

It is loaded into every pytest run of every environment that has the package, so it imports nothing
heavy and does nothing until features, a cluster or one of its fixtures are asked for.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_pgo_eks import fixtures, newhooks
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.settings import OPTIONS, PROVIDERS, Kind, Settings, resolve

if TYPE_CHECKING:
    from pytest_pgo_eks.clusters.base import Provider
    from pytest_pgo_eks.gherkin.collector import FeatureFile

SETTINGS = pytest.StashKey[Settings | None]()
# So that pyproject.toml may hold true, 2 and 1.5, and an ini file the same words.
_INI_TYPES: dict[Kind, Literal["string", "bool", "int", "float"]] = {
    "text": "string",
    "path": "string",
    "flag": "bool",
    "whole": "int",
    "number": "float",
}
_WORKERS_SAY = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    _refuse_two_adapters(pluginmanager)
    group = parser.getgroup("pgo", "conformance of PostgreSQL operators on Kubernetes (pgo)")
    for option in OPTIONS:
        given: dict[str, Any] = {"dest": option.ini, "default": None, "help": option.help}
        given |= {"action": "store_true"} if option.kind == "flag" else {"metavar": option.metavar}
        group.addoption(option.flag, **given)
        parser.addini(
            option.ini,
            f"default of {option.flag}: {option.help}",
            type=_INI_TYPES[option.kind],
            default=None,
        )
    group.addoption(
        "--pgo-steps",
        action="store_true",
        help="print every sentence that a scenario may use, with its meaning, and exit",
    )
    parser.addini(
        "pgo_features",
        "directories with .feature files of your own, relative to this file; 'shipped' stands for "
        "the suite that comes with the package",
        type="linelist",
        default=[],
    )


def _refuse_two_adapters(pluginmanager: pytest.PytestPluginManager) -> None:
    """Say in words what pytest could only say by a traceback: both define ``--alluredir``."""
    both = ("allure_pytest", "allure_pytest_bdd")
    if os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        return
    if any(map(pluginmanager.is_blocked, both)) or not all(map(find_spec, both)):
        return
    raise pytest.UsageError(
        "pgo: allure-pytest and allure-pytest-bdd are both installed, and pytest starts with neither: "
        "pip uninstall allure-pytest-bdd (pytest-pgo-eks tells allure-pytest the steps)"
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(newhooks)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if config.option.pgo_steps:
        from pytest_pgo_eks.gherkin.catalogue import show

        return show(config)
    return _plan(config)


def _plan(config: pytest.Config) -> int | None:
    """Print what a run would make, where that was asked for; nothing of a session is begun."""
    if not (config.option.pgo_plan or os.environ.get("PGO_PLAN") or config.getini("pgo_plan")):
        return None
    try:
        added = [one for some in config.hook.pytest_pgo_providers() for one in some]
        settings = _settings(config, added)
        if settings is None or not settings.eks.plan:
            return None
        from pytest_pgo_eks.clusters.known import plan

        print(plan(settings, added))
    except UsageProblem as problem:
        raise pytest.UsageError(f"pgo: {problem}") from None
    return int(pytest.ExitCode.OK)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    from pytest_pgo_eks.gherkin import tags

    for line in tags.marker_lines():
        config.addinivalue_line("markers", line)
    config.pluginmanager.register(fixtures, "pgo-fixtures")
    try:
        added = [one for some in config.hook.pytest_pgo_providers() for one in some]
        settings = config.stash[SETTINGS] = _settings(config, added)
        if settings is not None:
            _configure_run(config, settings, added)
    except UsageProblem as problem:
        raise pytest.UsageError(f"pgo: {problem}") from None


def _settings(config: pytest.Config, added: list[Provider]) -> Settings | None:
    command_line = {option.ini: getattr(config.option, option.ini, None) for option in OPTIONS}
    ini = {option.ini: _ini(config, option.ini) for option in OPTIONS}
    names = [*PROVIDERS, *(provider.name for provider in added)]
    return resolve(command_line, os.environ, ini, names)


def _ini(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(name)
    except (TypeError, ValueError, pytest.UsageError) as error:
        raise UsageProblem(f"ini option {name}: {error}") from None


def _configure_run(config: pytest.Config, settings: Settings, added: list[Provider]) -> None:
    if not config.pluginmanager.hasplugin("pytest-bdd"):
        raise UsageProblem("--cluster needs the plugin pytest-bdd, which is switched off here")
    from pytest_pgo_eks.gherkin.scope import redirect_bare_run
    from pytest_pgo_eks.session.wiring import wire

    redirect_bare_run(config)
    wire(config, settings, added)


def pytest_report_header(config: pytest.Config) -> list[str]:
    settings = config.stash.get(SETTINGS, None)
    if settings is None:
        return []
    from pytest_pgo_eks.session.versions import header

    return header(settings)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Remember what xdist's workers left out; all of them say the same."""
    if line := getattr(node, "workeroutput", {}).get("pgo_line"):
        node.config.stash[_WORKERS_SAY] = line


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if line := config.stash.get(_WORKERS_SAY, None):
        terminalreporter.write_line(line)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> FeatureFile | None:
    if file_path.suffix != ".feature" or not parent.config.pluginmanager.hasplugin("pytest-bdd"):
        return None
    from pytest_pgo_eks.gherkin.scope import scope

    config = parent.config
    settings = config.stash[SETTINGS]
    if not scope(config, with_cluster=settings is not None).covers(file_path):
        return None
    from pytest_pgo_eks.gherkin.catalogue import register_steps
    from pytest_pgo_eks.gherkin.collector import FeatureFile
    from pytest_pgo_eks.gherkin.selection import select_without_cluster

    register_steps(config)
    if settings is None:
        select_without_cluster(config)
    return FeatureFile.at(parent, file_path)
