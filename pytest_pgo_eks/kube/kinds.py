"""Which path serves a kind: discovery with a deadline, and kinds that appear later.

Kubernetes' own stable kinds are known here, which saves a dozen requests at every start. Everything
else is asked of the server; what it does not serve is asked again the next time, because a
CustomResourceDefinition may have been established since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pytest_pgo_eks.errors import NotFound


@dataclass(frozen=True)
class Resource:
    """One served kind. ``group`` is empty for the core group."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, sub: str = "") -> str:
        """Return the URL path of a collection, an object, or an object's subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if sub:
            parts.append(sub)
        return "/".join(parts)


def _known() -> dict[str, Resource]:
    namespaced = {
        "v1": "Pod pods, Service services, Endpoints endpoints, Secret secrets, "
        "ConfigMap configmaps, Event events, ServiceAccount serviceaccounts, "
        "PersistentVolumeClaim persistentvolumeclaims",
        "apps/v1": "Deployment deployments, StatefulSet statefulsets, ReplicaSet replicasets, "
        "DaemonSet daemonsets",
        "batch/v1": "Job jobs, CronJob cronjobs",
        "policy/v1": "PodDisruptionBudget poddisruptionbudgets",
        "discovery.k8s.io/v1": "EndpointSlice endpointslices",
        "coordination.k8s.io/v1": "Lease leases",
        "networking.k8s.io/v1": "NetworkPolicy networkpolicies",
        "rbac.authorization.k8s.io/v1": "Role roles, RoleBinding rolebindings",
    }
    clusterwide = {
        "v1": "Node nodes, Namespace namespaces, PersistentVolume persistentvolumes",
        "storage.k8s.io/v1": "StorageClass storageclasses",
        "rbac.authorization.k8s.io/v1": "ClusterRole clusterroles, "
        "ClusterRoleBinding clusterrolebindings",
        "apiextensions.k8s.io/v1": "CustomResourceDefinition customresourcedefinitions",
    }
    table: dict[str, Resource] = {}
    for is_namespaced, groups in ((True, namespaced), (False, clusterwide)):
        for api_version, pairs in groups.items():
            group, _, version = api_version.rpartition("/")
            for pair in pairs.split(", "):
                kind, plural = pair.split()
                found = Resource(group, version, kind, plural, is_namespaced)
                table[kind] = table[f"{api_version}/{kind}"] = found
    return table


class Kinds:
    """Resolves ``"Pod"``, ``"apps/v1/Deployment"`` or ``"PostgresCluster"`` to a resource.

    A bare kind that several groups serve means the core group's, else the first group's in the
    server's own order, in that group's preferred version.
    """

    def __init__(self, get: Callable[[str], Any]) -> None:
        self._get = get
        self._lock = threading.Lock()
        self._found: dict[str, Resource] = _known()

    def resolve(self, kind: str) -> Resource:
        """Return what serves ``kind``.

        :raises NotFound: the server serves no such kind now.
        """
        found = self._found.get(kind)
        if found is None:
            # One thread asks; nobody waits for it who needs a kind that is known.
            with self._lock:
                found = self._found.get(kind)
                if found is None:
                    found = self._found[kind] = self._discover(kind)
        return found

    def forget(self, kind: str) -> bool:
        """Drop what was discovered about ``kind``; return whether asking again may help."""
        with self._lock:
            if kind in _known():
                return False
            return self._found.pop(kind, None) is not None

    def _discover(self, kind: str) -> Resource:
        api_version, _, bare = kind.rpartition("/")
        if api_version:
            for candidate in self._versions(api_version, bare):
                return candidate
        else:
            for candidate in self._versions("v1", bare):
                return candidate
            for group in self._get("/apis").get("groups") or []:
                preferred = (group.get("preferredVersion") or {}).get("groupVersion")
                others = [version["groupVersion"] for version in group.get("versions") or []]
                for group_version in dict.fromkeys([preferred, *others]):
                    if group_version:
                        for candidate in self._versions(group_version, bare):
                            return candidate
        raise NotFound(
            f"the server serves no kind {kind!r}; is its CustomResourceDefinition established?",
            status=404,
            reason="NoSuchKind",
        )

    def _versions(self, api_version: str, kind: str) -> list[Resource]:
        group, _, version = api_version.rpartition("/")
        try:
            served = self._get(f"/apis/{api_version}" if group else f"/api/{api_version}")
        except NotFound:
            return []
        return [
            Resource(group, version, kind, str(one["name"]), bool(one.get("namespaced")))
            for one in served.get("resources") or []
            if one.get("kind") == kind and "/" not in one.get("name", "/")
        ]
