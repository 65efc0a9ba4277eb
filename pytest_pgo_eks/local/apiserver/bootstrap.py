"""What is there from the start: namespaces, roles, priority classes, the ``kubernetes`` Service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_pgo_eks.local.objects import Obj

_RBAC = "rbac.authorization.k8s.io/v1"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AUTO = {"rbac.authorization.kubernetes.io/autoupdate": "true"}


def _rule(groups: str, resources: str, verbs: Sequence[str]) -> Obj:
    named = [group if group != "core" else "" for group in groups.split()]
    return {"apiGroups": named, "resources": resources.split(), "verbs": list(verbs)}


def _paths(paths: str) -> Obj:
    return {"nonResourceURLs": paths.split(), "verbs": ["get"]}


def _role(name: str, *rules: Obj) -> Obj:
    metadata = {"name": name, "labels": dict(_LABELS), "annotations": dict(_AUTO)}
    return {"apiVersion": _RBAC, "kind": "ClusterRole", "metadata": metadata, "rules": list(rules)}


def _binding(name: str, role: str, *subjects: tuple[str, str]) -> Obj:
    metadata = {"name": name, "labels": dict(_LABELS), "annotations": dict(_AUTO)}
    return {
        "apiVersion": _RBAC,
        "kind": "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": who}
            for kind, who in subjects
        ],
    }


_USED = (
    "configmaps endpoints persistentvolumeclaims pods replicationcontrollers serviceaccounts "
    "services"
)
_SEEN = "events limitranges namespaces/status pods/log pods/status resourcequotas"
_WORKLOADS = "controllerrevisions deployments deployments/scale replicasets statefulsets"


def _view() -> list[Obj]:
    return [
        _rule("core", f"{_USED} {_SEEN} namespaces", _READ),
        _rule("apps", f"{_WORKLOADS} statefulsets/scale replicasets/scale", _READ),
        _rule("batch", "cronjobs jobs", _READ),
        _rule("policy", "poddisruptionbudgets", _READ),
        _rule("networking.k8s.io", "networkpolicies", _READ),
        _rule("discovery.k8s.io", "endpointslices", _READ),
    ]


def _edit() -> list[Obj]:
    doors = "pods/attach pods/exec pods/portforward pods/proxy services/proxy"
    return [
        *_view(),
        _rule("core", f"{doors} secrets", _READ),
        _rule("core", f"{_USED} secrets {doors}", _WRITE),
        _rule("core", "pods/eviction serviceaccounts/token", ["create"]),
        _rule("core", "serviceaccounts", ["impersonate"]),
        _rule("apps", f"{_WORKLOADS} statefulsets/scale replicasets/scale", _WRITE),
        _rule("batch", "cronjobs jobs", _WRITE),
        _rule("policy", "poddisruptionbudgets", _WRITE),
        _rule("networking.k8s.io", "networkpolicies", _WRITE),
        _rule("coordination.k8s.io", "leases", [*_READ, *_WRITE]),
    ]


def _node() -> list[Obj]:
    """Return what kubelets do; real clusters narrow this down with the Node authorizer."""
    return [
        _rule("authentication.k8s.io", "tokenreviews", ["create"]),
        _rule("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", ["create"]),
        _rule("core", "services endpoints namespaces", _READ),
        _rule("core", "nodes", ["create", "get", "list", "watch", "update", "patch", "delete"]),
        _rule("core", "nodes/status", ["patch", "update"]),
        _rule("core events.k8s.io", "events", ["create", "patch", "update"]),
        _rule("core", "pods", [*_READ, "create", "delete"]),
        _rule("core", "pods/status", ["patch", "update"]),
        _rule("core", "pods/eviction", ["create"]),
        _rule("core", "configmaps secrets", _READ),
        _rule("core", "persistentvolumeclaims persistentvolumes", _READ),
        _rule("core", "persistentvolumeclaims/status", ["get", "patch", "update"]),
        _rule("core", "serviceaccounts", _READ),
        _rule("core", "serviceaccounts/token", ["create"]),
        _rule("coordination.k8s.io", "leases", [*_READ, *_WRITE]),
        _rule("storage.k8s.io", "storageclasses", _READ),
        _rule("scheduling.k8s.io", "priorityclasses", _READ),
    ]


def _network() -> list[Obj]:
    """Return what the network needs: to see Services, endpoints, pods, nodes and policies."""
    return [
        _rule("core", "services endpoints pods nodes namespaces", _READ),
        _rule("discovery.k8s.io", "endpointslices", _READ),
        _rule("networking.k8s.io", "networkpolicies", _READ),
        _rule("core events.k8s.io", "events", ["create", "patch", "update"]),
        _rule("core", "nodes/status", ["patch"]),
    ]


def _roles() -> Iterator[Obj]:
    everything = [_rule("*", "*", ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}]
    yield _role("cluster-admin", *everything)
    edit = _edit()
    own = _rule("rbac.authorization.k8s.io", "rolebindings roles", [*_READ, *_WRITE])
    review = _rule("authorization.k8s.io", "localsubjectaccessreviews", ["create"])
    yield _role("admin", *edit, own, review)
    yield _role("edit", *edit)
    yield _role("view", *_view())
    yield _role(
        "system:basic-user",
        _rule(
            "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", ["create"]
        ),
        _rule("authentication.k8s.io", "selfsubjectreviews", ["create"]),
    )
    health = "/healthz /livez /readyz /version /version/"
    yield _role(
        "system:discovery", _paths(f"/api /api/* /apis /apis/* /openapi /openapi/* {health}")
    )
    yield _role("system:public-info-viewer", _paths(health))
    yield _role("system:node", *_node())
    yield _role("system:node-proxier", *_network())
    # Real clusters have one role for each controller and one for the scheduler.
    yield _role("system:kube-controller-manager", *everything)


def _bindings() -> Iterator[Obj]:
    yield _binding("cluster-admin", "cluster-admin", ("Group", "system:masters"))
    everybody = ("Group", "system:authenticated")
    nobody = ("Group", "system:unauthenticated")
    yield _binding("system:basic-user", "system:basic-user", everybody)
    yield _binding("system:discovery", "system:discovery", everybody)
    yield _binding("system:public-info-viewer", "system:public-info-viewer", everybody, nobody)
    yield _binding("system:node", "system:node", ("Group", "system:nodes"))
    yield _binding(
        "system:node-proxier",
        "system:node-proxier",
        ("User", "system:kube-proxy"),
        ("Group", "system:node-proxiers"),
    )
    yield _binding(
        "system:kube-controller-manager",
        "system:kube-controller-manager",
        ("User", "system:kube-controller-manager"),
        ("User", "system:kube-scheduler"),
        ("Group", "system:controllers"),
    )


def _namespace(name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _priority(name: str, value: int, what: str) -> Obj:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": what,
    }


def objects(address: str, endpoints: Sequence[tuple[str, int]]) -> Iterator[Obj]:
    """Yield the objects in the order in which they can be created.

    ``address`` is the ClusterIP of the ``kubernetes`` Service, ``endpoints`` lead to this server.
    """
    for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
        yield _namespace(name)
    yield from _roles()
    yield from _bindings()
    yield _priority("system-node-critical", 2000001000, "What a node cannot work without.")
    yield _priority("system-cluster-critical", 2000000000, "What a cluster cannot work without.")
    labels = {"component": "apiserver", "provider": "kubernetes"}
    where = {"name": "kubernetes", "namespace": "default"}
    port = endpoints[0][1] if endpoints else 6443
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**where, "labels": labels},
        "spec": {
            "clusterIP": address,
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    }
    if not endpoints:
        return
    skip = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    yield {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {**where, "labels": skip},
        "subsets": [
            {
                "addresses": [{"ip": ip} for ip, _ in endpoints],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
        ],
    }
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**where, "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip, _ in endpoints],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
