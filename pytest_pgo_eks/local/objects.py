"""Kubernetes objects as plain dicts, and the kinds the stand-in knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """Where a kind of object lives in the API."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, sub: str = "") -> str:
        """Return the URL path of a collection or, with ``name``, of one object."""
        root = (
            f"/api/{self.api_version}" if self.api_version == "v1" else f"/apis/{self.api_version}"
        )
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        which = f"/{name}" if name else ""
        return f"{root}{where}/{self.plural}{which}{'/' + sub if sub else ''}"


NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
NODE = Kind("v1", "Node", "nodes", namespaced=False)
PERSISTENT_VOLUME = Kind("v1", "PersistentVolume", "persistentvolumes", namespaced=False)
POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
ENDPOINTS = Kind("v1", "Endpoints", "endpoints")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
EVENT = Kind("v1", "Event", "events")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
CONTROLLER_REVISION = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
JOB = Kind("batch/v1", "Job", "jobs")
CRON_JOB = Kind("batch/v1", "CronJob", "cronjobs")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
STORAGE_CLASS = Kind("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False)
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = Kind(
    "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
CUSTOM_RESOURCE_DEFINITION = Kind(
    "apiextensions.k8s.io/v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)
POSTGRES_CLUSTER = Kind(
    "postgres-operator.crunchydata.com/v1beta1", "PostgresCluster", "postgresclusters"
)

# The StorageClass whose volumes are file systems of their own, as big as their claim says. They are
# in memory: nothing else gives an ordinary user a file system that can be full by itself.
LIMITED_CLASS = "standin-limited"


def meta(obj: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object's metadata (the live dict, not a copy)."""
    found: dict[str, Any] = obj["metadata"]
    return found


def labels_of(obj: Mapping[str, Any]) -> dict[str, str]:
    """Return the object's labels, empty when it has none."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> dict[str, str]:
    """Return the object's annotations, empty when it has none."""
    return obj["metadata"].get("annotations") or {}


def key(obj: Mapping[str, Any]) -> tuple[str, str]:
    """Return (namespace, name); the namespace of a cluster-scoped object is the empty string."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def owned_by(obj: Mapping[str, Any], uid: str) -> bool:
    """Say whether the object's controller owner has this UID."""
    return any(
        ref.get("controller") and ref["uid"] == uid
        for ref in obj["metadata"].get("ownerReferences") or []
    )


def matches(selector: Mapping[str, Any] | None, found: Mapping[str, str]) -> bool:
    """Apply a ``metav1.LabelSelector`` (matchLabels, matchExpressions). None selects nothing."""
    if selector is None:
        return False
    if any(found.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    for term in selector.get("matchExpressions") or []:
        name, operator, values = term["key"], term["operator"], term.get("values") or []
        value = found.get(name)
        if operator == "In" and value not in values:
            return False
        if operator == "NotIn" and value is not None and value in values:
            return False
        if operator == "Exists" and value is None:
            return False
        if operator == "DoesNotExist" and value is not None:
            return False
    return True
