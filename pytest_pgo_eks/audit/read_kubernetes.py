"""Read what Kubernetes says of the cluster under test. Every call is a read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.errors import ApiProblem, NotFound
from pytest_pgo_eks.kube import Kube


def read_kubernetes(
    kube: Kube, handle: ClusterHandle, postgres: Mapping[str, Any], operator_namespace: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what could be read, and for everything else the reason."""
    own = postgres["metadata"]["namespace"]
    places = sorted({own, operator_namespace})

    def in_places(kind: str) -> list[dict[str, Any]]:
        return [one for place in places for one in kube.list(kind, place)]

    def accounts() -> list[dict[str, Any]]:
        driver = [
            one
            for one in kube.list("ServiceAccount", "kube-system")
            if one["metadata"]["name"].startswith("ebs-csi-")
        ]
        return in_places("ServiceAccount") + driver

    def aws_auth() -> dict[str, Any] | None:
        try:
            return kube.get("ConfigMap", "aws-auth", "kube-system")
        except NotFound:
            return None

    reads: dict[str, Callable[[], Any]] = {
        "nodes": lambda: kube.list("Node"),
        "storage_classes": lambda: kube.list("StorageClass"),
        "volume_claims": lambda: kube.list("PersistentVolumeClaim", own),
        "namespaces": lambda: [kube.get("Namespace", place, None) for place in places],
        "pods": lambda: in_places("Pod"),
        "services": lambda: in_places("Service"),
        "service_accounts": accounts,
        "aws_auth": aws_auth,
    }
    known: dict[str, Any] = {
        "postgres": postgres,
        "capabilities": handle.capabilities,
        "verified_tls": verifies(handle),
    }
    unread: dict[str, str] = {}
    for name, read in reads.items():
        try:
            known[name] = read()
        except ApiProblem as error:
            unread[name] = str(error)
    return known, unread


def verifies(handle: ClusterHandle) -> bool:
    """Return whether the kubeconfig makes every client verify the API server's certificate."""
    config = yaml.safe_load(handle.kubeconfig.read_text("utf-8"))
    context = handle.context or config["current-context"]
    (chosen,) = [one["context"] for one in config["contexts"] if one["name"] == context]
    (server,) = [one["cluster"] for one in config["clusters"] if one["name"] == chosen["cluster"]]
    return bool(
        server["server"].startswith("https://") and not server.get("insecure-skip-tls-verify")
    )
