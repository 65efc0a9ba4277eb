"""Which ``.feature`` files are ours to collect: the shipped suite and what the user names.

A project that merely has the package installed, with ``.feature`` files of its own bound by
``pytest_bdd.scenarios``, must see no change.
"""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

import pytest

from pytest_pgo_eks import shipped

FEATURE_DIRS = "pgo_features"


def redirect_bare_run(config: pytest.Config) -> None:
    """Point a run without arguments at the ini list's directories or at the shipped suite.

    Only where the directory holds no test of its own: then ``pytest --cluster=local`` in an empty
    directory runs the suite. Also finds ``failover/x.feature::Name`` below the shipped suite where
    no such file exists here, so that the node ids of such a run can be given back.
    """
    if config.args_source is config.ArgsSource.INVOCATION_DIR:
        if named := _ini_dirs(config):
            config.args[:] = [str(path) for path in named]
        elif not _holds_tests(config, config.invocation_params.dir, features_too=True):
            config.args[:] = [str(shipped.features())]
    elif config.args_source is config.ArgsSource.ARGS:
        config.args[:] = [_found(config, argument) for argument in config.args]


def _found(config: pytest.Config, argument: str) -> str:
    path, separator, rest = argument.partition("::")
    if (config.invocation_params.dir / path).exists():
        return argument
    inside = shipped.features() / path.removeprefix("features/")
    return f"{inside}{separator}{rest}" if path and inside.exists() else argument


class Scope:
    """Answers whether a feature file is to be collected."""

    def __init__(self, config: pytest.Config, *, with_cluster: bool) -> None:
        self._config = config
        self._with_cluster = with_cluster
        self._dirs = [shipped.features().resolve(), *_ini_dirs(config)]
        self._named: dict[Path, bool] = {}
        self._arguments = self._argument_paths()

    def covers(self, file: Path) -> bool:
        if any(file.is_relative_to(directory) for directory in self._dirs):
            return True
        return any(
            self._names(argument) for argument in self._arguments if file.is_relative_to(argument)
        )

    def _argument_paths(self) -> list[Path]:
        if self._config.args_source is not self._config.ArgsSource.ARGS and not self._with_cluster:
            return []
        base = self._config.invocation_params.dir
        return [(base / arg.partition("::")[0]).resolve() for arg in self._config.args]

    def _names(self, argument: Path) -> bool:
        """Whether an argument names features: without ``--cluster`` a directory that also holds
        Python tests does not, as those may bind the very features themselves."""
        if argument not in self._named:
            self._named[argument] = (
                self._with_cluster
                or argument.is_file()
                or not _holds_tests(self._config, argument, features_too=False)
            )
        return self._named[argument]


_SCOPE = pytest.StashKey[Scope]()


def scope(config: pytest.Config, *, with_cluster: bool) -> Scope:
    """Return the session's scope."""
    if _SCOPE not in config.stash:
        config.stash[_SCOPE] = Scope(config, with_cluster=with_cluster)
    return config.stash[_SCOPE]


def _ini_dirs(config: pytest.Config) -> list[Path]:
    base = config.inipath.parent if config.inipath else config.rootpath
    listed: list[str] = config.getini(FEATURE_DIRS)
    return [(shipped.features() if text == "shipped" else base / text).resolve() for text in listed]


def _holds_tests(config: pytest.Config, top: Path, *, features_too: bool) -> bool:
    patterns: list[str] = [*config.getini("python_files")]
    patterns += ["*.feature"] if features_too else []
    skipped: list[str] = config.getini("norecursedirs")
    for _, folders, files in os.walk(top):
        if any(fnmatch.fnmatch(name, pattern) for name in files for pattern in patterns):
            return True
        folders[:] = [f for f in folders if not any(fnmatch.fnmatch(f, s) for s in skipped)]
    return False
