"""The handle of a cluster that a provider made for the run alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_pgo_eks.clusters import demands, detecting
from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.clusters.images import probe_image
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.timeouts import Timeouts

_PRIMARY = "postgres-operator.crunchydata.com/role=master"


def handle_of(
    settings: Settings,
    progress: Progress,
    *,
    provider: str,
    name: str,
    kubeconfig: Path,
    folder: Path,
    remove: str,
    zone: str | None = None,
) -> ClusterHandle:
    """Wait for the nodes, look what the cluster can do, and return its handle.

    ``zone`` is put on nodes that are in none: without a zone no instance could be spread by it.

    :raises WaitTimeout: no node became ready.
    :raises UsageProblem: the cluster is too small for what is to be made on it.
    """
    timeouts = Timeouts.of(settings)
    with Kube(kubeconfig, request_s=timeouts["request"]) as kube:
        with progress.phase("waiting for the nodes", expected_s=20):
            eventually(
                lambda: kube.list("Node"),
                accept=lambda nodes: bool(nodes) and _all_ready(nodes),
                within_s=timeouts["cluster-created"] / 2,
                what="every node to be ready",
                show=lambda nodes: f"{len(nodes)} nodes, {len(detecting.usable(nodes))} ready",
            )
        if zone:
            for node in kube.list("Node"):
                if not (node["metadata"].get("labels") or {}).get(detecting.ZONE):
                    patch = {"metadata": {"labels": {detecting.ZONE: zone}}}
                    kube.patch("Node", node["metadata"]["name"], None, patch)
        demands.refuse(kube, demands.demand_of(settings))
        namespace = settings.namespace
        if kube.find("Namespace", namespace) is None:
            kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        facts = detecting.detect(
            kube,
            namespace,
            image=probe_image(settings, stand_in=detecting.is_stand_in(kube)),
            denied=(),
            progress=progress,
            within_s=timeouts["pod-ready"],
        )
    progress.say(f"pgo: cluster {name}: {facts}")
    kubectl = f"kubectl --kubeconfig {shlex.quote(str(kubeconfig))} -n {namespace}"
    return ClusterHandle(
        name=name,
        provider=provider,
        kubeconfig=kubeconfig,
        capabilities=facts.capabilities,
        kubernetes_version=facts.kubernetes,
        state_dir=folder,
        hints=(
            f"{kubectl} get pods,services,postgresclusters",
            f"{kubectl} exec -it -c database $({kubectl} get pod -l {_PRIMARY} -o name) -- psql",
            remove,
        ),
        stand_in=facts.stand_in,
        lacks=facts.lacks,
    )


def _all_ready(nodes: Sequence[dict[str, Any]]) -> bool:
    """Whether every node takes pods that ever will: a control plane's taint is there to stay."""
    staying = [one for one in nodes if not any(map(_stays, one["spec"].get("taints") or ()))]
    return bool(staying) and len(detecting.usable(nodes)) == len(staying)


def _stays(taint: Mapping[str, str]) -> bool:
    """Whether a taint is a person's: Kubernetes' own go away when a node becomes ready."""
    return not taint["key"].startswith("node.kubernetes.io/")
