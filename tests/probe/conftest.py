"""One PostgreSQL for the probe's tests, and the agent installed on this machine as if in a pod."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import local_postgres
import pytest
from local_postgres import Server
from shell_here import Local

from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.probe.plan import Login
from pytest_pgo_eks.secrets import Secret


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    found = local_postgres.binaries()
    if found is None:
        pytest.skip("no PostgreSQL server programs on this machine")
    with local_postgres.server(found) as running:
        yield running


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    agent = Installed(Local(), "here", "this", python=sys.executable, home=str(tmp_path / "pod"))
    agent.install()
    yield agent
    agent.close()


@pytest.fixture
def login(postgres: Server) -> Login:
    return Login.at(
        "127.0.0.1",
        postgres.port,
        user="app",
        database="app",
        password=Secret("app-secret"),
        tls="disable",
    )
