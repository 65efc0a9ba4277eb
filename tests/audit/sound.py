"""A cluster of which nothing bad can be said, as AWS and Kubernetes would describe it."""

from __future__ import annotations

import copy
from datetime import UTC, date, datetime
from typing import Any

from pytest_pgo_eks.audit.facts import Facts

TODAY = date(2026, 11, 23)
ACCOUNT = "111122223333"
NAME = "pgoeks-night"
ISSUER = f"oidc.eks.eu-central-1.amazonaws.com/id/{'A' * 32}"
ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
ZONE = "topology.kubernetes.io/zone"


def role(name: str, *attached: str, trust: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "RoleName": name,
        "Arn": f"arn:aws:iam::{ACCOUNT}:role/{name}",
        "AssumeRolePolicyDocument": {"Statement": [trust or {}]},
        "attached": list(attached),
        "inline": [],
    }


def service_trust(service: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}


def web_trust() -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {
                f"{ISSUER}:aud": "sts.amazonaws.com",
                f"{ISSUER}:sub": "system:serviceaccount:kube-system:ebs-csi-controller-sa",
            }
        },
    }


def _node(number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": f"node-{number}", "labels": {ZONE: ZONES[number]}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def _pod(number: int) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"hippo-pg-1-{number}",
            "labels": {
                "postgres-operator.crunchydata.com/cluster": "hippo",
                "postgres-operator.crunchydata.com/data": "postgres",
            },
        },
        "spec": {
            "nodeName": f"node-{number}",
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{"name": "database"}],
        },
    }


def _instance(number: int) -> dict[str, Any]:
    return {
        "InstanceId": f"i-{number}",
        "SubnetId": f"subnet-{number}",
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
    }


def _table(number: int) -> dict[str, Any]:
    return {
        "Associations": [{"SubnetId": f"subnet-{number}"}],
        "Routes": [
            {"DestinationCidrBlock": "192.168.0.0/16", "GatewayId": "local"},
            {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": f"nat-{number}"},
        ],
    }


def _group(number: int) -> dict[str, Any]:
    return {
        "nodegroupName": f"ng-{number + 1}",
        "status": "ACTIVE",
        "instanceTypes": ["m7g.large"],
        "scalingConfig": {"desiredSize": 1},
    }


SOUND: dict[str, Any] = {
    "cluster": {
        "name": NAME,
        "status": "ACTIVE",
        "version": "1.36",
        "platformVersion": "eks.4",
        "identity": {"oidc": {"issuer": f"https://{ISSUER}"}},
        "resourcesVpcConfig": {
            "vpcId": "vpc-1",
            "subnetIds": ["subnet-0", "subnet-1", "subnet-2"],
            "endpointPublicAccess": True,
            "endpointPrivateAccess": True,
            "publicAccessCidrs": ["203.0.113.7/32"],
        },
        "accessConfig": {"authenticationMode": "API_AND_CONFIG_MAP"},
        "logging": {
            "clusterLogging": [{"types": ["api", "audit", "authenticator"], "enabled": True}]
        },
        "tags": {"pgo-eks/owner": "nightly", "pgo-eks/expires-at": "2026-11-24T03:00:00Z"},
    },
    "version": {
        "clusterVersion": "1.36",
        "versionStatus": "STANDARD_SUPPORT",
        "endOfStandardSupportDate": datetime(2027, 8, 2, tzinfo=UTC),
    },
    "nodegroups": [_group(n) for n in range(3)],
    "addons": {
        "vpc-cni": {
            "addonVersion": "v1.21.1-eksbuild.1",
            "status": "ACTIVE",
            "configurationValues": '{"enableNetworkPolicy": "true"}',
        },
        "aws-ebs-csi-driver": {
            "addonVersion": "v1.64.0-eksbuild.1",
            "status": "ACTIVE",
            "serviceAccountRoleArn": f"arn:aws:iam::{ACCOUNT}:role/csi",
        },
    },
    "access_entries": [
        {
            "principalArn": f"arn:aws:iam::{ACCOUNT}:role/runner",
            "accessPolicies": [
                {"policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"}
            ],
        }
    ],
    "pod_identities": [],
    "log_groups": [{"logGroupName": f"/aws/eks/{NAME}/cluster", "retentionInDays": 7}],
    "log_streams": {
        f"/aws/eks/{NAME}/cluster": [
            {"logStreamName": "kube-apiserver-0123", "lastEventTimestamp": 1_795_000_000_000},
            {"logStreamName": "authenticator-0123", "lastEventTimestamp": 1_795_000_000_000},
        ]
    },
    "oidc_providers": [
        {
            "Arn": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER}",
            "Url": ISSUER,
            "ClientIDList": ["sts.amazonaws.com"],
        }
    ],
    "cluster_role": role(
        "control-plane", "AmazonEKSClusterPolicy", trust=service_trust("eks.amazonaws.com")
    ),
    "node_roles": [role("nodes", "AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy")],
    "csi_role": role("csi", "AmazonEBSCSIDriverPolicy", trust=web_trust()),
    "launch_templates": [
        {"Name": "ng", "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}}
    ],
    "instances": [_instance(n) for n in range(3)],
    "volumes": [{"VolumeId": f"vol-{n}", "Encrypted": True} for n in range(6)],
    "encryption_by_default": False,
    "subnets": {f"subnet-{n}": {"AvailabilityZone": zone} for n, zone in enumerate(ZONES)},
    "route_tables": [_table(n) for n in range(3)],
    "vpc": {"CidrBlock": "192.168.0.0/16"},
    "security_groups": [
        {
            "GroupId": "sg-1",
            "IpPermissions": [
                {
                    "IpProtocol": "tcp",
                    "FromPort": 443,
                    "ToPort": 443,
                    "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                }
            ],
        }
    ],
    "buckets": {"backups": {"encrypted": True, "private": True}},
    "nodes": [_node(n) for n in range(3)],
    "storage_classes": [
        {
            "metadata": {
                "name": "gp3",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "parameters": {"encrypted": "true"},
        }
    ],
    "volume_claims": [],
    "namespaces": [
        {
            "metadata": {
                "name": "postgres-operator",
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            }
        }
    ],
    "pods": [_pod(n) for n in range(3)],
    "services": [
        {
            "metadata": {"name": "hippo-ha", "namespace": "postgres-operator"},
            "spec": {"type": "ClusterIP"},
        }
    ],
    "service_accounts": [
        {"metadata": {"name": "pgo", "namespace": "postgres-operator"}},
        {
            "metadata": {
                "name": "ebs-csi-controller-sa",
                "namespace": "kube-system",
                "annotations": {"eks.amazonaws.com/role-arn": f"arn:aws:iam::{ACCOUNT}:role/csi"},
            }
        },
    ],
    "aws_auth": None,
    "postgres": {
        "metadata": {"name": "hippo", "namespace": "postgres-operator"},
        "spec": {
            "patroni": {
                "dynamicConfiguration": {
                    "postgresql": {"pg_hba": ["hostssl all all 0.0.0.0/0 scram-sha-256"]}
                }
            }
        },
    },
    "capabilities": frozenset({"network-policy", "zones"}),
    "verified_tls": True,
}


def sound() -> dict[str, Any]:
    """Return the facts, for a test to spoil."""
    return copy.deepcopy(SOUND)


def facts(read: dict[str, Any], profile: str = "lean") -> Facts:
    """Return facts as of a fixed day."""
    return Facts(read, TODAY, profile)
