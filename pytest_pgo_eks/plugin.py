"""The pytest plugin: options, markers, wiring.

It is loaded into every pytest run of every environment that has the package, so it imports nothing
heavy and does nothing until features, a cluster or one of its fixtures are asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_pgo_eks import newhooks
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.settings import OPTIONS, Settings, resolve

if TYPE_CHECKING:
    from pytest_pgo_eks.gherkin.collector import FeatureFile

SETTINGS = pytest.StashKey[Settings | None]()
_SCOPE = pytest.StashKey["Scope"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pgo", "conformance of PostgreSQL operators on Kubernetes (pgo)")
    for option in OPTIONS:
        if option.kind == "flag":
            group.addoption(
                option.flag, dest=option.ini, action="store_true", default=None, help=option.help
            )
        else:
            group.addoption(
                option.flag,
                dest=option.ini,
                default=None,
                metavar=option.metavar,
                help=option.help,
            )
        parser.addini(option.ini, f"default of {option.flag}: {option.help}", default=None)
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


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(newhooks)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    from pytest_pgo_eks.gherkin import tags

    for line in tags.marker_lines():
        config.addinivalue_line("markers", line)
    try:
        settings = _settings(config)
    except UsageProblem as problem:
        raise pytest.UsageError(f"pgo: {problem}") from None
    config.stash[SETTINGS] = settings


def _settings(config: pytest.Config) -> Settings | None:
    command_line = {option.ini: getattr(config.option, option.ini, None) for option in OPTIONS}
    ini = {option.ini: config.getini(option.ini) for option in OPTIONS}
    return resolve(command_line, os.environ, ini)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> FeatureFile | None:
    if file_path.suffix != ".feature":
        return None
    from pytest_pgo_eks.gherkin.scope import Scope

    config = parent.config
    if _SCOPE not in config.stash:
        config.stash[_SCOPE] = Scope(config, with_cluster=config.stash[SETTINGS] is not None)
    if not config.stash[_SCOPE].covers(file_path):
        return None
    from pytest_pgo_eks.gherkin.collector import FeatureFile

    return FeatureFile.from_parent(parent, path=file_path)
