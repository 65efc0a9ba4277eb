"""The providers by name: the built-in ones, and what users' hooks add."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_pgo_eks.clusters.base import Provider
from pytest_pgo_eks.clusters.eks.provider import EksProvider
from pytest_pgo_eks.clusters.k3s import K3sProvider
from pytest_pgo_eks.clusters.kind import KindProvider
from pytest_pgo_eks.clusters.kubeconfig import KubeconfigProvider
from pytest_pgo_eks.clusters.local import LocalProvider
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.settings import Settings


def providers(added: Iterable[Provider]) -> dict[str, Provider]:
    """Return every provider by name; an added one replaces the built-in one of its name."""
    own: tuple[Provider, ...] = (
        LocalProvider(),
        KindProvider(),
        K3sProvider(),
        KubeconfigProvider(),
        EksProvider(),
    )
    return {provider.name: provider for provider in (*own, *added)}


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
