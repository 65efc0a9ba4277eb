"""The resources that the server knows: built in, and added by CustomResourceDefinitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pytest_pgo_eks.local.apiserver.schema import Type, builtin
from pytest_pgo_eks.local.objects import Obj

_ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS = ("get", "patch", "update")


@dataclass(eq=False)
class Resource:
    """One resource in one version.

    ``storage`` names the collection that keeps the objects: versions of one resource share it.
    ``stored_as`` is the apiVersion they have there, where it is another one.
    ``subresources`` maps a name to (kind, verbs). ``generation`` is raised when the spec changes.
    """

    group: str
    version: str
    kind: str
    plural: str
    type: Type
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _ALL
    subresources: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    generation: bool = False
    storage: tuple[str, str] = ("", "")
    list_kind: str = ""
    stored_as: str = ""
    custom: bool = False
    columns: list[Obj] = field(default_factory=list)
    scale: Obj | None = None
    selectable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.storage = self.storage if any(self.storage) else (self.group, self.plural)
        self.singular = self.singular or self.kind.lower()
        self.list_kind = self.list_kind or f"{self.kind}List"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources


class Registry:
    """All resources by (group, version, plural)."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Resource] = {}
        for resource in _builtins():
            self.add(resource)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._found.values())

    def add(self, resource: Resource) -> None:
        self._found[resource.group, resource.version, resource.plural] = resource

    def remove_custom(self, group: str, plural: str) -> None:
        """Forget every version of a custom resource."""
        for key in [
            key for key, one in self._found.items() if one.custom and one.storage == (group, plural)
        ]:
            del self._found[key]

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._found.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        group, _, version = api_version.rpartition("/")
        for one in self._found.values():
            if one.kind == kind and one.group == group and one.version == version:
                return one
        return None

    def by_group_kind(self, group: str, kind: str) -> Resource | None:
        return next((one for one in self if one.kind == kind and one.group == group), None)

    def of_storage(self, storage: tuple[str, str]) -> list[Resource]:
        return [one for one in self if one.storage == storage]

    def groups(self) -> dict[str, list[str]]:
        """Return the versions of every group, the core group first, preferred versions first."""
        found: dict[str, list[str]] = {}
        for one in self._found.values():
            versions = found.setdefault(one.group, [])
            if one.version not in versions:
                versions.append(one.version)
        return found


def _make(
    group: str,
    version: str,
    kind: str,
    plural: str,
    *,
    short: str = "",
    categories: str = "",
    status: bool = False,
    **more: Any,
) -> Resource:
    subresources = dict(more.pop("subresources", {}))
    if status:
        subresources["status"] = (kind, STATUS)
    return Resource(
        group,
        version,
        kind,
        plural,
        builtin(more.pop("type_name", kind)),
        short_names=tuple(short.split()),
        categories=tuple(categories.split()),
        subresources=subresources,
        **more,
    )


_SCALE = {"scale": ("Scale", STATUS)}
_REVIEW: dict[str, Any] = {"verbs": ("create",)}
_RBAC = "rbac.authorization.k8s.io"
_AUTHZ = "authorization.k8s.io"
_AUTHN = "authentication.k8s.io"


