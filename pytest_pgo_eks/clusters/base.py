"""What a provider is and what it hands over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from pytest_pgo_eks.errors import ClusterProblem
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.settings import Settings

Capabilities = frozenset[str]
Swept = Literal["removed", "absent", "left"]


@dataclass(frozen=True)
class ClusterHandle:
    """A running Kubernetes cluster, as every layer above sees it.

    ``capabilities`` are names of :mod:`pytest_pgo_eks.gherkin.tags`. ``hints`` are the lines that
    ``--pgo-keep`` prints, ready to be pasted into a shell: the last one removes the cluster, and
    before it the session puts the line that runs the scenarios again.

    ``lacks`` says why a capability is missing, where the provider looked. ``labels`` go on everything
    that is created there, so that it can be found again. Nothing is written into the namespaces of
    ``read_only``. ``adopted`` is namespace and name of a PostgresCluster to judge as it is.
    """

    name: str
    provider: str
    kubeconfig: Path
    context: str | None = None
    capabilities: Capabilities = frozenset()
    kubernetes_version: str | None = None
    operator_version: str | None = None
    state_dir: Path | None = None
    hints: tuple[str, ...] = ()
    stand_in: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    read_only: tuple[str, ...] = ()
    adopted: tuple[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return a form for ``json.dumps``, from which :meth:`from_json` makes the same handle."""
        return {
            **asdict(self),
            "kubeconfig": str(self.kubeconfig),
            "state_dir": str(self.state_dir) if self.state_dir else None,
            "capabilities": sorted(self.capabilities),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ClusterHandle:
        return cls(
            **{
                **found,
                "kubeconfig": Path(found["kubeconfig"]),
                "state_dir": Path(found["state_dir"]) if found["state_dir"] else None,
                "capabilities": frozenset(found["capabilities"]),
                "hints": tuple(found["hints"]),
                "read_only": tuple(found.get("read_only", ())),
                "adopted": tuple(found["adopted"]) if found.get("adopted") else None,
            }
        )


@dataclass(frozen=True)
class AwsSide:
    """The AWS side of a cluster on EKS: what the pattern's rows and the audit read.

    ``clients`` returns the boto3 client of a service (``eks``, ``iam``, ``ec2`` …) for the cluster's
    account and region; ``cluster`` is the name EKS knows it by; ``profile`` is lean, faithful or
    adopted; ``zones`` is how many zones it was asked to span; ``tags`` go on whatever a fault has to
    make. A provider that has one says so by a
    method ``aws(handle) -> AwsSide``.
    """

    clients: Callable[[str], Any]
    cluster: str
    profile: str
    zones: int = 3
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LedgerEntry:
    """What is needed to find and remove a cluster after the run that made it has died.

    It is written before anything is created. ``owner_pid`` and ``owner_started`` (clock ticks since
    boot, 0 where unknown) name the controller of the run: a number alone may have been given to
    another process since. ``keep`` tells the next run not to remove the cluster on its own.
    """

    provider: str
    owner_pid: int
    owner_started: int = 0
    name: str = ""
    keep: bool = False
    state_dir: str | None = None
    remove: str = ""

    @classmethod
    def read(cls, path: Path) -> LedgerEntry:
        """Read an entry.

        :raises ClusterProblem: the file is no ledger entry.
        """
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ClusterProblem(f"{path} is no ledger entry: {error}") from error

    def write(self, path: Path) -> None:
        """Write the entry so that it is on disk, whole, before the caller creates anything."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(self), indent=1), "utf-8")
        draft.replace(path)


def note_intent(ledger: Path, *, name: str, remove: str, state_dir: Path | None = None) -> None:
    """Complete the entry that the session has opened: call it before creating the first thing.

    ``remove`` is the shell line that removes whatever has been created by then.
    """
    entry = LedgerEntry.read(ledger)
    state = str(state_dir) if state_dir else None
    replace(entry, name=name, remove=remove, state_dir=state).write(ledger)


def state_root(settings: Settings) -> Path:
    """Return where this machine remembers clusters."""
    if settings.state_dir:
        return settings.state_dir
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "pytest-pgo-eks"


class Provider(Protocol):
    """Makes, adopts and removes clusters of one kind. ``name`` is the value of ``--cluster``."""

    @property
    def name(self) -> str: ...

    @property
    def never(self) -> Mapping[str, str]:
        """Capabilities that no cluster of this kind has, with the reason: known without one."""

    def preflight(self, settings: Settings) -> None:
        """Refuse what cannot work; create nothing, and take no longer than about a second.

        :raises UsageProblem: one line that says what to change.
        """

    def create(self, settings: Settings, progress: Progress, ledger: Path) -> ClusterHandle:
        """Make a cluster; call :func:`note_intent` on ``ledger`` first.

        :raises UsageProblem: the user's input or machine cannot work.
        :raises ClusterProblem: it did not come up. What was made is removed by :meth:`sweep`.
        """

    def adopt(self, settings: Settings, progress: Progress) -> ClusterHandle:
        """Return the existing cluster that ``settings.reuse`` names.

        :raises UsageProblem: there is no such cluster, or it does not run.
        """

    def destroy(self, handle: ClusterHandle, progress: Progress) -> None:
        """Remove everything that :meth:`create` made.

        :raises ClusterProblem: something is left; the message says what, and the line to remove it.
        """

    def sweep(self, entry: LedgerEntry, progress: Progress) -> Swept:
        """Remove what a dead run, or a creation that failed, left behind: if that is quick and safe.

        "absent" where nothing was there any more, "left" where it still is.
        """
