"""The cluster's Services, the Endpoints the operator writes, accounts and their rights."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pgo_eks.local.objects import (
    DISRUPTION_BUDGET,
    ENDPOINTS,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
    Obj,
)
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.desired import Cluster

Rendered = tuple[Kind, Obj]

_INSTANCE_RULES = [
    {
        "apiGroups": [""],
        "resources": ["endpoints"],
        "verbs": ["create", "deletecollection", "get", "list", "patch", "watch"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch", "watch"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["create"]},
]
_BACKUP_RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    # PGO has only create. Our entry point opens a WebSocket, which is a get before Kubernetes 1.35.
    {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
]
_REPO_HOST_RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}]


def pods_service(cluster: Cluster) -> Rendered:
    """Return the headless Service that gives every pod of the cluster a DNS name."""
    return _service(
        cluster.metadata(f"{cluster.name}-pods"),
        {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.CLUSTER: cluster.name},
        },
    )


def leader_service(cluster: Cluster) -> Rendered:
    """Return ``hippo-ha``: no selector, because Patroni's leader writes its Endpoints."""
    given = cluster.spec.get("service") or {}
    metadata = cluster.metadata(
        cluster.patroni_scope, {names.PATRONI: cluster.patroni_scope}, given.get("metadata")
    )
    return _service(metadata, _exposed(given) | {"ports": [_port(cluster.port, given)]})


def configuration_service(cluster: Cluster) -> Rendered:
    """Return ``hippo-ha-config``, there only so that nobody deletes the Endpoints of that name."""
    name = f"{cluster.patroni_scope}-config"
    return _service(
        cluster.metadata(name, {names.PATRONI: cluster.patroni_scope}), {"clusterIP": "None"}
    )


def primary_service(cluster: Cluster) -> Rendered:
    """Return the headless ``hippo-primary``, whose Endpoints hold the address of ``hippo-ha``."""
    metadata = cluster.metadata(f"{cluster.name}-primary", {names.ROLE: "primary"})
    return _service(metadata, {"clusterIP": "None", "ports": [_port(cluster.port, {})]})


def primary_endpoints(cluster: Cluster, address: str) -> Rendered:
    """Return the Endpoints of ``hippo-primary``; ``address`` is the ClusterIP of ``hippo-ha``."""
    metadata = cluster.metadata(f"{cluster.name}-primary", {names.ROLE: "primary"})
    port = {"name": "postgres", "port": cluster.port, "protocol": "TCP"}
    return ENDPOINTS, {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata,
        "subsets": [{"addresses": [{"ip": address}], "ports": [port]}],
    }


def replicas_service(cluster: Cluster) -> Rendered:
    given = cluster.spec.get("replicaService") or {}
    metadata = cluster.metadata(
        f"{cluster.name}-replicas", {names.ROLE: "replica"}, given.get("metadata")
    )
    selector = {names.CLUSTER: cluster.name, names.ROLE: names.REPLICA}
    spec = {"ports": [_port(cluster.port, given)], "selector": selector}
    return _service(metadata, _exposed(given) | spec)


def pgbouncer_service(cluster: Cluster) -> Rendered:
    given = (cluster.pgbouncer or {}).get("service") or {}
    own = {names.ROLE: "pgbouncer"}
    metadata = cluster.metadata(f"{cluster.name}-pgbouncer", own, given.get("metadata"))
    port = _port(cluster.pgbouncer_port, given, "pgbouncer")
    selector = {names.CLUSTER: cluster.name} | own
    return _service(metadata, _exposed(given) | {"ports": [port], "selector": selector})


def misconfigured(cluster: Cluster) -> list[str]:
    """Name the Services that ask for a node port although their type has none."""
    blocks = {
        cluster.patroni_scope: cluster.spec.get("service"),
        f"{cluster.name}-replicas": cluster.spec.get("replicaService"),
        f"{cluster.name}-pgbouncer": (cluster.pgbouncer or {}).get("service"),
    }
    return [
        name
        for name, given in blocks.items()
        if given and given.get("nodePort") and given.get("type", "ClusterIP") == "ClusterIP"
    ]


def instance_access(cluster: Cluster) -> list[Rendered]:
    """Return account, Role and RoleBinding of the instance pods: what Patroni needs as its DCS."""
    return _access(cluster, f"{cluster.name}-instance", {}, _INSTANCE_RULES, token=True)


def backup_access(cluster: Cluster) -> list[Rendered]:
    return _access(
        cluster, f"{cluster.name}-pgbackrest", {names.BACKREST: ""}, _BACKUP_RULES, token=None
    )


def repo_host_access(cluster: Cluster) -> list[Rendered]:
    rules = _REPO_HOST_RULES if cluster.release.repo_host_role else []
    own = {names.BACKREST: ""}
    return _access(cluster, f"{cluster.name}-repohost", own, rules, token=None)


def instance_set_budget(cluster: Cluster, instance_set: Obj) -> Rendered | None:
    """Return the set's disruption budget, or None where nothing would be protected."""
    own = {names.INSTANCE_SET: instance_set["name"]}
    name = f"{cluster.name}-set-{instance_set['name']}"
    return _budget(cluster, name, own, instance_set, int(instance_set["replicas"]))


def pgbouncer_budget(cluster: Cluster) -> Rendered | None:
    given = cluster.pgbouncer or {}
    own = {names.ROLE: "pgbouncer"}
    return _budget(cluster, f"{cluster.name}-pgbouncer", own, given, cluster.pgbouncer_replicas)


def _budget(
    cluster: Cluster, name: str, own: Mapping[str, str], given: Obj, replicas: int
) -> Rendered | None:
    minimum = given.get("minAvailable")
    if minimum is None:
        minimum = 1 if replicas > 1 else 0
    if minimum in (0, "0", "0%"):
        return None
    return DISRUPTION_BUDGET, {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": cluster.metadata(name, own, given.get("metadata")),
        "spec": {
            "minAvailable": minimum,
            "selector": {"matchLabels": {names.CLUSTER: cluster.name} | dict(own)},
        },
    }


def _access(
    cluster: Cluster, name: str, own: Mapping[str, str], rules: list[Obj], *, token: bool | None
) -> list[Rendered]:
    block = (cluster.pgbackrest or {}).get("metadata") if own else None
    account: Obj = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": cluster.metadata(name, own, block),
    }
    if token is not None:
        account["automountServiceAccountToken"] = token
    found: list[Rendered] = [(SERVICE_ACCOUNT, account)]
    if rules:
        group = "rbac.authorization.k8s.io"
        role = {"apiVersion": f"{group}/v1", "kind": "Role", "rules": rules}
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name}],
        }
        found.append((ROLE, role | {"metadata": cluster.metadata(name, own, block)}))
        found.append((ROLE_BINDING, binding | {"metadata": cluster.metadata(name, own, block)}))
    return found


def _service(metadata: Obj, spec: Obj) -> Rendered:
    return SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _exposed(given: Obj) -> Obj:
    kept = ("externalTrafficPolicy", "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy")
    found = {name: given[name] for name in kept if given.get(name) is not None}
    return found | {"type": given.get("type") or "ClusterIP"}


def _port(number: int, given: Obj, name: str = "postgres") -> Obj:
    port = {"name": name, "port": number, "protocol": "TCP", "targetPort": name}
    if given.get("nodePort"):
        port["nodePort"] = given["nodePort"]
    return port
