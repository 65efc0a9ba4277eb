"""The providers by name: the built-in ones, and what users' hooks add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry, Provider, Swept
from pytest_pgo_eks.clusters.k3s import K3sProvider
from pytest_pgo_eks.clusters.kind import KindProvider
from pytest_pgo_eks.clusters.eks.provider import EksProvider
from pytest_pgo_eks.clusters.kubeconfig import KubeconfigProvider
from pytest_pgo_eks.clusters.local import LocalProvider
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.settings import PROVIDERS, Settings


class RealKubernetes:
    """A provider whose name is known and whose code arrives with the real-Kubernetes part."""

    never: Mapping[str, str] = {}

    def __init__(self, name: str) -> None:
        self.name = name

    def preflight(self, settings: Settings) -> None:
        raise self._problem(settings)

    def create(self, settings: Settings, progress: Progress, ledger: Path) -> ClusterHandle:
        del progress, ledger
        raise self._problem(settings)

    def adopt(self, settings: Settings, progress: Progress) -> ClusterHandle:
        del progress
        raise self._problem(settings)

    def destroy(self, handle: ClusterHandle, progress: Progress) -> None:
        del progress
        raise UsageProblem(f"this release made no cluster {handle.name!r} to remove")

    def sweep(self, entry: LedgerEntry, progress: Progress) -> Swept:
        del entry, progress
        return "left"

    def _problem(self, settings: Settings) -> UsageProblem:
        return UsageProblem(
            f"--cluster={settings.provider} is not in this release: it arrives with the "
            "real-Kubernetes part; --cluster=local works, and a conftest can add a provider with "
            "the hook pytest_pgo_providers"
        )


def providers(added: Iterable[Provider]) -> dict[str, Provider]:
    """Return every provider by name; an added one replaces the built-in one of its name."""
    found: dict[str, Provider] = {name: RealKubernetes(name) for name in PROVIDERS}
    found["local"] = LocalProvider()
    found["kubeconfig"] = KubeconfigProvider()
    found["eks"] = EksProvider()
    found["kind"] = KindProvider()
    found["k3s"] = K3sProvider()
    found.update({provider.name: provider for provider in added})
    return found


def plan(settings: Settings, added: Iterable[Provider]) -> str:
    """Return what a run with these settings would make and cost, as text.

    :raises UsageProblem: it cannot work, or its provider makes no plans.
    """
    ask = getattr(providers(added)[settings.provider], "plan", None)
    if ask is None:
        raise UsageProblem(f"--pgo-plan: --cluster={settings.provider} costs nothing to plan for")
    try:
        return str(ask(settings))
    except ClusterProblem as problem:
        raise UsageProblem(str(problem)) from None