def _core() -> Iterator[Resource]:
    pod = {
        "attach": ("PodAttachOptions", ("create", "get")),
        "binding": ("Binding", ("create",)),
        "eviction": ("Eviction", ("create",)),
        "exec": ("PodExecOptions", ("create", "get")),
        "log": ("Pod", ("get",)),
        "portforward": ("PodPortForwardOptions", ("create", "get")),
    }
    token = {"token": ("TokenRequest", ("create",))}
    finalize = {"finalize": ("Namespace", ("update",))}
    claim = "PersistentVolumeClaim"
    yield _make("", "v1", "ConfigMap", "configmaps", short="cm")
    yield _make("", "v1", "Endpoints", "endpoints", short="ep", singular="endpoints")
    yield _make("", "v1", "Event", "events", short="ev", type_name="CoreV1Event")
    yield _make("", "v1", "LimitRange", "limitranges", short="limits")
    yield _make(
        "",
        "v1",
        "Namespace",
        "namespaces",
        short="ns",
        status=True,
        namespaced=False,
        subresources=finalize,
        verbs=tuple(verb for verb in _ALL if verb != "deletecollection"),
    )
    yield _make("", "v1", "Node", "nodes", short="no", status=True, namespaced=False)
    yield _make("", "v1", claim, "persistentvolumeclaims", short="pvc", status=True)
    yield _make(
        "", "v1", "PersistentVolume", "persistentvolumes", short="pv", status=True, namespaced=False
    )
    yield _make(
        "",
        "v1",
        "Pod",
        "pods",
        short="po",
        categories="all",
        status=True,
        subresources=pod,
        generation=True,
    )
    yield _make("", "v1", "PodTemplate", "podtemplates")
    yield _make("", "v1", "ResourceQuota", "resourcequotas", short="quota", status=True)
    yield _make("", "v1", "Secret", "secrets")
    yield _make("", "v1", "ServiceAccount", "serviceaccounts", short="sa", subresources=token)
    yield _make("", "v1", "Service", "services", short="svc", categories="all", status=True)


def _builtins() -> Iterator[Resource]:
    yield from _core()
    works: dict[str, Any] = {"categories": "all", "status": True, "generation": True}
    yield _make("apps", "v1", "ControllerRevision", "controllerrevisions")
    yield _make(
        "apps", "v1", "Deployment", "deployments", short="deploy", **works, subresources=_SCALE
    )
    yield _make("apps", "v1", "ReplicaSet", "replicasets", short="rs", **works, subresources=_SCALE)
    yield _make(
        "apps", "v1", "StatefulSet", "statefulsets", short="sts", **works, subresources=_SCALE
    )
    yield _make("batch", "v1", "CronJob", "cronjobs", short="cj", **works)
    yield _make("batch", "v1", "Job", "jobs", **works)
    yield _make(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        short="pdb",
        status=True,
        generation=True,
    )
    yield _make("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", generation=True)
    yield _make("coordination.k8s.io", "v1", "Lease", "leases")
    yield _make(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        short="ev",
        type_name="EventsV1Event",
        storage=("", "events"),
        stored_as="v1",
    )
    yield _make(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        short="netpol",
        generation=True,
    )
    wide: dict[str, Any] = {"namespaced": False}
    yield _make("storage.k8s.io", "v1", "StorageClass", "storageclasses", short="sc", **wide)
    yield _make(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        short="pc",
        generation=True,
        **wide,
    )
    yield _make(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", **wide)
    yield _make(_RBAC, "v1", "ClusterRole", "clusterroles", **wide)
    yield _make(_RBAC, "v1", "RoleBinding", "rolebindings")
    yield _make(_RBAC, "v1", "Role", "roles")
    yield _make(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        short="crd crds",
        categories="api-extensions",
        status=True,
        generation=True,
        **wide,
    )
    yield _make(_AUTHN, "v1", "TokenReview", "tokenreviews", **_REVIEW, **wide)
    yield _make(_AUTHN, "v1", "SelfSubjectReview", "selfsubjectreviews", **_REVIEW, **wide)
    yield _make(_AUTHZ, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", **_REVIEW)
    yield _make(
        _AUTHZ, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", **_REVIEW, **wide
    )
    yield _make(
        _AUTHZ, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", **_REVIEW, **wide
    )
    yield _make(_AUTHZ, "v1", "SubjectAccessReview", "subjectaccessreviews", **_REVIEW, **wide)
    yield Resource(
        "apiregistration.k8s.io",
        "v1",
        "APIService",
        "apiservices",
        Type("struct", "APIService", {"metadata": builtin("ObjectMeta")}, open=True),
        namespaced=False,
        categories=("api-extensions",),
        verbs=("get", "list", "watch"),
    )
