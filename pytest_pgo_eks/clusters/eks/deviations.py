"""The sixteen places where the pattern's text, followed to the letter, fails or weakens today.

Each run on EKS records those that apply to it: what the text says, what was done, and why. Facts as of
2026-11; the identifiers are those that the audit and the reports cite.
"""

from __future__ import annotations

from pytest_pgo_eks.clusters.record import Deviation

DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "D1",
        'Kubernetes version "1.29"',
        "the newest version in standard support that PGO supports",
        "EKS ended extended support of 1.29 on 2026-03-23: it cannot be created any more",
    ),
    Deviation(
        "D2",
        "nodeGroups: three self-managed groups",
        "three managed node groups",
        "self-managed groups are unknown to the EKS API, are not drained when they are removed, and "
        "join only through aws-auth",
    ),
    Deviation(
        "D3",
        "NAT gateways of high availability, and nodes without privateNetworking",
        "nodes stand in private subnets behind the gateways",
        "eksctl puts such nodes into public subnets, where the gateways are paid for and unused",
    ),
    Deviation(
        "D4",
        "node groups that are not tied to a zone",
        "one node group in each zone",
        "a group balances over its own zones alone, so three groups may leave a zone empty; a volume "
        "needs a node in its zone",
    ),
    Deviation(
        "D5",
        "the text speaks of three nodes, the configuration makes six",
        "the profile lean makes three, the profile faithful six",
        "both are the pattern",
    ),
    Deviation(
        "D6",
        "iamIdentityMappings of a role to a user without a group",
        "an access entry without a policy in the profile faithful, nothing in the profile lean",
        "the mapped user has no right, and nobody but EKS may take the role",
    ),
    Deviation(
        "D7",
        "the role of the first step is never given to the cluster",
        "it is the role of the control plane",
        "eksctl makes a role of its own unless it is told the ARN",
    ),
    Deviation(
        "D8",
        "eksctl create addon with two dashes lost in front of an option",
        "the addon is a resource of CloudFormation with its role",
        "the command as printed ends with an error about a second name",
    ),
    Deviation(
        "D9",
        "kubectl apply -k kustomize/install/… in postgres-operator-examples",
        "the manifests of the operator's own repository, its Helm chart, or an older checkout",
        "the directory was removed from the main branch on 2025-12-18",
    ),
    Deviation(
        "D10",
        "the CSI driver's role as an annotation on PGO's ServiceAccount",
        "PGO's ServiceAccount names no role",
        "the role's trust allows the CSI driver's ServiceAccount alone, and PGO asks nothing of AWS",
    ),
    Deviation(
        "D11",
        "kubectl exec -it POD bash",
        "kubectl exec -it POD -- bash",
        "kubectl refuses the form without the dashes",
    ),
    Deviation(
        "D12",
        "volume claims without a storage class",
        "a default StorageClass: gp3, encrypted, bound when a pod needs it",
        "since 1.30 EKS no longer marks its gp2 class as the default, so such claims stay Pending",
    ),
    Deviation(
        "D13",
        "pg_hba: host all all 0.0.0.0/0 trust",
        "the suite's own PostgresCluster has no such line; the pattern's is judged with it on request",
        "it lets every pod in as superuser without a password",
    ),
    Deviation(
        "D14",
        "the policy AmazonEKSServicePolicy on the cluster's role",
        "attached in the profile faithful, left out in the profile lean",
        "EKS has worked with a service-linked role instead since 2020-04-16",
    ),
    Deviation(
        "D15",
        "the policy CloudWatchFullAccess on the cluster's role",
        "attached in the profile faithful, left out in the profile lean",
        "the control plane writes its logs without it, and it gives far more than writing logs",
    ),
    Deviation(
        "D16",
        "six instances of m5.16xlarge",
        "kept in the profile faithful, three of m7g.large in the profile lean",
        "384 vCPUs are more than the quota of most accounts, at about 42 US dollars a night",
    ),
)

#: What a cluster that was only adopted says nothing about: how it was made.
_OF_MAKING = frozenset({"D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D14", "D15", "D16"})


def deviations(profile: str) -> tuple[Deviation, ...]:
    """Return what applies to a run of a profile: all of them to lean and faithful.

    Of an adopted cluster nobody knows how it was made, so only what is about PGO and the
    PostgresCluster applies.
    """
    return tuple(one for one in DEVIATIONS if profile != "adopted" or one.id not in _OF_MAKING)
