"""One run, as each of its processes sees it: what is shared, and the way from nothing to a cluster."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.clusters.base import ClusterHandle, Provider, state_root
from pytest_pgo_eks.clusters.privileged import with_allowed
from pytest_pgo_eks.errors import ClusterProblem, PgoEksError, UsageProblem
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.session import ledger, operators
from pytest_pgo_eks.session.locks import ClusterLock
from pytest_pgo_eks.session.shared import Json, Shared, revived
from pytest_pgo_eks.settings import OPTIONS, Settings, resolve

RUN = pytest.StashKey["Run"]()
_SHARED = ".session"
LATEST = "latest"
# What a command that runs scenarios again says otherwise, or not at all.
_NOT_AGAIN = frozenset(
    {"provider", "keep", "reuse", "seed", "gate", "report_dir", "eks.run", "eks.plan"}
)


@dataclass
class Run:
    """What fixtures and hooks of one process work with.

    ``run_dir`` is the run's folder below the report directory, ``ledger`` the controller's entry.
    """

    settings: Settings
    providers: Mapping[str, Provider]
    run_dir: Path
    ledger: Path
    progress: Progress
    hook: Any
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.shared = Shared(self.run_dir / _SHARED)
        self.lock = ClusterLock(self.run_dir / _SHARED)
        self._mine: dict[str, Any] = {}
        self._clock = time.monotonic()

    def took_s(self) -> float:
        """Seconds since this process began the run, whatever became of the wall clock."""
        return time.monotonic() - self._clock

    @property
    def provider(self) -> Provider:
        return self.providers[self.settings.provider]

    def cluster(self) -> ClusterHandle:
        """Return the run's cluster, which the first process to ask for it makes or adopts."""
        handle: ClusterHandle = self._kept_here(
            "cluster", lambda: ClusterHandle.from_json(self.shared.once("cluster", self._make))
        )
        return handle

    @property
    def seed(self) -> int:
        """What every random choice of the run is derived from, the same in all its processes."""
        if self.settings.seed is not None:
            return self.settings.seed
        made = self.shared.once("seed", lambda: {"seed": secrets.randbits(31)})
        return int(made["seed"])

    def seed_of(self, node_id: str) -> int:
        """Return one scenario's seed, which depends on no other scenario and on no order."""
        return zlib.crc32(f"{self.seed} {node_id}".encode())

    def operator(self, cluster: ClusterHandle) -> Any:
        """Return what the hook ``pytest_pgo_operator`` answers, asked ``first`` in one process."""
        return self._staged("operator", self.hook.pytest_pgo_operator, cluster=cluster)

    def upgrade(self, cluster: ClusterHandle) -> None:
        """Put the operator that ``--pgo-upgrade-to`` names in the place of the one that runs."""
        from pytest_pgo_eks.kube import Kube

        with Kube(cluster.kubeconfig, cluster.context, labels=cluster.labels) as kube:
            record = operators.record_of(self.ledger)
            operators.upgrade(kube, cluster, self.settings, record, self.progress)

    def postgres(self, cluster: ClusterHandle, operator: object) -> Any:
        """Return what the hook ``pytest_pgo_postgres`` answers, asked ``first`` in one process."""
        return self._staged(
            "PostgresCluster", self.hook.pytest_pgo_postgres, cluster=cluster, operator=operator
        )

    def _make(self) -> Json:
        if refused := self.shared.failure("usage"):
            raise refused
        provider, settings = self.provider, self.settings
        if settings.reuse is None:
            handle = provider.create(settings, self.progress, self.ledger)
        else:
            handle = provider.adopt(settings, self.progress)
        return with_allowed(operators.with_chosen(handle, settings), settings).as_json()

    def _staged(self, name: str, hook: Callable[..., Any], **context: object) -> Any:
        def ask(*, first: bool) -> Any:
            answer = hook(settings=self.settings, progress=self.progress, first=first, **context)
            if answer is None:
                raise ClusterProblem(f"nothing installed here knows how to provide the {name}")
            return answer

        def make() -> Any:
            made: list[Any] = []

            def as_first() -> Json:
                made.append(ask(first=True))
                return {}

            self.shared.once(name, as_first)
            return made[0] if made else ask(first=False)

        return self._kept_here(name, make)

    def _kept_here(self, name: str, make: Callable[[], Any]) -> Any:
        """Remember what ``make`` returned or raised in this process."""
        if name not in self._mine:
            try:
                self._mine[name] = make()
            except PgoEksError as error:
                self._mine[name] = error
        found = self._mine[name]
        if isinstance(found, PgoEksError):
            # A fresh instance each time: one exception raised for many tests grows its traceback.
            raise revived({"kind": type(found).__name__, "message": str(found)})
        return found

    def refuse(self, problem: UsageProblem) -> None:
        """Have every process that asks for the cluster fail with ``problem``."""
        self.shared.fail("usage", problem)

    def made(self) -> ClusterHandle | None:
        """Return the cluster if any process has made it, without making it."""
        found = self.shared.found("cluster")
        return ClusterHandle.from_json(found) if found else None

    def failure(self) -> PgoEksError | None:
        """Return the first error that kept the cluster, the operator or PostgreSQL from coming up."""
        for name in ("usage", "cluster", "operator", "PostgresCluster"):
            if error := self.shared.failure(name):
                return error
        return None

    def rerun(self, reuse: str | None = None) -> str:
        """Return the command that runs scenarios again with the same settings."""
        settings = self.settings
        parts = ["pytest", f"--cluster={settings.provider}"]
        if reuse or settings.reuse:
            parts.append(f"--pgo-reuse={reuse or settings.reuse}")
        plain = resolve({"pgo_cluster": settings.provider}, {}, {}, [settings.provider])
        for option in OPTIONS:
            # Settings of one provider are one level down: "eks.region".
            told = attrgetter(option.field)
            value = told(settings)
            if option.field in _NOT_AGAIN or value is None or value == told(plain):
                continue
            parts.append(option.flag if option.kind == "flag" else f"{option.flag}={value}")
        return shlex.join(parts)


def run_directory(settings: Settings) -> Path:
    """Make and return the folder of a new run below the report directory; ``latest`` leads to it.

    :raises UsageProblem: it cannot be written to.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    reports = settings.report_dir.absolute()
    path = reports / f"{stamp}-{settings.provider}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UsageProblem(
            f"--pgo-report-dir: cannot write to {settings.report_dir}: {error.strerror}"
        ) from None
    # Windows may refuse links; nothing but convenience is lost.
    with contextlib.suppress(OSError):
        link = reports / f".latest-{path.name}"
        link.symlink_to(path.name)
        link.replace(reports / LATEST)
    return path


def forget_directory(run_dir: Path) -> None:
    """Remove the folder of a run in which no scenario ran."""
    if not run_dir.is_dir() or (run_dir / "scenarios").exists():
        return
    shutil.rmtree(run_dir)
    latest = run_dir.parent / LATEST
    if latest.is_symlink() and latest.readlink() == Path(run_dir.name):
        latest.unlink()


def open_ledger(settings: Settings, run_dir: Path) -> Path:
    """Open the controller's ledger entry.

    :raises UsageProblem: the state directory cannot be written to.
    """
    try:
        return ledger.open_entry(settings, f"{run_dir.name}-{os.getpid()}")
    except OSError as error:
        forget_directory(run_dir)
        raise UsageProblem(
            f"--pgo-state-dir: cannot write to {state_root(settings)}: {error.strerror}"
        ) from None
