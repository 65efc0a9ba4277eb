"""The operator that a run brings along: looked at before anything is made, removed at its end."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.pgo import install as installers
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.timeouts import Timeouts

if TYPE_CHECKING:
    from pytest_pgo_eks.kube import Kube

# These outlive a run; the others take everything with them when they go.
_LASTING = ("kubeconfig",)
_UPGRADE = "operator-upgrade"


def record_of(ledger: Path) -> Path:
    """Return where the run with this ledger entry keeps what its installation made."""
    return ledger.with_suffix(".operator")


def brings_one(settings: Settings) -> bool:
    """Say whether the run installs an operator."""
    return settings.install.source not in (None, installers.ALREADY)


def rendered(settings: Settings, given: str | None) -> list[dict[str, Any]] | None:
    """Return the objects that ``given`` stands for with the user's overrides, None for nothing.

    :raises UsageProblem: it cannot be installed.
    """
    with tempfile.TemporaryDirectory(prefix="pgo-install-") as place:
        scratch = Path(place)
        source = installers.source_of(given, scratch)
        if source is None:
            return None
        overrides = installers.overrides_of(settings)
        found = installers.render_checked(
            source, namespace=settings.namespace, scope=settings.install.scope, scratch=scratch
        )
        return installers.adjusted(found, overrides, settings.namespace)


def refuse(settings: Settings) -> None:
    """Refuse a source that cannot be installed, while nothing is created yet.

    :raises UsageProblem: one line that says what to change.
    """
    given = settings.install
    if brings_one(settings) and settings.adopt:
        raise UsageProblem(
            "--pgo-install and --pgo-adopt exclude each other: whose operator is it?"
        )
    if not brings_one(settings):
        for flag, value in (
            ("--pgo-images", given.images),
            ("--pgo-operator-annotations", given.annotations),
        ):
            if value:
                raise UsageProblem(
                    f"{flag} changes an operator that is installed: add --pgo-install"
                )
    rendered(settings, given.source)
    rendered(settings, given.upgrade_to)


def ensure(
    kube: Kube, cluster: ClusterHandle, settings: Settings, record: Path, progress: Progress
) -> None:
    """Install the operator that the settings name, if they name one."""
    objects = rendered(settings, settings.install.source)
    if objects is not None:
        _put(kube, cluster, settings, record, progress=progress, objects=objects)


def _put(
    kube: Kube,
    cluster: ClusterHandle,
    settings: Settings,
    record: Path,
    *,
    progress: Progress,
    objects: list[dict[str, Any]],
) -> None:
    if not record.exists():
        access = installers.Installed(
            kubeconfig=str(cluster.kubeconfig.absolute()), context=cluster.context
        )
        access.write(record)
    within_s = Timeouts.of(settings)["operator-ready"]
    installers.install(kube, objects, record, within_s=within_s, progress=progress)


def with_chosen(handle: ClusterHandle, settings: Settings) -> ClusterHandle:
    """Return the handle with what the settings, and not the cluster, make possible."""
    if settings.install.upgrade_to:
        return replace(handle, capabilities=handle.capabilities | {_UPGRADE})
    return replace(handle, lacks={_UPGRADE: "no --pgo-upgrade-to says what to", **handle.lacks})


def upgrade(
    kube: Kube, cluster: ClusterHandle, settings: Settings, record: Path, progress: Progress
) -> None:
    """Put the release that ``--pgo-upgrade-to`` names on top of the one that runs."""
    objects = rendered(settings, settings.install.upgrade_to)
    if objects is None:
        raise UsageProblem("--pgo-upgrade-to names no release to install")
    _put(kube, cluster, settings, record, progress=progress, objects=objects)


def remove(record: Path, provider: str, progress: Progress) -> list[str]:
    """Remove what an installation left in a cluster that goes on; return a line for what was kept.

    :raises ClusterProblem: something is left.
    """
    if not record.exists():
        return []
    if provider not in _LASTING:
        record.unlink()
        return []
    from pytest_pgo_eks.kube import Kube

    found = installers.Installed.read(record)
    with Kube(Path(found.kubeconfig), found.context) as kube:
        return [f"kept {line}" for line in installers.uninstall(kube, record, progress=progress)]
