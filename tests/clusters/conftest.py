"""Programs that make clusters, replaced by ones that note how they were called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# One instance and no backups: up in seconds.
MANIFEST = """
apiVersion: postgres-operator.crunchydata.com/v1beta1
kind: PostgresCluster
metadata: {name: small}
spec:
  postgresVersion: VERSION
  instances:
    - dataVolumeClaimSpec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: 1Gi}}
"""
FAKE = Path(__file__).with_name("fake_kind.py")


@dataclass(frozen=True)
class Programs:
    """The directory that is first on PATH, and what the programs in it noted."""

    home: Path
    path: Path

    def put(self, *names: str) -> None:
        for name in names:
            script = self.path / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} {name} "$@"\n', "utf-8")
            script.chmod(0o755)

    def calls(self, program: str) -> list[list[str]]:
        """Return the calls of one program, its name left out; no call was refused."""
        refused = self.home / "refused"
        assert not refused.exists(), refused.read_text("utf-8")
        noted = self.home / "calls"
        lines = noted.read_text("utf-8").splitlines() if noted.exists() else []
        return [call for name, *call in map(json.loads, lines) if name == program]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Programs]:
    """No kind, docker or podman but what a test puts there; state and home below ``tmp_path``."""
    made = Programs(tmp_path / "fake", tmp_path / "bin")
    made.home.mkdir()
    made.path.mkdir()
    monkeypatch.setenv("FAKE_HOME", str(made.home))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KIND_EXPERIMENTAL_PROVIDER", raising=False)
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(made.path), "/usr/bin", "/bin", "/usr/sbin", "/sbin"])
    )
    yield made
    for state in made.home.glob("c*/*/state"):
        down = [sys.executable, "-m", "pytest_pgo_eks.local", "down", "--state-dir", str(state)]
        subprocess.run(down, check=True, stdout=subprocess.DEVNULL)
