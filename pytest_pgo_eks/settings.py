"""Command line, ini and environment become one frozen :class:`Settings`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROVIDERS = ("local", "kind", "k3s", "kubeconfig", "eks")


@dataclass(frozen=True)
class Settings:
    """Everything a run was told, resolved once and never changed.

    Precedence: command line, then environment (``PGO_…``), then ini, then the default here.
    """

    provider: str
    keep: bool = False
    reuse: str | None = None
    namespace: str = "postgres-operator"
    manifest: Path | None = None
    level: int = 3
    timeout_scale: float = 1.0
    report_dir: Path = Path("reports")
    postgres_version: int | None = None
    lease_s: int | None = None
    sync_period_s: int | None = None
