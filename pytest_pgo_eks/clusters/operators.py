"""Which operators for PostgresClusters run in a cluster, and what they watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, UsageProblem
from pytest_pgo_eks.kube import Kube

_CONTROL_PLANE = "postgres-operator.crunchydata.com/control-plane"
# kustomize labels the control plane with its own name, the Helm charts with the chart's.
_CRD = "postgresclusters.postgres-operator.crunchydata.com"
_SELECTOR = f"{_CONTROL_PLANE} in (postgres-operator,pgo)"


@dataclass(frozen=True)
class Found:
    """One operator's Deployment. ``watches`` are its namespaces, empty for all of them."""

    namespace: str
    deployment: str
    watches: tuple[str, ...]

    def covers(self, namespace: str) -> bool:
        """Whether it acts on PostgresClusters in ``namespace``."""
        return not self.watches or namespace in self.watches

    def __str__(self) -> str:
        return f"Deployment {self.deployment} in {self.namespace}"


def operators(kube: Kube) -> list[Found]:
    """Return every operator of the cluster.

    :raises ApiProblem: Deployments of other namespaces may not be listed.
    """
    return [_found(one) for one in kube.list("apps/v1/Deployment", labels=_SELECTOR)]


def operator_namespace(kube: Kube, namespace: str) -> str:
    """Return where the operator runs that acts on ``namespace``; itself where none is to be seen."""
    try:
        found = [one for one in operators(kube) if one.covers(namespace)]
    except ApiProblem:
        return namespace
    here = [one for one in found if one.namespace == namespace]
    return (here or found)[0].namespace if found else namespace


def refuse(kube: Kube, namespace: str, *, api_version: str | None, installing: bool) -> None:
    """Refuse a namespace on which no operator acts, or more than one, or one of another version.

    ``api_version`` is the manifest's. Where Deployments of other namespaces may not be listed only
    what is served is looked at.

    :raises UsageProblem: says which operators there are, and what to do.
    """
    try:
        found = [one for one in operators(kube) if one.covers(namespace)]
    except ApiProblem:
        found = []
    if len(found) > 1:
        raise UsageProblem(
            f"{len(found)} operators act on namespace {namespace} and would fight: "
            f"{', '.join(map(str, found))}; limit them to namespaces of their own "
            "(PGO_TARGET_NAMESPACE), or name another with --pgo-namespace"
        )
    if installing:
        if found:
            raise UsageProblem(
                f"an operator acts on namespace {namespace} already: {found[0]}; judge that one "
                "without --pgo-install, or name a namespace that it does not watch"
            )
        return
    definition = kube.find("CustomResourceDefinition", _CRD)
    if definition is None:
        raise UsageProblem(
            "the cluster serves no PostgresCluster: PGO is not installed there; install it, or have "
            "the run install it with --pgo-install"
        )
    served = [one["name"] for one in definition["spec"].get("versions") or () if one.get("served")]
    wanted = (api_version or "").rpartition("/")[2]
    if wanted and wanted not in served:
        raise UsageProblem(
            f"the manifest is a PostgresCluster {wanted}, but the cluster serves {', '.join(served)}: "
            "its CustomResourceDefinition is of another PGO; change the manifest's apiVersion, or "
            "install the PGO that it is for"
        )


def _found(deployment: Mapping[str, Any]) -> Found:
    meta = deployment["metadata"]
    spec = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    return Found(str(meta["namespace"]), str(meta["name"]), _watched(spec, str(meta["namespace"])))


def _watched(spec: Mapping[str, Any], own: str) -> tuple[str, ...]:
    """Read the two variables by which PGO limits itself; without them it watches everything."""
    containers: Sequence[Mapping[str, Any]] = spec.get("containers") or ()
    for container in containers:
        for one in container.get("env") or ():
            if one.get("name") not in ("PGO_TARGET_NAMESPACE", "PGO_TARGET_NAMESPACES"):
                continue
            if one.get("valueFrom"):
                return (own,)
            if value := str(one.get("value", "")).strip():
                return tuple(part.strip() for part in value.split(",") if part.strip())
    return ()
