"""A cluster on EKS that exists: a guest in it, and a reader of AWS.

Nothing is created in AWS. In Kubernetes it is the provider ``kubeconfig`` that takes a namespace and
gives it back; what it leaves in AWS are volumes of claims whose class retains them, and of those only
the ones of the run's own namespace are removed. The cluster, its protection against deletion and
everybody else's resources are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry, Swept
from pytest_pgo_eks.clusters.eks import access
from pytest_pgo_eks.clusters.eks.calls import Aws, AwsRefused
from pytest_pgo_eks.clusters.eks.names import tag_map
from pytest_pgo_eks.clusters.eks.preflight import caller
from pytest_pgo_eks.clusters.kubeconfig import KubeconfigProvider
from pytest_pgo_eks.clusters.premises import Lease
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.progress import Progress
from pytest_pgo_eks.settings import Settings

_NAMESPACE_TAG = "kubernetes.io/created-for/pvc/namespace"


def look(aws: Aws, name: str) -> Mapping[str, Any]:
    """Return the cluster as DescribeCluster shows it.

    :raises UsageProblem: it does not exist, or is not ACTIVE, or AWS does not let us look.
    """
    caller(aws)
    try:
        found = aws.find("eks", "describe_cluster", name=name)
    except AwsRefused as refused:
        raise UsageProblem(f"--pgo-eks-name: {refused}") from None
    except ClusterProblem as problem:
        raise UsageProblem(f"AWS cannot be asked in {aws.region}: {problem}") from None
    if found is None:
        known = ", ".join(aws.every("eks", "list_clusters", "clusters")) or "none"
        raise UsageProblem(
            f"--pgo-eks-name: there is no cluster {name!r} in {aws.region}; there are: {known}"
        )
    cluster: Mapping[str, Any] = found["cluster"]
    if cluster["status"] != "ACTIVE":
        raise UsageProblem(f"--pgo-eks-name: the cluster {name} is {cluster['status']}, not ACTIVE")
    return cluster


def adopt(
    aws: Aws, settings: Settings, progress: Progress, ledger: Path, place: Path
) -> ClusterHandle:
    """Become a guest in the cluster that ``settings.eks.name`` names.

    :raises UsageProblem: it cannot be used, or its API server does not let us in.
    """
    assert settings.eks.name is not None
    cluster = look(aws, settings.eks.name)
    _, runner = caller(aws)
    path = place / "adopted" / f"{settings.eks.name}.kubeconfig"
    access.write(access.kubeconfig(cluster, aws.region), path)
    with progress.phase(f"the API server of {settings.eks.name} lets us in"):
        access.prove(path, settings.eks.name, runner)
    # A guest does not work in the namespace of the owner's own operator by accident.
    as_guest = replace(settings, kubeconfig=path, context=None)
    return KubeconfigProvider().create(as_guest, progress, ledger)


def give_back(aws: Aws, handle: ClusterHandle, cluster: str, progress: Progress) -> None:
    """Remove what the run made: in Kubernetes, and volumes that its claims left in EBS.

    :raises ClusterProblem: something of the run is left.
    """
    lease = Lease.read(handle.state_dir) if handle.state_dir is not None else None
    KubeconfigProvider().destroy(handle, progress)
    if lease is None or not lease.made:
        # In a namespace of somebody else's, a volume cannot be told from theirs.
        return
    left = retained(aws, cluster, lease.namespace)
    for volume in left:
        aws.call("ec2", "delete_volume", VolumeId=volume)
    if left:
        progress.say(f"pgo: removed {len(left)} EBS volumes that the run's claims had left")


def retained(aws: Aws, cluster: str, namespace: str) -> list[str]:
    """Return the free volumes that claims of a namespace of this cluster have left."""
    filters = [
        {"Name": f"tag:kubernetes.io/cluster/{cluster}", "Values": ["owned"]},
        {"Name": f"tag:{_NAMESPACE_TAG}", "Values": [namespace]},
        {"Name": "status", "Values": ["available"]},
    ]
    return [
        volume["VolumeId"]
        for volume in aws.every("ec2", "describe_volumes", "Volumes", Filters=filters)
        if tag_map(volume.get("Tags", ())).get(_NAMESPACE_TAG) == namespace
    ]


def sweep(entry: LedgerEntry, progress: Progress) -> Swept:
    """Give back what a run that died had taken in somebody's cluster."""
    return KubeconfigProvider().sweep(entry, progress)
