"""What was read of a cluster, by name; what could not be read keeps its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pytest_pgo_eks.errors import Inconclusive

#: Every name that a check may ask for, with the shape of its value.
#: Answers of AWS keep the member names of its API, objects of Kubernetes their JSON.
NAMES: Mapping[str, str] = {
    "cluster": "eks DescribeCluster: the cluster",
    "version": "eks DescribeClusterVersions: the entry of the cluster's version",
    "nodegroups": "eks DescribeNodegroup: a list",
    "addons": "eks DescribeAddon: a dict by addon name",
    "access_entries": "eks DescribeAccessEntry, each with its accessPolicies: a list",
    "pod_identities": "eks ListPodIdentityAssociations: a list",
    "log_groups": "logs DescribeLogGroups under /aws/eks/NAME/ and /aws/containerinsights/NAME/",
    "log_streams": "logs DescribeLogStreams: a dict by log group of lists",
    "oidc_providers": "iam GetOpenIDConnectProvider, each with its Arn: a list",
    "cluster_role": "iam GetRole with attached (policy names) and inline (policy names)",
    "node_roles": "the same, a list: one per role of a node group",
    "csi_role": "the same: the role of the EBS CSI driver, None where it has none",
    "launch_templates": "ec2 DescribeLaunchTemplateVersions: a list of LaunchTemplateData",
    "instances": "ec2 DescribeInstances: the nodes",
    "volumes": "ec2 DescribeVolumes: root and claimed volumes of the cluster",
    "encryption_by_default": "ec2 GetEbsEncryptionByDefault: a bool",
    "subnets": "ec2 DescribeSubnets of the cluster's VPC: a dict by id",
    "route_tables": "ec2 DescribeRouteTables of the cluster's VPC: a list",
    "vpc": "ec2 DescribeVpcs: the cluster's VPC",
    "security_groups": "ec2 DescribeSecurityGroups of the cluster's VPC: a list",
    "buckets": "s3, for every repository of the PostgresCluster in S3: a dict by bucket of "
    "{encrypted: bool, private: bool}",
    "nodes": "Kubernetes Nodes",
    "storage_classes": "Kubernetes StorageClasses",
    "volume_claims": "PersistentVolumeClaims of the namespace under test",
    "namespaces": "the Namespaces of the operator and of the PostgresCluster",
    "pods": "the Pods in them",
    "services": "the Services in them",
    "service_accounts": "the ServiceAccounts in them, and kube-system's of the CSI driver",
    "aws_auth": "kube-system's ConfigMap aws-auth, None where there is none",
    "postgres": "the PostgresCluster",
    "capabilities": "names of what the cluster was found to be able to do: a frozenset",
    "verified_tls": "whether the client verifies the API server's certificate: a bool",
}


class Unread(Inconclusive):
    """A fact that could not be read; a check that needs it has no answer."""


@dataclass(frozen=True)
class Facts:
    """What is known. ``profile`` is lean, faithful, or adopted; ``today`` is the day of the run.

    ``expected_zones`` is how many zones the cluster was asked to span.
    """

    read: Mapping[str, Any]
    today: date
    profile: str = "lean"
    expected_zones: int = 3
    unread: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """Return a fact.

        :raises Unread: it could not be read; the text says why.
        :raises KeyError: no check may ask for a name that is not in :data:`NAMES`.
        """
        if name in self.read:
            return self.read[name]
        if name not in NAMES:
            raise KeyError(name)
        raise Unread(self.unread.get(name, f"{NAMES[name]} was not read"))

    @property
    def instance_pods(self) -> list[dict[str, Any]]:
        """The pods that run an instance of the PostgresCluster under test."""
        name = self["postgres"]["metadata"]["name"]
        wanted = {
            "postgres-operator.crunchydata.com/cluster": name,
            "postgres-operator.crunchydata.com/data": "postgres",
        }
        return [
            pod
            for pod in self["pods"]
            if wanted.items() <= (pod["metadata"].get("labels") or {}).items()
        ]
