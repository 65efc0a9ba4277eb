"""The plugin costs a run that does not use it next to nothing."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "kubernetes",
    "boto3",
    "botocore",
    "psycopg",
    "asyncpg",
    "testcontainers",
    "aiohttp",
    "numpy",
    "yaml",
    "cryptography",
    "filelock",
)

PROBE = f"""
import sys
import pytest

class Look:
    def pytest_sessionfinish(self, session):
        assert session.config.pluginmanager.hasplugin("pgo_eks"), "the plugin is not loaded at all"
        # Other plugins of this environment may be heavy themselves, so they are left out.
        print("heavy:", sorted(set(sys.modules) & set({HEAVY!r})))
        ours = sorted(m for m in sys.modules if m.startswith("pytest_pgo_eks"))
        print("ours:", ours)

others = ["no:hypothesispytest", "no:allure_pytest", "no:timeout", "no:xdist", "no:cacheprovider"]
arguments = [part for name in others for part in ("-p", name)]
sys.exit(pytest.main([*arguments, "-q", "test_it.py"], plugins=[Look()]))
"""


def test_a_run_that_does_not_use_it_loads_no_client_library(tmp_path: object) -> None:
    place = str(tmp_path)
    with open(f"{place}/test_it.py", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write("def test_it(): pass\n")
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "heavy: []" in done.stdout, done.stdout
    (ours,) = [line for line in done.stdout.splitlines() if line.startswith("ours:")]
    assert ours == (
        "ours: ['pytest_pgo_eks', 'pytest_pgo_eks.errors', 'pytest_pgo_eks.fixtures', "
        "'pytest_pgo_eks.gherkin', 'pytest_pgo_eks.gherkin.tags', 'pytest_pgo_eks.newhooks', "
        "'pytest_pgo_eks.pattern', 'pytest_pgo_eks.plugin', 'pytest_pgo_eks.settings', "
        "'pytest_pgo_eks.settings_eks', 'pytest_pgo_eks.settings_install', "
        "'pytest_pgo_eks.settings_values']"
    )
