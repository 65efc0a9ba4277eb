"""This repository's own test wiring, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

_FEATURES = Path(__file__).with_name("features")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "cluster: needs the stand-in cluster, which all tests so marked share"
    )
    # Here ``testpaths`` names the harness's own tests; asked for a cluster, the features are meant.
    if config.args_source is config.ArgsSource.TESTPATHS and config.option.pgo_cluster:
        config.args[:] = [str(_FEATURES)]
